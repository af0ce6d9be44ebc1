"""Latency and throughput of ways to run a model, measured in turns so that a busy moment hits all alike.

Knows clocks and callables; must not know back ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from leaf_rt.types import U8


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
