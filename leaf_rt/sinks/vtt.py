"""The shown expressions of one source as WebVTT subtitles: one cue per person and expression."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from leaf_rt.results.events import EventTracker
from leaf_rt.sinks.textfile import LineFile, LineTarget
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo

_SHORTEST = 0.04  # s; a cue must end after its start


class VttSink(Closing):
    """Writes a cue when it has ended and no earlier one is still open, because players want cues in order of start.

    The times are media times of the source, so the subtitles fit the clip itself. A cue names the person once a second
    person has appeared.

    Args:
        target: A path or an open result file.
        labels: Class names in the order of the model.
    """

    wants_image = False

    def __init__(self, target: LineTarget, labels: Sequence[str]) -> None:
        self._file = LineFile(target)
        self._tracker = EventTracker(labels)
        self._open: dict[str, float] = {}  # event id: start of a cue that has not ended, s
        self._waiting: list[tuple[float, int, float, str]] = []  # start, person, end, label; a heap
        self._people: dict[int, int] = {}  # track: person
        self.name = self._file.name
        self._file.write("WEBVTT\n\n", head=True)

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Process one frame, and write the cues that are complete."""
        self._people |= dict(zip(estimates.track_id.tolist(), estimates.person_id.tolist(), strict=True))
        self._process(self._tracker.update(source.name, frame, estimates))

    def close(self) -> None:
        """Write the cues that have not ended yet, and close the file. May be called twice."""
        try:
            self._process(self._tracker.close())
        finally:
            self._file.close()

    def _process(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            if event["phase"] == "start":
                self._open[event["event_id"]] = event["start_s"]
                continue
            self._open.pop(event["event_id"], None)
            end = max(event["end_s"], event["start_s"] + _SHORTEST)
            heapq.heappush(self._waiting, (event["start_s"], self._people[event["track_id"]], end, event["emotion"]))
        first_open = min(self._open.values(), default=float("inf"))
        several = len(set(self._people.values())) > 1
        while self._waiting and self._waiting[0][0] <= first_open:
            start, person_id, end, label = heapq.heappop(self._waiting)
            person = f"Person {person_id}: " if several else ""
            self._file.write(f"{clock(start)} --> {clock(end)}\n{person}{_escaped(label)}\n\n")


def clock(seconds: float) -> str:
    """A time as WebVTT writes it, such as 00:01:02.500; negative times become 0."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
