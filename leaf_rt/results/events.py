"""Events: a person begins or stops to show an expression; see docs/records.md and ``leaf_rt/event.schema.json``.

Knows estimates and media time. Does not know files, clocks or networks: sinks and servers pass its events on.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from leaf_rt.errors import ModelError
from leaf_rt.labels import UNCERTAIN
from leaf_rt.results.records import utc
from leaf_rt.text import counted
from leaf_rt.types import Estimates, Frame

SCHEMA_VERSION = 2
_ROUNDING = 1e-6  # s; times of events have six decimals

_Person: TypeAlias = tuple[str, int, int]  # source, generation, track_id


@dataclass(slots=True)
class _Episode:
    """An expression that has not ended yet. ``event_id`` is empty until its start was reported."""

    emotion: int
    number: int
    start: float  # s
    start_at: float | None  # s since 1970
    last: float  # s, when it was last seen
    last_at: float | None
    person_id: int
    peak: float = 0.0  # largest smoothed probability
    event_id: str = ""


@dataclass(slots=True)
class DeliveryStats:
    """Counters of an output that sends events over the network.

    Attributes:
        delivered: Events that the receiver has taken.
        dropped: Events that were given up.
        waiting: Events that wait for the receiver now.
    """

    delivered: int = 0
    dropped: int = 0
    waiting: int = 0

    def __str__(self) -> str:
        return f"{counted(self.delivered, 'event')} delivered, {self.dropped} dropped"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are reported.

    Attributes:
        emotions: Labels, "uncertain" among them if wanted; None reports all.
        min_dwell: Report only expressions that last this long, s.
    """

    emotions: tuple[str, ...] | None = None
    min_dwell: float = 0.0

    def tracker(self, labels: Sequence[str]) -> EventTracker:
        """Make a tracker that reports these events.

        Args:
            labels: Class names in the order of the model.

        Raises:
            ModelError: The model does not have one of the emotions.
        """
        unknown = sorted(set(self.emotions or ()) - {*labels, UNCERTAIN})
        if unknown:
            names = ", ".join((*labels, UNCERTAIN))
            raise ModelError(f"--event-emotions: the model has no class {', '.join(unknown)}; choose from {names}")
        return EventTracker(labels, emotions=self.emotions, min_dwell=self.min_dwell)


class EventTracker:
    """Turns estimates into events: one dict at the start of an expression, one with the same ``event_id`` at its end.

    Args:
        labels: Class names in the order of the model.
        max_gap: Seconds after which an expression ends if the person is not visible.
        emotions: Labels to report, "uncertain" among them if wanted; None reports all.
        min_dwell: Report only expressions that last this long, s. Their start is reported late, with its true time.

    Raises:
        ValueError: ``emotions`` has a label that the model does not have.
    """

    def __init__(
        self,
        labels: Sequence[str],
        max_gap: float = 1.0,
        emotions: Collection[str] | None = None,
        min_dwell: float = 0.0,
    ) -> None:
        self._names = (*labels, UNCERTAIN)  # index -1 is "uncertain"
        unknown = sorted(set(emotions or ()) - set(self._names))
        if unknown:
            raise ValueError(f"emotions: wanted some of {', '.join(self._names)}, got {', '.join(unknown)}")
        self._wanted = frozenset(self._names if emotions is None else emotions)
        self._max_gap, self._min_dwell = max_gap, min_dwell
        self._episodes: dict[_Person, _Episode] = {}
        self._count = 0  # of all episodes
        self._shots: dict[str, int] = {}  # source -> shot of its newest frame

    def update(self, source: str, frame: Frame, estimates: Estimates) -> list[dict[str, Any]]:
        """Process the next frame of a source.

        Args:
            source: Name of the source.
            frame: The frame; its picture is not used.
            estimates: All faces of the frame.

        Returns:
            The events of this frame: what ended, then what began. Every start comes before its end.
        """
        now, ends, starts = frame.timestamp, [], []
        cut = self._shots.get(source, estimates.shot) != estimates.shot
        self._shots[source] = estimates.shot
        for person, episode in list(self._episodes.items()):
            name, generation, _ = person
            gone = not 0 <= now - episode.last <= self._max_gap  # a time before it: another run of the same name
            if name == source and (gone or cut or generation != frame.generation):
                ends += self._end(person)
        for row, track_id in enumerate(estimates.track_id.tolist()):
            person, emotion = (source, frame.generation, track_id), int(estimates.emotion[row])
            person_id = int(estimates.person_id[row])
            previous = self._episodes.get(person)
            if previous is not None and previous.emotion != emotion:
                previous.last, previous.last_at = now, frame.captured_at  # it was shown until this frame
                ends += self._start_if_due(person, previous)
                ends += self._end(person)
            if person not in self._episodes:
                self._count += 1
                at = frame.captured_at
                self._episodes[person] = _Episode(emotion, self._count, now, at, now, at, person_id)
            episode = self._episodes[person]
            episode.last, episode.last_at, episode.person_id = now, frame.captured_at, person_id
            shares = estimates.smoothed[row]
            episode.peak = max(episode.peak, float(shares[emotion] if emotion >= 0 else shares.max()))
            starts += self._start_if_due(person, episode)
        return ends + starts

    def end(self, source: str) -> list[dict[str, Any]]:
        """End all expressions of a source, because it was lost or stopped; returns their events."""
        return [event for person in list(self._episodes) if person[0] == source for event in self._end(person)]

    def close(self) -> list[dict[str, Any]]:
        """End all expressions; returns their events. May be called twice."""
        return [event for person in list(self._episodes) for event in self._end(person)]

    def _start_if_due(self, person: _Person, episode: _Episode) -> list[dict[str, Any]]:
        lasted = episode.last - episode.start >= self._min_dwell - _ROUNDING
        if episode.event_id or not lasted or self._names[episode.emotion] not in self._wanted:
            return []
        # The same frames give the same ids; the times of a live source make them differ from those of other runs.
        key = repr((*person, episode.number, episode.start, episode.start_at))
        episode.event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
        return [self._event(person, episode, "start")]

    def _end(self, person: _Person) -> list[dict[str, Any]]:
        episode = self._episodes.pop(person)
        return [self._event(person, episode, "end")] if episode.event_id else []

    def _event(self, person: _Person, episode: _Episode, phase: str) -> dict[str, Any]:
        source, generation, track_id = person
        ended = phase == "end"
        return {
            "schema_version": SCHEMA_VERSION,
            "event_id": episode.event_id,
            "phase": phase,
            "source": source,
            "generation": generation,
            "track_id": track_id,
            "person_id": episode.person_id,
            "emotion": self._names[episode.emotion],
            "start_s": round(episode.start, 6),
            "start_at": utc(episode.start_at),
            "end_s": round(episode.last, 6) if ended else None,
            "end_at": utc(episode.last_at) if ended else None,
            "dwell_s": round(episode.last - episode.start, 6) if ended else None,
            "peak": round(episode.peak, 5) if ended else None,
        }
