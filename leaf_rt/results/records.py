"""The record: one face in one frame, as docs/records.md and ``leaf_rt/record.schema.json`` describe it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from leaf_rt.labels import UNCERTAIN
from leaf_rt.sources.base import SourceInfo
from leaf_rt.types import F32, Estimates, Frame

SCHEMA_VERSION = 1


def _shares(values: F32, labels: Sequence[str]) -> dict[str, float]:
    return {label: round(value, 5) for label, value in zip(labels, values.tolist(), strict=True)}


def utc(seconds: float | None) -> str | None:
    """A moment (s since 1970) as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(
    source: SourceInfo, frame: Frame, estimates: Estimates, row: int, labels: Sequence[str], latency: float
) -> dict[str, Any]:
    """One face in one frame, ready for JSON.

    Args:
        source: Where the frame came from.
        frame: The frame.
        estimates: Who shows what in it.
        row: Which face.
        labels: Class names in the model's order.
        latency: s.
    """
    emotion = int(estimates.emotion[row])
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "frame_index": frame.index,
        "pts_s": round(frame.timestamp, 6),
        "captured_at": utc(frame.captured_at),
        "generation": frame.generation,
        "track_id": int(estimates.track_id[row]),
        "box": [round(v, 2) for v in estimates.xyxy[row].tolist()],
        "confidence": round(float(estimates.confidence[row]), 4),
        "emotion": labels[emotion] if emotion >= 0 else UNCERTAIN,
        "probs": _shares(estimates.probs[row], labels),
        "smoothed": _shares(estimates.smoothed[row], labels),
        "classified": bool(estimates.classified[row]),
        "poor": bool(estimates.low_quality[row]),
        "latency_ms": round(latency * 1000.0, 3),
    }
