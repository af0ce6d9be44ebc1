"""What a sink is, and the record that the text sinks share.

Knows the data types; must not know threads, clocks or any file format. The record is described in docs/records.md and
``leaf_rt/record.schema.json``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from leaf_rt.errors import LeafError, NoPermission, OutputError
from leaf_rt.labels import UNCERTAIN
from leaf_rt.sources.base import SourceInfo
from leaf_rt.types import F32, Estimates, Frame

SCHEMA_VERSION = 1


class Sink(Protocol):
    """Takes finished frames, in order per source, from one thread.

    Constructors create what they write to, so that a folder that is missing or protected shows before the run.

    Attributes:
        name: For messages, such as the path.
        wants_image: False lets the caller pass an empty (0, 0, 3) picture in ``frame``.
    """

    name: str
    wants_image: bool

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Take one frame.

        Args:
            source: Where it came from.
            frame: The frame.
            estimates: Who shows what in it.
            latency: s from capture (live) or from the start of its processing (files) until the estimates stood.

        Raises:
            OutputError, NoPermission: It cannot be written; what was written before stays valid.
        """
        ...

    def close(self) -> None:
        """Finish the output, so that it is complete; may be called twice.

        Raises:
            OutputError: The last of it cannot be written.
        """
        ...


def output_error(path: str | Path, error: OSError) -> LeafError:
    """What an operating system's refusal to write means to a person."""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return NoPermission(f"{path}: may not be written; choose another place with --out, or change its permissions")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"{path}: no room left to write; free some space (what was written so far is valid)")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return OutputError(f"{path}: its folder does not exist; create it first")
    if isinstance(error, IsADirectoryError):
        return OutputError(f"{path}: is a folder; give the name of a file")
    if isinstance(error, BrokenPipeError):
        return OutputError(f"{path}: the reader has closed the pipe; nothing more can be written to it")
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


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
        "poor": bool(estimates.poor[row]),
        "latency_ms": round(latency * 1000.0, 3),
    }
