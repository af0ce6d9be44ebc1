"""Records as CSV: one line per face and frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from leaf_rt.results.records import column_names, frame_records, table_row
from leaf_rt.sinks.textfile import LineFile, LineTarget
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo


class CsvSink(Closing):
    """Writes a header, then a line per face and frame; see ``Sink``. Without any face, only the header is written.

    Args:
        target: A path, "-" for standard output, or a result; see ``LineFile``.
        labels: Class names in the order of the model.
        extra: See ``leaf_rt.results.records.extra_columns``.
    """

    wants_image = False

    def __init__(self, target: LineTarget, labels: Sequence[str], extra: Sequence[str] = ()) -> None:
        self._file = LineFile(target)
        self._labels = tuple(labels)
        self.name = self._file.name
        self._write([column_names(labels, extra)], head=True)

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Append the lines of a frame in a single write."""
        if len(estimates):
            self._write([table_row(r) for r in frame_records(source, frame, estimates, self._labels, latency)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, rows: Sequence[Sequence[Any]], *, head: bool = False) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue(), head=head)
