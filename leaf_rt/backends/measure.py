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

from leaf_rt.artifact import load_spec, variant_path
from leaf_rt.backends.base import CANDIDATES, Backend, default_threads, open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import BackendError, LeafError
from leaf_rt.types import U8

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a model.

    Attributes:
        name: For people.
        path: The file.
        backend: As for ``open_backend``.
        precision: As for ``open_backend``; "" for the file's own.
    """

    name: str
    path: Path
    backend: str
    precision: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """One way at one batch size.

    Attributes:
        name: Of the way.
        batch: Faces per call.
        latency_ms: Median of a call.
        p95_ms: 95th percentile of a call.
        per_face_ms: Median of a call / faces.
        faces_per_s: Faces / time of all calls.
    """

    name: str
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
    """Every way to run NAME.onnx and the variants beside it with what is installed here; GPUs where there is one."""
    found = [Way("ONNX Runtime fp32", model, "onnxruntime")]
    int8, by_nncf = variant_path(model, "int8"), variant_path(model, "int8", ".xml")
    if int8.is_file():
        found.append(Way("ONNX Runtime int8", int8, "onnxruntime"))
    found += [Way("OpenVINO fp32", model, "openvino"), Way("OpenVINO bf16", model, "openvino", "bf16")]
    if by_nncf.is_file():
        found.append(Way("OpenVINO int8", by_nncf, "openvino"))
    for one in CANDIDATES:
        if one.name.startswith("tensorrt") and one.available()[0]:
            found.append(Way(f"{TITLES[one.name]} fp32", model, one.name, "fp32"))
            if variant_path(model, "fp16").is_file():
                found.append(Way(f"{TITLES[one.name]} fp16", model, one.name, "fp16"))
    return found


def measure_backends(
    model: Path,
    batches: Sequence[int],
    threads: int = 0,
    repeats: int = 50,
    backend: str = "auto",
    others: Mapping[str, Callable[[U8], object]] | None = None,
) -> Measured:
    """Time all ways to run a model.

    Args:
        model: NAME.onnx; variants beside it are taken in.
        batches: Faces per call.
        threads: Of every way; 0 takes the default of the back ends.
        repeats: Calls per way and size.
        backend: This one alone; "auto" takes all.
        others: More to time beside them, by name.

    Raises:
        LeafError: The model cannot be read, or the one back end asked for cannot run it.
    """
    threads = threads or default_threads()
    faces = golden_faces(load_spec(model).side)
    timed = dict(others or {})
    opened: list[Backend] = []
    left_out: list[str] = []
    try:
        for way in ways(model):
            if backend not in ("auto", way.backend):
                continue
            try:
                opened.append(open_backend(way.path, way.backend, threads, precision=way.precision))
            except LeafError as e:
                left_out.append(f"{way.name}: {e}")
                continue
            timed[way.name] = opened[-1].infer
        if not opened and backend != "auto":
            open_backend(model, backend, threads)  # says what is the matter
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
    ways: Mapping[str, Callable[[U8], object]],
    faces: U8,
    batches: Sequence[int],
    repeats: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time every way at every batch size.

    Args:
        ways: Name to a function of (N, S, S, 3) uint8 faces.
        faces: Real crops, taken round and round.
        batches: Sizes.
        repeats: Calls per way and size, after two that are not counted.
        clock: s.
    """
    rows: list[Timing] = []
    for batch in batches:
        took: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(repeats + 2):
            first = round_number * batch % len(faces)
            part = np.ascontiguousarray(np.take(faces, range(first, first + batch), axis=0, mode="wrap"))
            for name, run in ways.items():
                start = clock()
                run(part)
                if round_number >= 2:
                    took[name].append((clock() - start) * 1e3)
        for name, times in took.items():
            middle = median(times)
            p95 = float(np.percentile(times, 95))
            rows.append(Timing(name, batch, middle, p95, middle / batch, 1e3 * batch * len(times) / sum(times)))
    return rows


def table(rows: Sequence[Timing], against: str | None = None) -> str:
    """A Markdown table of ms per face; with ``against``, also how many times faster than that way."""
    batches = sorted({row.batch for row in rows})
    base = {row.batch: row.per_face_ms for row in rows if row.name == against}
    head = ["", *(f"batch {b}: ms per face (p95 of a call), faces/s" for b in batches)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name in dict.fromkeys(row.name for row in rows):
        cells = [name]
        for row in (r for b in batches for r in rows if r.name == name and r.batch == b):
            times = f", {base[row.batch] / row.per_face_ms:.1f}x" if base and name != against else ""
            cells.append(f"{row.per_face_ms:.2f} ({row.p95_ms:.1f}), {row.faces_per_s:.0f}{times}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def json_line(rows: Sequence[Timing], **facts: object) -> str:
    """All of it on one line, for machines."""
    values = [{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
    return json.dumps({"bench": "backends", **facts, "rows": values}, ensure_ascii=False)
