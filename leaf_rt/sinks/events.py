"""Events as JSON lines: one line when a person begins to show an expression, and one when it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from leaf_rt.results.events import EventTracker
from leaf_rt.sinks.textfile import LineFile, LineTarget
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo


class EventSink(Closing):
    """Writes events; see ``Sink`` and docs/records.md.

    Args:
        target: A path, "-" for standard output, or a result; see ``LineFile``.
        tracker: Finds the events.
    """

    wants_image = False

    def __init__(self, target: LineTarget, tracker: EventTracker) -> None:
        self._file = LineFile(target)
        self._tracker = tracker
        self.name = self._file.name

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Process one frame, and write what began and what ended."""
        self._write(self._tracker.update(source.name, frame, estimates))

    def source_gone(self, source: SourceInfo) -> None:
        """Write the ends of what the source showed."""
        self._write(self._tracker.end(source.name))

    def close(self) -> None:
        """End the expressions that are still shown, and close the file."""
        try:
            self._write(self._tracker.close())
        finally:
            self._file.close()

    def _write(self, events: Sequence[dict[str, Any]]) -> None:
        if events:
            self._file.write("".join(json.dumps(e, ensure_ascii=False, separators=(",", ":")) + "\n" for e in events))
