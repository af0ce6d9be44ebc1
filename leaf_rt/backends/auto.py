"""The choice that "auto" makes: the GPU where one answers rightly, else the quickest CPU back end, measured once.

Knows candidates, clocks and the memory of earlier choices; must not know how a back end works.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from leaf_rt.artifact import ModelSpec
from leaf_rt.backends.base import CANDIDATES, Backend, Candidate, Say, Wanted, default_threads, int8_file, load
from leaf_rt.backends.cache import cache_folder, name_of, usable, write_atomically
from leaf_rt.backends.parity import compare, golden_faces
from leaf_rt.errors import BackendError, LeafError

BUDGET = 1.0  # s for measuring, all back ends together
BATCH = 4  # faces per call while measuring
MEMORY = "auto.json"


def choose(
    model: Path, spec: ModelSpec, threads: int, say: Say, precision: str = "", folder: Path | None = None
) -> Backend:
    """The best back end for a model here.

    Args:
        model: The file.
        spec: Its description.
        threads: As for ``open_backend``.
        say: Told what takes long and what was passed over.
        precision: "" for the model's own, "int8" for the quantised files beside it.
        folder: Of the memory; None takes the cache folder.

    Raises:
        BackendError: No back end can run it; the message says why for each.
    """
    if precision not in ("", "int8", spec.precision):
        raise BackendError(f"--precision {precision}: --backend auto takes int8 or the model's own ({spec.precision})")
    quantised = precision == "int8" and spec.precision == "fp32"
    passed: list[str] = []
    cpu: list[_Entry] = []
    for one in CANDIDATES:
        if model.suffix not in one.formats or (quantised and one.name.startswith("tensorrt")):
            continue
        ok, why = one.available()
        if not ok:
            passed.append(why if one.name in why else f"{one.name}: {why}")
            continue
        try:
            if one.name.startswith("tensorrt"):
                return load(one, model, spec, Wanted(threads, "the GPU is the quickest", "", say))
            cpu.append(_Entry(one, *(int8_file(model, spec, one) if quantised else (model, spec))))
        except LeafError as e:
            say(f"{one.name} passed over: {e}")
            passed.append(f"{one.name}: {e}")
    if not cpu:
        raise BackendError(f"no back end can run {model.name} here ({'; '.join(passed)})")
    gpu = next((text for text in passed if "driver" in text), passed[0] if passed else "no GPU engine").partition(";")[
        0
    ]
    if quantised:
        gpu = "int8 was asked for"
    if len(cpu) == 1:
        return cpu[0].open(Wanted(threads, f"the one CPU back end for it here; {gpu}", "", say))
    return _measured(cpu, threads, say, folder or cache_folder(), gpu)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A CPU back end and the file that it would run."""

    candidate: Candidate
    path: Path
    spec: ModelSpec

    def open(self, wanted: Wanted) -> Backend:
        return load(self.candidate, self.path, self.spec, wanted)


def _measured(cpu: list[_Entry], threads: int, say: Say, folder: Path, gpu: str) -> Backend:
    """The winner remembered for this machine and model, or the winner of a measurement now."""
    key = name_of({
        "models": [entry.spec.sha256 for entry in cpu], "threads": threads or default_threads(),
        "machine": platform.node(), "processor": _processor(),
        "versions": [entry.candidate.version() for entry in cpu],
    })  # fmt: skip
    known = _recall(folder).get(key)
    if isinstance(known, dict) and (best := next((c for c in cpu if c.candidate.name == known.get("winner")), None)):
        try:
            return best.open(Wanted(threads, f"the quickest here ({known.get('why')}); {gpu}", "", say))
        except LeafError as e:
            say(f"{best.candidate.name} was the quickest here but fails now: {e}")
    opened: dict[str, Backend] = {}
    failures: list[LeafError] = []
    for entry in cpu:
        try:
            opened[entry.candidate.name] = entry.open(Wanted(threads, "", "", say))
        except LeafError as e:
            say(f"{entry.candidate.name} passed over: {e}")
            failures.append(e)
    if not opened:
        raise failures[-1]
    times = _race(opened, cpu[0].spec, say)
    winner = min(times, key=lambda name: times[name])
    why = ", ".join(f"{name} {times[name] * 1e3:.1f} ms" for name in sorted(times, key=lambda n: times[n])) + " a face"
    for name, backend in opened.items():
        if name != winner:
            backend.close()
    _remember(folder, key, {"winner": winner, "why": why}, say)
    chosen = opened[winner]
    chosen.reason += f"the quickest here ({why}, measured now); {gpu}"
    return chosen


def _race(
    opened: dict[str, Backend], spec: ModelSpec, say: Say, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds per face of each back end whose answers agree, in turns, so that load hits all alike."""
    faces = golden_faces(spec.side)
    reference = opened["onnxruntime"].infer(faces[:64]) if "onnxruntime" in opened else None
    fit = dict(opened)
    for name, backend in opened.items():
        # Quantised files of two tools differ by more than rounding; each has its accuracy proven at export.
        if reference is not None and name != "onnxruntime" and spec.precision != "int8":
            parity = compare(reference, backend.infer(faces[:64]))
            if not parity.ok:
                say(f"{name} passed over: it answers otherwise than ONNX Runtime ({parity})")
                del fit[name]
    took: dict[str, list[float]] = {name: [] for name in fit}
    for backend in fit.values():
        backend.infer(faces[:BATCH])
    end = clock() + BUDGET
    while clock() < end or min(len(t) for t in took.values()) < 3:
        for name, backend in fit.items():
            start = clock()
            backend.infer(faces[:BATCH])
            took[name].append((clock() - start) / BATCH)
    return {name: median(times) for name, times in took.items()}


def _recall(folder: Path) -> dict[str, object]:
    try:
        memory = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: measured again
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(folder: Path, key: str, choice: dict[str, str], say: Say) -> None:
    why = usable(folder)
    if why is None:
        try:
            write_atomically(folder / MEMORY, json.dumps({**_recall(folder), key: choice}, indent=2).encode())
        except OSError as e:
            why = f"{folder / MEMORY} cannot be written ({e.strerror or e})"
    if why is not None:
        say(f"the back end is measured at every start: {why}; set LEAF_RT_CACHE to a folder of yours")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
