"""The choice of "auto": a GPU back end if one gives correct answers, else the fastest CPU variant.

The CPU variants are timed once per machine and model; the winner is stored in the user's cache folder. Must not know
how a back end works.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from leaf_rt.backends.base import Backend, BackendConfig, ProgressCallback, default_threads
from leaf_rt.backends.parity import PROOF, compare, golden_faces
from leaf_rt.backends.plan_cache import cache_folder, folder_problem, hashed_name, set_aside
from leaf_rt.backends.registry import BACKENDS, BackendEntry, find_backend
from leaf_rt.backends.variants import Variant
from leaf_rt.errors import BackendError, BackendUnavailable, GpuUnavailable, LeafError, ModelError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.system.cpu import cpu_name
from leaf_rt.system.files import write_whole
from leaf_rt.system.parsing import read_json
from leaf_rt.types import Prediction

BUDGET = 1.0  # s for timing, all variants together
BATCH = 4  # faces per call while timing
INT8_AGREEMENT = 0.9  # share of equal labels below which an int8 file is considered miscomputed
CHOICES = "auto.json"
_MAX_CHOICES = 4 << 20  # bytes


def select_backend(model: Path, spec: ModelSpec, config: BackendConfig, folder: Path | None = None) -> Backend:
    """Open the best back end for a model on this machine.

    Args:
        model: The model file.
        spec: Its description.
        config: How to open it; a ``precision`` other than "" is the only one considered.
        folder: Folder of the stored choice; None means the cache folder.

    Raises:
        BackendError: No back end can run the model; the message gives the reason for each.
    """
    rejected: list[tuple[BackendEntry, LeafError]] = []
    warnings: list[str] = []
    cpu: list[Variant] = []
    for backend in BACKENDS:
        if model.suffix not in backend.formats or (backend.device == "cuda" and not _on_gpu(backend, spec, config)):
            continue
        problem = backend.gpu_problem() if backend.device == "cuda" else backend.problem()
        if problem is not None:
            rejected.append((backend, problem))
            continue
        try:
            if backend.device == "cuda":
                opened = backend.open(model, spec, replace(config, reason="the GPU is the fastest"))
                if opened.device == "cuda":
                    return opened
                opened.close()
                raise BackendError(f"{backend.title} finds no GPU that it can use")
            cpu += _cpu_variants(backend, model, spec, config)
        except LeafError as e:
            rejected.append((backend, e))
            # Other errors of a CPU back end only mean that it does not offer the requested precision.
            if backend.device == "cuda" or isinstance(e, ModelError):
                warnings.append(f"{backend.name} is not used: {e}")
    if not cpu:
        precision = f" in {config.precision}" if config.precision else ""
        reasons = "; ".join(f"{backend.name}: {error}" for backend, error in rejected)
        slow = [
            b.name
            for b in BACKENDS
            if b.cpu_too and model.suffix in b.formats and _on_gpu(b, spec, config) and b.problem() is None
        ]
        hint = f"; --backend {slow[0]} runs it on the CPU, slowly" if slow else ""
        raise BackendError(f"no back end can run {model.name}{precision} here ({reasons}){hint}")
    for warning in warnings:
        config.notify(warning)
    if any(backend.device == "cuda" and _on_gpu(backend, spec, config) for backend in BACKENDS):
        no_gpu = _why_no_gpu(rejected)
    else:
        no_gpu = f"{config.precision or spec.precision} is for the CPU"
    if len(cpu) == 1:
        return cpu[0].open(replace(config, reason=f"the only CPU back end for this model here; {no_gpu}"))
    return _fastest(cpu, config, folder or cache_folder(), no_gpu)


def _on_gpu(backend: BackendEntry, spec: ModelSpec, config: BackendConfig) -> bool:
    """Whether a GPU back end runs a model at the requested precision."""
    return config.precision in ("", *backend.precisions) and spec.precision in backend.precisions


def _why_no_gpu(rejected: list[tuple[BackendEntry, LeafError]]) -> str:
    """Why the model runs on the CPU: a missing GPU if that is known, else the first problem of a back end."""
    if not rejected:
        return "no GPU engine"
    missing = (r for r in rejected if isinstance(r[1], GpuUnavailable))
    backend, error = next(missing, rejected[0])
    return f"{backend.name}: {error.problem if isinstance(error, BackendUnavailable) else error}"


def _cpu_variants(backend: BackendEntry, model: Path, spec: ModelSpec, config: BackendConfig) -> list[Variant]:
    """The variants of a model that a CPU back end offers at the requested precision; at least one.

    Raises:
        BackendError: It offers none.
    """
    own = Variant(backend, model, spec, spec.precision)
    if config.precision == spec.precision:
        return [own]
    if config.precision == "":
        int8 = replace(own, precision="int8")
        if not int8.quantized or not int8.path.is_file():
            return [own]
        try:
            int8.file_spec  # noqa: B018 - checks the file
        except LeafError as e:
            config.notify(str(e))
            return [own]
        return [own, int8]
    if spec.precision != "fp32" or config.precision not in backend.precisions:
        raise BackendError(f"does not run this {spec.precision} model in {config.precision}")
    other = replace(own, precision=config.precision)
    other.file_spec  # noqa: B018 - checks the file
    return [other]


def _fastest(cpu: list[Variant], config: BackendConfig, folder: Path, no_gpu: str) -> Backend:
    """Open the fastest variant: the stored choice for this machine and model, or the winner of a measurement now."""
    key = hashed_name({
        "models": [(variant.name, variant.file_spec.sha256) for variant in cpu],
        "threads": config.threads or default_threads(),
        "machine": platform.node(), "processor": cpu_name(),
        "versions": [variant.backend.version() for variant in cpu],
    })  # fmt: skip
    stored = _read_choices(folder, config.notify).get(key)
    if isinstance(stored, dict) and (winner := next((v for v in cpu if v.name == stored.get("winner")), None)):
        try:
            return winner.open(replace(config, reason=_reason(winner, cpu, str(stored.get("why")), no_gpu)))
        except LeafError as e:
            config.notify(f"{winner.name} was the fastest here but fails now: {e}")
    opened: dict[str, Backend] = {}
    failures: dict[str, LeafError] = {}
    for variant in cpu:
        try:
            opened[variant.name] = variant.open(config)
        except LeafError as e:
            failures[variant.name] = e
    if not opened:
        raise failures[cpu[-1].name]
    for name, failure in failures.items():
        config.notify(f"{name} is not used: {failure}")
    try:
        times = _race(opened, _reference(opened, cpu[0], config.threads), config.notify)
    except LeafError:
        for backend in opened.values():
            backend.close()
        raise
    winner = next(v for v in cpu if v.name == min(times, key=lambda name: times[name]))
    why = ", ".join(f"{name} {times[name] * 1e3:.1f} ms" for name in sorted(times, key=lambda n: times[n])) + " a face"
    for name, backend in opened.items():
        if name != winner.name:
            backend.close()
    _save_choice(folder, key, {"winner": winner.name, "why": why}, config.notify)
    chosen = opened[winner.name]
    chosen.reason += _reason(winner, cpu, f"{why}, measured now", no_gpu)
    return chosen


def _reason(winner: Variant, cpu: list[Variant], why: str, no_gpu: str) -> str:
    """Why this variant runs, and how to get the fp32 file if an int8 file won without being requested."""
    unrequested = winner.quantized and not all(variant.quantized for variant in cpu)
    hint = "; use --precision fp32 for the unquantized model" if unrequested else ""
    return f"the fastest here ({why}); {no_gpu}{hint}"


def _reference(opened: dict[str, Backend], variant: Variant, threads: int) -> Prediction | None:
    """What ONNX Runtime answers with the unquantized model on the stored crops; None if it cannot run it.

    Args:
        opened: The open variants by name.
        variant: Any variant of the model.
        threads: As for ``open_backend``.
    """
    own = Variant(find_backend("onnxruntime"), variant.model, variant.spec, variant.spec.precision)
    known = opened.get(own.name)
    if known is None and (own.path.suffix not in own.backend.formats or own.backend.problem() is not None):
        return None
    backend = known or own.open(BackendConfig(threads))
    try:
        return backend.infer(golden_faces(variant.spec.side)[:PROOF])
    except LeafError:
        return None
    finally:
        if known is None:
            backend.close()


def _race(
    opened: dict[str, Backend],
    reference: Prediction | None,
    notify: ProgressCallback,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Time all variants whose answers are correct.

    They run in turns, so that other load on the machine affects all of them equally.

    Args:
        opened: The variants by name.
        reference: Correct answers for the first ``PROOF`` stored crops; None skips this check.
        notify: Called for each variant that is excluded.
        clock: s.

    Returns:
        Median seconds per face by name.

    Raises:
        BackendError: No variant is correct, or one fails while it is timed.
    """
    faces = golden_faces(next(iter(opened.values())).spec.side)
    correct = dict(opened)
    for name, backend in opened.items():
        try:
            answer = backend.infer(faces[:PROOF])
        except LeafError as e:
            notify(f"{name} is not used: {e}")
            del correct[name]
            continue
        parity = compare(reference, answer) if reference is not None else None
        # An int8 file differs by more than rounding, and its accuracy was checked at export. This only detects a
        # processor that computes it wrongly.
        if parity is not None and not (parity.agreement >= INT8_AGREEMENT if name.endswith("int8") else parity.ok):
            notify(f"{name} is not used: its answers differ from those of ONNX Runtime ({parity})")
            del correct[name]
    if not correct:
        raise BackendError(f"{' and '.join(opened)}: the answers differ from those of ONNX Runtime, or there are none")
    times: dict[str, list[float]] = {name: [] for name in correct}
    for backend in correct.values():
        backend.infer(faces[:BATCH])
    end = clock() + BUDGET
    while clock() < end or min(len(t) for t in times.values()) < 3:
        for name, backend in correct.items():
            start = clock()
            backend.infer(faces[:BATCH])
            times[name].append((clock() - start) / BATCH)
    return {name: median(seconds) for name, seconds in times.items()}


def _read_choices(folder: Path, notify: ProgressCallback) -> dict[str, object]:
    """The stored choices. A damaged file is set aside, and the variants are timed again."""
    try:
        choices = read_json(folder / CHOICES, _MAX_CHOICES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        notify(set_aside(folder / CHOICES, e.strerror or str(e) if isinstance(e, OSError) else str(e)))
        return {}
    if not isinstance(choices, dict):
        notify(set_aside(folder / CHOICES, "it is not a JSON object"))
        return {}
    return choices


def _save_choice(folder: Path, key: str, choice: dict[str, str], notify: ProgressCallback) -> None:
    problem = folder_problem(folder)
    if problem is None:
        try:
            write_whole(folder / CHOICES, json.dumps({**_read_choices(folder, notify), key: choice}, indent=2).encode())
        except LeafError as e:
            problem = str(e)
    if problem is not None:
        notify(f"the back ends are timed at every start: {problem}; set LEAF_RT_CACHE to a folder that you own")
