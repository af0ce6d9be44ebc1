"""Latency and throughput of every way to run a model here, in turns so that a busy moment hits all alike.

Knows clocks, and which files and precisions the back ends take; must not know a back end's inside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from leaf_rt.backends.base import BACKENDS, Backend, default_threads, open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import BackendError, LeafError
from leaf_rt.models.spec import load_spec
from leaf_rt.types import U8

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
REPEATS = 50
BLOCK = 5  # calls of one way in a row
Label = tuple[str, str]  # runtime, precision


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a model.

    Attributes:
        backend: As for ``open_backend``.
        precision: What it computes in, as for ``open_backend``.
        path: The file.
    """

    backend: str
    precision: str
    path: Path

    @property
    def runtime(self) -> str:
        """The back end's name for people."""
        return TITLES[self.backend]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True, slots=True)
class Timing:
    """One way at one batch size.

    Attributes:
        runtime: What ran it.
        precision: What it computed in.
        batch: Faces per call.
        latency_ms: Median of a call.
        p95_ms: 95th percentile of a call.
        per_face_ms: Median of a call / faces.
        faces_per_s: Faces / time of all calls.
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
    """Rows, what could not run and why, and the threads that all used."""

    rows: list[Timing]
    left_out: list[str]
    threads: int


def ways(model: Path) -> list[Way]:
    """Every way to run NAME.onnx and the variants beside it, whether they are there or not; GPUs where there is one."""
    found = [
        Way("onnxruntime", "fp32", model), Way("onnxruntime", "int8", model),
        Way("openvino", "fp32", model), Way("openvino", "bf16", model), Way("openvino", "int8", model),
    ]  # fmt: skip
    for one in BACKENDS:
        if one.name.startswith("tensorrt") and one.available()[0]:
            found += [Way(one.name, "fp32", model), Way(one.name, "fp16", model)]
    return found


def measure_backends(
    model: Path,
    batches: Sequence[int],
    threads: int = 0,
    repeats: int = REPEATS,
    backend: str = "auto",
    precision: str = "",
    others: Mapping[Label, Callable[[U8], object]] | None = None,
) -> Measured:
    """Time all ways to run a model.

    Args:
        model: NAME.onnx; variants beside it are taken in.
        batches: Faces per call.
        threads: Of every way; 0 takes the default of the back ends.
        repeats: Calls per way and size.
        backend: This one alone; "auto" takes all.
        precision: This one alone; "" takes all.
        others: More to time beside them.

    Raises:
        LeafError: The model cannot be read, or nothing of what was asked for can run it.
    """
    threads = threads or default_threads()
    faces = golden_faces(load_spec(model).side)
    timed = dict(others or {})
    opened: list[Backend] = []
    left_out: list[str] = []
    try:
        for way in ways(model):
            if backend not in ("auto", way.backend) or precision not in ("", way.precision):
                continue
            try:
                opened.append(open_backend(way.path, way.backend, threads, precision=way.precision))
            except LeafError as e:
                left_out.append(f"{way.name}: {e}")
                continue
            timed[way.runtime, way.precision] = opened[-1].infer
        if not opened:
            opened.append(open_backend(model, backend, threads, precision=precision))  # says what is the matter
            timed[TITLES[opened[0].name], precision or opened[0].spec.precision] = opened[0].infer
        return Measured(measure(timed, faces, batches, repeats), left_out, threads)
    finally:
        for one in opened:
            one.close()


def parse_batches(text: str) -> list[int]:
    """Batch sizes from "1,4,8".

    Raises:
        BackendError: It is no list of whole numbers from 1.
    """
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = []
    if not batches or min(batches) < 1:
        raise BackendError(f"--batch {text}: wanted whole numbers from 1, as in 1,4,8")
    return batches


def measure(
    ways: Mapping[Label, Callable[[U8], object]],
    faces: U8,
    batches: Sequence[int],
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time every way at every batch size.

    The ways take turns, ``BLOCK`` calls each, so that a busy moment of the machine hits all alike. The first call of a
    turn is not counted: it finds the caches, and the spinning threads, of the way before it.

    Args:
        ways: Runtime and precision to a function of (N, S, S, 3) uint8 faces.
        faces: Real crops, taken round and round.
        batches: Sizes.
        repeats: Calls per way and size that are counted.
        clock: s.
    """
    rows: list[Timing] = []
    for batch in batches:
        took: dict[Label, list[float]] = {label: [] for label in ways}
        for first in range(-BLOCK, repeats, BLOCK):  # the first turn warms up
            parts = [_part(faces, batch, number) for number in range(first, min(first + BLOCK, repeats))]
            for label, run in ways.items():
                run(parts[0])
                for part in parts:
                    start = clock()
                    run(part)
                    if first >= 0:
                        took[label].append((clock() - start) * 1e3)
        for (runtime, precision), times in took.items():
            middle = median(times)
            p95 = float(np.percentile(times, 95))
            throughput = 1e3 * batch * len(times) / sum(times)
            rows.append(Timing(runtime, precision, batch, middle, p95, middle / batch, throughput))
    return rows


def _part(faces: U8, batch: int, number: int) -> U8:
    first = number * batch % len(faces)
    return np.ascontiguousarray(np.take(faces, range(first, first + batch), axis=0, mode="wrap"))


def table(rows: Sequence[Timing], against: str | None = None) -> str:
    """A Markdown table with a row per runtime and precision; with ``against``, also how many times that runtime."""
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
    """All of it on one line, for machines."""
    values = [{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
    return json.dumps({"bench": "backends", **facts, "rows": values}, ensure_ascii=False)
