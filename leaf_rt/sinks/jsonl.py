"""Records as JSON lines: one face in one frame per line, each on the disk before the next frame is taken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from leaf_rt.results.records import record
from leaf_rt.sinks.textfile import LineFile
from leaf_rt.sources.base import SourceInfo
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame


class JsonlSink(Closing):
    """Writes records to a file, or to standard output for "-"; see ``Sink`` and docs/records.md."""

    wants_image = False

    def __init__(self, target: Path | str, labels: Sequence[str]) -> None:
        self._file = LineFile(target)
        self._labels = tuple(labels)
        self.name = self._file.name

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Append a line per face, all of them in one write."""
        if len(estimates) == 0:
            return
        rows = [record(source, frame, estimates, row, self._labels, latency) for row in range(len(estimates))]
        self._file.write("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
