"""Records as JSON lines: one line per face and frame, written before the next frame is taken."""

from __future__ import annotations

import json
from collections.abc import Sequence

from leaf_rt.results.records import frame_records
from leaf_rt.sinks.textfile import LineFile, LineTarget
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo


class JsonlSink(Closing):
    """Writes records as JSON lines; see ``Sink`` and docs/records.md.

    Args:
        target: A path, "-" for standard output, or a result; see ``LineFile``.
        labels: Class names in the order of the model.
    """

    wants_image = False

    def __init__(self, target: LineTarget, labels: Sequence[str]) -> None:
        self._file = LineFile(target)
        self._labels = tuple(labels)
        self.name = self._file.name

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Append the lines of a frame in a single write."""
        if len(estimates):
            records = frame_records(source, frame, estimates, self._labels, latency)
            self._file.write("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in records))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
