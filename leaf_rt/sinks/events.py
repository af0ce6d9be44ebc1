"""Expressions as events: one JSON line per expression that a person showed, with its start, end and dwell time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from leaf_rt.labels import UNCERTAIN
from leaf_rt.sinks.textfile import LineFile, LineTarget
from leaf_rt.system.closing import Closing
from leaf_rt.types import Estimates, Frame, SourceInfo

SCHEMA_VERSION = 1
_Person: TypeAlias = tuple[str, int, int]  # source, generation, track_id


@dataclass(slots=True)
class _Episode:
    """An expression that has not ended yet."""

    emotion: int
    start: float  # s
    last: float  # s, when it was last seen
    peak: float  # largest smoothed probability


class EventSink(Closing):
    """Writes an event when an expression ends; see ``Sink`` and docs/records.md.

    Args:
        target: A path, "-" for standard output, or a result; see ``LineFile``.
        labels: Class names in the order of the model.
        max_gap: Seconds after which an expression ends if the person is not visible.
    """

    wants_image = False

    def __init__(self, target: LineTarget, labels: Sequence[str], max_gap: float = 1.0) -> None:
        self._file = LineFile(target)
        self._labels = tuple(labels)
        self._max_gap = max_gap
        self._episodes: dict[_Person, _Episode] = {}
        self.name = self._file.name

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Process one frame, and write the expressions that have ended."""
        now, lines = frame.timestamp, []
        for person, episode in list(self._episodes.items()):
            source_name, generation, _ = person
            if source_name == source.name and (now - episode.last > self._max_gap or generation != frame.generation):
                lines.append(self._line(person, self._episodes.pop(person)))
        for row, track_id in enumerate(estimates.track_id.tolist()):
            person, emotion = (source.name, frame.generation, track_id), int(estimates.emotion[row])
            prob = float(estimates.smoothed[row, emotion]) if emotion >= 0 else 0.0
            episode = self._episodes.get(person) or _Episode(emotion, now, now, prob)
            if episode.emotion != emotion:
                episode.last = now
                lines.append(self._line(person, episode))
                episode = _Episode(emotion, now, now, prob)
            episode.last, episode.peak = now, max(episode.peak, prob)
            self._episodes[person] = episode
        if lines:
            self._file.write("".join(lines))

    def close(self) -> None:
        """Write the expressions that have not ended yet, and close the file."""
        episodes, self._episodes = self._episodes, {}
        try:
            if episodes:
                self._file.write("".join(self._line(person, episode) for person, episode in episodes.items()))
        finally:
            self._file.close()

    def _line(self, person: _Person, episode: _Episode) -> str:
        source, generation, track_id = person
        event = {
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "generation": generation,
            "track_id": track_id,
            "emotion": self._labels[episode.emotion] if episode.emotion >= 0 else UNCERTAIN,
            "start_s": round(episode.start, 6),
            "end_s": round(episode.last, 6),
            "dwell_s": round(episode.last - episode.start, 6),
            "peak": round(episode.peak, 5),
        }
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
