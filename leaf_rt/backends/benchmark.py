"""Measures latency and throughput of every variant of a model on this machine.

Knows clocks, variants and the stored crops; must not know how a back end works.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from leaf_rt.backends.base import Backend, BackendConfig, default_threads
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.variants import variants
from leaf_rt.errors import BackendError, LeafError
from leaf_rt.types import U8

REPEATS = 50
MAX_BATCH = 1024  # faces per call; each takes about a megabyte inside a network
BLOCK = 5  # consecutive calls of one variant
Label = tuple[str, str]  # runtime, precision


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one variant at one batch size.

    Attributes:
        runtime: Name of the runtime for users.
        precision: Precision that it computes in.
        batch: Faces per call.
        latency_ms: Median time of a call.
        p95_ms: 95th percentile of the time of a call.
        per_face_ms: Median time of a call, divided by ``batch``.
        faces_per_s: All faces, divided by the time of all calls.
    """

    runtime: str
    precision: str
    batch: int
    latency_ms: float
    p95_ms: float
    per_face_ms: float
    faces_per_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a benchmark.

    Attributes:
        rows: Times per variant and batch size.
        left_out: One sentence for each variant that could not run.
        threads: CPU threads that every variant used.
    """

    rows: list[Timing]
    left_out: list[str]
    threads: int


def measure_backends(
    model: Path,
    batches: Sequence[int],
    threads: int = 0,
    repeats: int = REPEATS,
    backend: str = "auto",
    precision: str = "",
    others: Mapping[Label, Callable[[U8], object]] | None = None,
) -> Measured:
    """Time every variant of a model.

    Args:
        model: NAME.onnx; the int8 and fp16 files beside it are included.
        batches: Faces per call.
        threads: CPU threads of every variant; 0 means ``default_threads()``.
        repeats: Calls per variant and batch size.
        backend: The only back end to time; "auto" means all.
        precision: The only precision to time; "" means all.
        others: Other functions to time, by runtime and precision.

    Raises:
        LeafError: The model cannot be read, or no requested variant can run.
    """
    threads = threads or default_threads()
    config = BackendConfig(threads)
    candidates = variants(model)
    faces = golden_faces(candidates[0].spec.side)
    timed = dict(others or {})
    opened: list[Backend] = []
    left_out: list[str] = []
    try:
        for variant in candidates:
            if backend not in ("auto", variant.backend.name) or precision not in ("", variant.precision):
                continue
            try:
                opened.append(variant.open(config))
            except LeafError as e:
                left_out.append(f"{variant.title}: {e}")
                continue
            timed[variant.backend.title, variant.precision] = opened[-1].infer
        if not opened:
            opened.append(open_backend(model, backend, threads, precision=precision))  # or raises the error to report
            timed[find_backend(opened[0].name).title, precision or opened[0].spec.precision] = opened[0].infer
        return Measured(measure(timed, faces, batches, repeats), left_out, threads)
    finally:
        for each in opened:
            each.close()


def parse_batches(text: str) -> list[int]:
    """Parse batch sizes, as in "1,4,8".

    Raises:
        BackendError: The text is not a list of whole numbers from 1 to ``MAX_BATCH``.
    """
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = []
    if not batches or min(batches) < 1 or max(batches) > MAX_BATCH:
        raise BackendError(f"--batch {text[:40]}: wanted whole numbers from 1 to {MAX_BATCH}, as in 1,4,8")
    return batches


def measure(
    functions: Mapping[Label, Callable[[U8], object]],
    faces: U8,
    batches: Sequence[int],
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time every function at every batch size.

    The functions run in turns of ``BLOCK`` calls, so that other load on the machine affects all of them equally. The
    first call of a turn is not counted, because caches and spinning threads of the previous function slow it down.

    Args:
        functions: Functions of (N, side, side, 3) uint8 faces, by runtime and precision.
        faces: (M, side, side, 3) uint8, real crops; they are reused as often as necessary.
        batches: Faces per call.
        repeats: Counted calls per function and batch size.
        clock: s.
    """
    rows: list[Timing] = []
    for batch in batches:
        times_ms: dict[Label, list[float]] = {label: [] for label in functions}
        for first in range(-BLOCK, repeats, BLOCK):  # the first turn is the warm-up
            parts = [_part(faces, batch, number) for number in range(first, min(first + BLOCK, repeats))]
            for label, run in functions.items():
                run(parts[0])
                for part in parts:
                    start = clock()
                    run(part)
                    if first >= 0:
                        times_ms[label].append((clock() - start) * 1e3)
        for (runtime, precision), times in times_ms.items():
            middle = median(times)
            p95 = float(np.percentile(times, 95))
            throughput = 1e3 * batch * len(times) / sum(times)
            rows.append(Timing(runtime, precision, batch, middle, p95, middle / batch, throughput))
    return rows


def _part(faces: U8, batch: int, number: int) -> U8:
    first = number * batch % len(faces)
    return np.ascontiguousarray(np.take(faces, range(first, first + batch), axis=0, mode="wrap"))


def table(rows: Sequence[Timing], against: str | None = None) -> str:
    """A Markdown table with one row per runtime and precision.

    Args:
        rows: Times.
        against: A runtime; the table then also says how many times faster than it the others are.
    """
    batches = sorted({row.batch for row in rows})
    base = {row.batch: row.per_face_ms for row in rows if row.runtime == against}
    head = ["back end", "precision", *(f"batch {b}: ms per face (p95 of a call), faces/s" for b in batches)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for label in dict.fromkeys((row.runtime, row.precision) for row in rows):
        cells = [*label]
        for row in (r for b in batches for r in rows if (r.runtime, r.precision) == label and r.batch == b):
            times = f", {base[row.batch] / row.per_face_ms:.1f}x" if base and row.runtime != against else ""
            cells.append(f"{row.per_face_ms:.2f} ({row.p95_ms:.1f}), {row.faces_per_s:.0f}{times}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def json_line(rows: Sequence[Timing], **facts: object) -> str:
    """The times and other facts as one line of JSON."""
    values = [{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
    return json.dumps({"bench": "backends", **facts, "rows": values}, ensure_ascii=False)
