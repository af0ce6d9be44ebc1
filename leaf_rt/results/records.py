"""Records: one face in one frame, as docs/records.md and ``leaf_rt/record.schema.json`` describe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from leaf_rt.labels import BLENDSHAPES, UNCERTAIN
from leaf_rt.text import table_cell
from leaf_rt.types import F32, Estimates, Frame, SourceInfo

SCHEMA_VERSION = 2
TIME_DECIMALS, SHARE_DECIMALS = 6, 5  # of media times and of shares

# The columns of a table of records. ``box``, ``probs`` and ``smoothed`` are spread over several columns.
_FIRST_COLUMNS = (
    "schema_version", "source", "frame_index", "pts_s", "captured_at", "generation", "shot", "track_id", "person_id",
)  # fmt: skip
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
POSE = ("yaw", "pitch", "roll")
BLENDSHAPE = "blendshape_"  # before the name, in a table
_LAST_COLUMNS = ("classified", "poor", "quality", "latency_ms")


def record(
    source: SourceInfo, frame: Frame, estimates: Estimates, row: int, labels: Sequence[str], latency: float
) -> dict[str, Any]:
    """Build the record of one face, ready for JSON.

    Args:
        source: The source of the frame.
        frame: The frame.
        estimates: All faces of the frame.
        row: The row of the face in ``estimates``.
        labels: Class names in the order of the model.
        latency: Seconds from capture to result.
    """
    emotion = int(estimates.emotion[row])
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "frame_index": frame.index,
        "pts_s": round(frame.timestamp, TIME_DECIMALS),
        "captured_at": utc(frame.captured_at),
        "generation": frame.generation,
        "shot": estimates.shot,
        "track_id": int(estimates.track_id[row]),
        "person_id": int(estimates.person_id[row]),
        "box": [round(v, 2) for v in estimates.xyxy[row].tolist()],
        "confidence": round(float(estimates.confidence[row]), 4),
        "emotion": labels[emotion] if emotion >= 0 else UNCERTAIN,
        "probs": _by_label(estimates.probs[row], labels),
        "smoothed": _by_label(estimates.smoothed[row], labels),
        "classified": bool(estimates.classified[row]),
        "poor": bool(estimates.low_quality[row]),
        "quality": _finite(float(estimates.quality[row]), 3),
        **{name: _finite(value, 1) for name, value in zip(POSE, estimates.pose[row].tolist(), strict=False)},
        "latency_ms": round(latency * 1000.0, 3),
        **({"blendshapes": _blendshapes(estimates.blendshapes[row])} if estimates.blendshapes.shape[1] else {}),
    }


def frame_records(
    source: SourceInfo, frame: Frame, estimates: Estimates, labels: Sequence[str], latency: float
) -> list[dict[str, Any]]:
    """Build the records of all faces of a frame; see ``record``."""
    return [record(source, frame, estimates, row, labels, latency) for row in range(len(estimates))]


def extra_columns(pose: bool, blendshapes: bool) -> tuple[str, ...]:
    """Return the names of the columns that a table has only if they were asked for."""
    return (*(POSE if pose else ()), *(f"{BLENDSHAPE}{name}" for name in BLENDSHAPES if blendshapes))


def column_names(labels: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the column names of a table of records, in order.

    Args:
        labels: Class names in the order of the model.
        extra: See ``extra_columns``.
    """
    probabilities = (*(f"prob_{label}" for label in labels), *(f"smoothed_{label}" for label in labels))
    return (
        *_FIRST_COLUMNS,
        *BOX_COLUMNS,
        "confidence",
        "emotion",
        *probabilities,
        *_LAST_COLUMNS,
        *extra,
    )


def flatten(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of a record in the order of ``column_names``."""
    return (
        *(record[name] for name in _FIRST_COLUMNS),
        *record["box"],
        record["confidence"],
        record["emotion"],
        *record["probs"].values(),
        *record["smoothed"].values(),
        *(record[name] for name in _LAST_COLUMNS),
        *(record[name] for name in POSE if name in record),
        *((record["blendshapes"] or dict.fromkeys(BLENDSHAPES)).values() if "blendshapes" in record else ()),
    )


def table_row(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of a record for a line of CSV: as ``flatten``, but no text can be a formula."""
    return tuple(table_cell(value) if isinstance(value, str) else value for value in flatten(record))


def _finite(value: float, decimals: int) -> float | None:
    return round(value, decimals) if math.isfinite(value) else None


def _blendshapes(values: F32) -> dict[str, float] | None:
    if not np.isfinite(values).all():
        return None
    return {name: round(value, 4) for name, value in zip(BLENDSHAPES, values.tolist(), strict=True)}


def _by_label(values: F32, labels: Sequence[str]) -> dict[str, float]:
    return {label: round(value, SHARE_DECIMALS) for label, value in zip(labels, values.tolist(), strict=True)}


def utc(seconds: float | None) -> str | None:
    """Format a time, s since 1970, as ISO 8601 in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
