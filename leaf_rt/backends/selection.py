"""The choice that "auto" makes: the GPU where one answers rightly, else the quickest CPU back end, measured once.

Knows candidates, clocks and the memory of earlier choices; must not know how a back end works.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from leaf_rt.backends.base import (
    BACKENDS,
    Backend,
    BackendConfig,
    BackendEntry,
    ProgressCallback,
    candidate,
    default_threads,
    int8_file,
    int8_path,
    load,
)
from leaf_rt.backends.parity import compare, golden_faces
from leaf_rt.backends.plan_cache import cache_folder, name_of, usable
from leaf_rt.errors import BackendError, LeafError, ModelError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.system.files import write_whole
from leaf_rt.types import Prediction

BUDGET = 1.0  # s for measuring, all back ends together
BATCH = 4  # faces per call while measuring
PROOF = 64  # stored crops on which a way must agree with the model
ROUGH = 0.9  # share of equal labels below which a quantised file is taken for miscomputed
MEMORY = "auto.json"


def choose(
    model: Path, spec: ModelSpec, threads: int, say: ProgressCallback, precision: str = "", folder: Path | None = None,
    build: bool = True,
) -> Backend:  # fmt: skip
    """The best back end for a model here.

    Args:
        model: The file.
        spec: Its description.
        threads: As for ``open_backend``.
        say: Told what takes long and what was passed over.
        precision: "" for the quickest that comes with the model; else that one alone.
        folder: Of the memory; None takes the cache folder.
        build: See ``BackendConfig``.

    Raises:
        BackendError: No back end can run it; the message says why for each.
    """
    passed: list[str] = []
    notes: list[str] = []
    cpu: list[_Entry] = []
    on_gpu = precision in ("", "fp32", "fp16") and spec.precision != "int8"
    for one in BACKENDS:
        if model.suffix not in one.formats or (one.name.startswith("tensorrt") and not on_gpu):
            continue
        ok, why = one.available()
        if not ok:
            passed.append(why if one.name in why else f"{one.name}: {why}")
            continue
        try:
            if one.name.startswith("tensorrt"):
                return load(one, model, spec, BackendConfig(threads, "the GPU is the quickest", precision, say, build))
            cpu += _entries(one, model, spec, precision, say)
        except LeafError as e:
            passed.append(f"{one.name}: {e}")
            if one.name.startswith("tensorrt") or isinstance(e, ModelError):  # else: it was not asked for
                notes.append(f"{one.name} passed over: {e}")
    if not cpu:
        asked = f" in {precision}" if precision else ""
        raise BackendError(f"no back end can run {model.name}{asked} here ({'; '.join(passed)})")
    for note in notes:
        say(note)
    gpu = next((text for text in passed if "driver" in text), passed[0] if passed else "no GPU engine")
    gpu = gpu.partition(";")[0] if on_gpu else f"{precision or spec.precision} is for the CPU"
    if len(cpu) == 1:
        return cpu[0].open(BackendConfig(threads, f"the one CPU back end for it here; {gpu}", "", say))
    return _measured(cpu, (model, spec), threads, say, folder or cache_folder(), gpu)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A CPU back end, the file that it would run, and the arithmetic where the file leaves that open."""

    candidate: BackendEntry
    path: Path
    spec: ModelSpec
    arithmetic: str = ""

    @property
    def name(self) -> str:
        return f"{self.candidate.name} {self.arithmetic or self.spec.precision}"

    def open(self, wanted: BackendConfig) -> Backend:
        return load(self.candidate, self.path, self.spec, replace(wanted, precision=self.arithmetic))


def _entries(one: BackendEntry, model: Path, spec: ModelSpec, precision: str, say: ProgressCallback) -> list[_Entry]:
    """The ways in which a CPU back end can run a model at the precision asked for; not empty.

    Raises:
        BackendError: It cannot.
    """
    if precision == spec.precision:
        return [_Entry(one, model, spec)]
    exact = spec.precision == "fp32"
    if precision == "int8" and exact:
        return [_Entry(one, *int8_file(model, spec, one))]
    if precision == "bf16" and exact and one.name == "openvino":
        return [_Entry(one, model, spec, precision)]
    if precision != "":
        raise BackendError(f"does not run this {spec.precision} model in {precision}")
    found = [_Entry(one, model, spec)]
    if exact and int8_path(model, one).is_file():
        try:
            found.append(_Entry(one, *int8_file(model, spec, one)))
        except LeafError as e:
            say(str(e))
    return found


def _measured(
    cpu: list[_Entry], own: tuple[Path, ModelSpec], threads: int, say: ProgressCallback, folder: Path, gpu: str
) -> Backend:
    """The winner remembered for this machine and model, or the winner of a measurement now."""
    key = name_of({
        "models": [(entry.name, entry.spec.sha256) for entry in cpu], "threads": threads or default_threads(),
        "machine": platform.node(), "processor": processor(),
        "versions": [entry.candidate.version() for entry in cpu],
    })  # fmt: skip
    known = _recall(folder).get(key)
    if isinstance(known, dict) and (best := next((e for e in cpu if e.name == known.get("winner")), None)):
        try:
            return best.open(BackendConfig(threads, _because(best, cpu, str(known.get("why")), gpu), "", say))
        except LeafError as e:
            say(f"{best.name} was the quickest here but fails now: {e}")
    opened: dict[str, Backend] = {}
    failures: dict[str, LeafError] = {}
    for entry in cpu:
        try:
            opened[entry.name] = entry.open(BackendConfig(threads, "", "", say))
        except LeafError as e:
            failures[entry.name] = e
    if not opened:
        raise failures[cpu[-1].name]
    for name, failure in failures.items():
        say(f"{name} passed over: {failure}")
    try:
        times = _race(opened, _exact(opened, own, threads), say)
    except LeafError:
        for backend in opened.values():
            backend.close()
        raise
    winner = min(times, key=lambda name: times[name])
    why = ", ".join(f"{name} {times[name] * 1e3:.1f} ms" for name in sorted(times, key=lambda n: times[n])) + " a face"
    for name, backend in opened.items():
        if name != winner:
            backend.close()
    _remember(folder, key, {"winner": winner, "why": why}, say)
    chosen = opened[winner]
    best = next(entry for entry in cpu if entry.name == winner)
    chosen.reason += _because(best, cpu, f"{why}, measured now", gpu)
    return chosen


def _because(best: _Entry, cpu: list[_Entry], why: str, gpu: str) -> str:
    """Why this one runs, and how to get the exact one where a quantised file won unasked."""
    unasked = best.spec.precision == "int8" and any(entry.spec.precision == "fp32" for entry in cpu)
    return f"the quickest here ({why}); {gpu}{'; --precision fp32 for the exact one' if unasked else ''}"


def _exact(opened: dict[str, Backend], own: tuple[Path, ModelSpec], threads: int) -> Prediction | None:
    """What the model itself says of the stored crops by ONNX Runtime; None where that cannot run it."""
    model, spec = own
    one = candidate("onnxruntime")
    known = opened.get(f"onnxruntime {spec.precision}")
    if known is None and (model.suffix not in one.formats or not one.available()[0]):
        return None
    backend = known or load(one, model, spec, BackendConfig(threads))
    try:
        return backend.infer(golden_faces(spec.side)[:PROOF])
    except BackendError:
        return None
    finally:
        if known is None:
            backend.close()


def _race(
    opened: dict[str, Backend],
    exact: Prediction | None,
    say: ProgressCallback,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds per face of each way whose answers agree, in turns, so that load hits all alike.

    Raises:
        BackendError: None agrees, or one that agreed fails while it is timed.
    """
    side = next(iter(opened.values())).spec.side
    faces = golden_faces(side)
    fit = dict(opened)
    for name, backend in opened.items():
        try:
            answer = backend.infer(faces[:PROOF])
        except BackendError as e:
            say(f"{name} passed over: {e}")
            del fit[name]
            continue
        parity = compare(exact, answer) if exact is not None else None
        # Quantised files differ by more than rounding, and their accuracy is proven at export: here only a processor
        # that computes them wrongly is to be found.
        if parity is not None and not (parity.agreement >= ROUGH if name.endswith("int8") else parity.ok):
            say(f"{name} passed over: it answers otherwise than the model in ONNX Runtime ({parity})")
            del fit[name]
    if not fit:
        raise BackendError(f"{' and '.join(opened)} answer otherwise than the model in ONNX Runtime, or not at all")
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


def _remember(folder: Path, key: str, choice: dict[str, str], say: ProgressCallback) -> None:
    why = usable(folder)
    if why is None:
        try:
            write_whole(folder / MEMORY, json.dumps({**_recall(folder), key: choice}, indent=2).encode())
        except LeafError as e:
            why = str(e)
    if why is not None:
        say(f"the back end is measured at every start: {why}; set LEAF_RT_CACHE to a folder of yours")


def processor() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
