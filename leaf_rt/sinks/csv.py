"""Records as CSV: the fields of the JSON record, with box and probabilities spread over columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.results.records import record
from leaf_rt.sinks.textfile import LineFile
from leaf_rt.sources.base import SourceInfo
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame

BOX = ("x0", "y0", "x1", "y1")
_PLAIN = ("schema_version", "source", "frame_index", "pts_s", "captured_at", "generation", "track_id")
_REST = ("classified", "poor", "latency_ms")


def columns(labels: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns, in order."""
    shares = (*(f"prob_{label}" for label in labels), *(f"smoothed_{label}" for label in labels))
    return (*_PLAIN, *BOX, "confidence", "emotion", *shares, *_REST)


def flat(rec: dict[str, Any]) -> tuple[Any, ...]:
    """The values of a record in the order of ``columns``."""
    shares = (*rec["probs"].values(), *rec["smoothed"].values())
    return (
        *(rec[k] for k in _PLAIN),
        *rec["box"],
        rec["confidence"],
        rec["emotion"],
        *shares,
        *(rec[k] for k in _REST),
    )


class CsvSink(Closing):
    """Writes a header and a line per face and frame; see ``Sink``. A run without faces leaves the header alone."""

    wants_image = False

    def __init__(self, target: Path | str, labels: Sequence[str]) -> None:
        self._file = LineFile(target)
        self._labels = tuple(labels)
        self.name = self._file.name
        self._write([columns(labels)])

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Append a line per face, all of them in one write."""
        if len(estimates):
            labels = self._labels
            self._write([flat(record(source, frame, estimates, r, labels, latency)) for r in range(len(estimates))])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue())
