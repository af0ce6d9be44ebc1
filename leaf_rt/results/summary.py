"""Summarizes a source per person: time on screen, time share of each expression, changes, and shares over time.

The terminal, the summary file, the JSON log and the report all show what this class counts. It counts only what records
hold, rounded as in records, so the records of a run give the same numbers again.

Memory use does not grow with the length of a run: the curves become coarser, the people who were on screen for the
shortest time are dropped, and so are the oldest events. Does not know sources, clocks or plots.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import UNCERTAIN
from leaf_rt.results.events import EventTracker
from leaf_rt.results.records import SHARE_DECIMALS, TIME_DECIMALS
from leaf_rt.types import Estimates, Frame

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MAX_ABSENCE = 1.0  # s; a person who is away for longer was not on screen in between. Events end after the same time.
MAX_CUTS = 5000  # that a summary keeps
_MAX_EVENTS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person over the whole run, also after absences. The curve is divided into intervals of equal length.

    Attributes:
        person_id: Number of the person.
        track_id: Id of the person's first track.
        first: Media time of the first frame that shows the person, s.
        last: Media time of the end of the last frame that shows the person, s.
        seconds: Time on screen without absences of more than ``MAX_ABSENCE``, s.
        shown: (C + 1,) time for which each label was shown, s; the last one is "uncertain". The sum is positive.
        mean_share: (C,) mean smoothed probability of each label over the time for which it was shown; NaN if never.
        transitions: (C + 1, C + 1) int64, how often the label of the row was followed at once by that of the column.
        longest: The event that lasted longest; None if none has ended.
        times: (T,) middle of each interval, s, ascending. Intervals without the person are omitted.
        curve: (T, C) mean smoothed probabilities of each interval; rows sum to 1.
        low: (T, C) their minimum in each interval.
        high: (T, C) their maximum in each interval.
        emotion: (T,) int64, the label shown longest in each interval; -1 is "uncertain".
    """

    person_id: int
    track_id: int
    first: float
    last: float
    seconds: float
    shown: F64
    mean_share: F64
    transitions: I64
    longest: dict[str, Any] | None
    times: F64
    curve: F64
    low: F64
    high: F64
    emotion: I64

    @property
    def changes(self) -> int:
        """How often the shown label changed while the person was on screen."""
        return int(self.transitions.sum())

    def shares(self, labels: tuple[str, ...]) -> dict[str, float]:
        """Return the share of the time on screen of every label that was shown, largest first."""
        pairs = zip((*labels, UNCERTAIN), (self.shown / self.shown.sum()).tolist(), strict=True)
        return dict(sorted(((name, share) for name, share in pairs if share > 0), key=lambda pair: -pair[1]))


@dataclass(slots=True, eq=False)
class _Open:
    """A person's newest frame; for how long it counts is known with the next one. ``step`` is used if there is none."""

    time: float
    frame: int
    part: tuple[int, int]  # generation and shot; absence counts as on screen only within one
    emotion: int
    shares: F64
    step: float


@dataclass(slots=True, eq=False)
class _Bin:
    """One interval. ``sums`` holds the weight, C weighted probabilities and C + 1 label times."""

    sums: F64
    low: F64
    high: F64

    def add(self, other: _Bin) -> None:
        self.sums += other.sums
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums of one person; ``newest`` is not counted yet."""

    track_id: int
    first: float
    last: float
    shown: F64
    weighted: F64  # (C + 1,) sum of the shown label's probability x s
    transitions: I64
    seconds: float = 0.0
    newest: _Open | None = None
    longest: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None  # the newest event that has ended
    bins: dict[int, _Bin] = field(default_factory=dict)

    def merge(self, later: _Sums) -> None:
        """Add the sums of a later part of the same person, but for its intervals."""
        self.last = max(self.last, later.last)
        self.seconds += later.seconds
        self.newest = later.newest
        self.ended = later.ended or self.ended
        for name in ("shown", "weighted", "transitions"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        events = [event for event in (self.longest, later.longest) if event is not None]
        self.longest = max(events, key=lambda event: float(event["dwell_s"]), default=None)

    def add(self, number: int, row: _Bin) -> int:
        """Add a row to an interval; return 1 if the interval is new, else 0."""
        total = self.bins.get(number)
        if total is None:
            self.bins[number] = row
            return 1
        total.add(row)
        return 0


class Summary:
    """Collects the estimates of one source.

    A frame of a person counts until the person's next frame. If the person was away for more than ``MAX_ABSENCE`` in
    between, or if it is the last one, it counts for as long as the frames of the source usually last.

    Attributes:
        labels: Names of the C classes.
        frames: Number of frames.
        frames_with_faces: Number of frames with at least one person.
        records: Number of faces in all frames.
        people_forgotten: Number of people who were dropped to limit memory use.
        start: Media time of the first frame, s; 0 before it.
        end: End of the newest frame that was counted, s.
        events: The events that have ended, in the order of their ends, as dicts of ``leaf_rt.results.events``.
        events_forgotten: Number of older events that were dropped to limit memory use.
        resolution: Length of the intervals of the curves, s.
        cuts: Media times of the first frames after cuts, s; at most ``MAX_CUTS``.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        max_gap: float | None = None,
        resolution: float = 0.02,
        max_intervals: int = 20_000,
        max_people: int = 200,
    ) -> None:
        """Create an empty summary.

        Args:
            labels: Names of the C classes.
            max_gap: Longest time for which a frame counts, s, because live sources may stall. None sets no limit.
            resolution: Length of an interval, s. It doubles whenever there are more than ``max_intervals``.
            max_intervals: Largest number of intervals of all people together.
            max_people: Largest number of people to keep, unless more are on screen.
        """
        self.labels = labels
        self.frames = self.frames_with_faces = self.records = 0
        self.people_forgotten = self.events_forgotten = 0
        self.start = self.end = 0.0
        self.events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self.resolution = resolution
        self.cuts: list[float] = []
        self._max_gap, self._max_intervals, self._max_people = max_gap, max_intervals, max_people
        self._tracker = EventTracker(labels, max_gap=MAX_ABSENCE)
        self._indices = {name: number for number, name in enumerate((*labels, UNCERTAIN))}
        self._tracks: dict[int, _Sums] = {}  # by person
        self._intervals = 0
        self._newest: tuple[float, int, int] | None = None  # time, generation, shot of the newest frame
        self._newest_face: tuple[float, int, int] | None = None  # time, generation, index of the newest with a face
        self._index_step = 1  # between the two frames with faces before it
        self._step = 0.0  # s, of the newest frames in a row
        self._end_step = 0.0  # s, between the two newest frames of all

    def add(self, frame: Frame, estimates: Estimates) -> None:
        """Add the next frame.

        Args:
            frame: The frame; its picture is not used. The time between two generations does not count.
            estimates: All people in the frame.

        Raises:
            ValueError: The number of classes is not that of ``labels``.
        """
        if estimates.probs.shape[1] != len(self.labels):
            raise ValueError(f"estimates: wanted {len(self.labels)} classes, got {estimates.probs.shape[1]}")
        now = round(frame.timestamp, TIME_DECIMALS)
        if self._newest is None:
            self.start = now
        elif self._newest[1] == frame.generation:
            self._end_step = self._limited(max(0.0, now - self._newest[0]))
            if self._newest[2] != estimates.shot and len(self.cuts) < MAX_CUTS:
                self.cuts.append(now)
        self._newest = (now, frame.generation, estimates.shot)
        self.end = now + self._end_step
        self.frames += 1
        events = self._tracker.update(frame.source, frame, estimates)
        if len(estimates):  # frames without faces have no records
            self._add_faces(frame, now, estimates)
        self._add_events(events)

    def finish(self) -> None:
        """Count the last frames, and end all events. May be called twice."""
        for track in self._tracks.values():
            if track.newest is not None:
                self._close(track, track.newest, track.newest.step or self._step)
                track.newest = None
        self._add_events(self._tracker.close())

    def people(self) -> list[Person]:
        """Return all people of a finished summary. Those on screen longest come first."""
        found = [self._person(person_id, track) for person_id, track in self._tracks.items()]
        return sorted(found, key=lambda p: (-p.seconds, p.person_id))

    def _limited(self, seconds: float) -> float:
        return seconds if self._max_gap is None else min(seconds, self._max_gap)

    def _add_faces(self, frame: Frame, now: float, estimates: Estimates) -> None:
        """Count the frame before of each person in this frame, and keep this one."""
        c = len(self.labels)
        in_row = False  # whether no frame without faces lies between this frame and the previous one
        if self._newest_face is not None and self._newest_face[1] == frame.generation:
            gap, index_step = max(0.0, now - self._newest_face[0]), frame.index - self._newest_face[2]
            in_row = index_step <= max(1, self._index_step)
            self._index_step = index_step
            if in_row or gap <= MAX_ABSENCE:
                self._step = self._limited(gap)
        self._newest_face = (now, frame.generation, frame.index)
        self.frames_with_faces += 1
        self.records += len(estimates)
        shares = np.round(estimates.smoothed.astype(np.float64), SHARE_DECIMALS)
        for row, (person_id, track_id) in enumerate(
            zip(estimates.person_id.tolist(), estimates.track_id.tolist(), strict=True)
        ):
            own = self._tracks.get(track_id) if person_id != track_id else None
            if own is not None and own.track_id == track_id:  # the person was not recognized in its first frames
                self._join(track_id, person_id)
            track = self._tracks.get(person_id)
            if track is None:
                sums = np.zeros(c + 1), np.zeros(c + 1), np.zeros((c + 1, c + 1), np.int64)
                track = self._tracks[person_id] = _Sums(track_id, now, now, *sums)
            newest = track.newest
            if newest is not None:
                gap = now - newest.time
                was_away = gap > MAX_ABSENCE and not (in_row and newest.frame == self.frames_with_faces - 1)
                if newest.part != (frame.generation, estimates.shot) or was_away:
                    self._close(track, newest, newest.step or self._step)
                else:
                    self._close(track, newest, self._limited(max(0.0, gap)))
            emotion = int(estimates.emotion[row])
            part = (frame.generation, estimates.shot)
            track.newest = _Open(now, self.frames_with_faces, part, emotion, shares[row], self._step)
        if self._intervals > self._max_intervals:
            self._coarsen()
        if len(self._tracks) > self._max_people:
            self._forget(now)

    def _join(self, number: int, person_id: int) -> None:
        """Count what had the number of its track for the person whose track it is."""
        part, whole = self._tracks.pop(number), self._tracks.get(person_id)
        for event in self.events:
            if event["person_id"] == number:
                event["person_id"] = person_id
        if whole is None:
            self._tracks[person_id] = part
            return
        if whole.newest is not None:
            self._close(whole, whole.newest, whole.newest.step or self._step)
        self._intervals -= len(part.bins)
        whole.merge(part)
        self._intervals += sum(whole.add(interval, row) for interval, row in part.bins.items())

    def _close(self, track: _Sums, row: _Open, seconds: float) -> None:
        """Count a frame of a person for some seconds."""
        c, label = len(self.labels), row.emotion  # -1 is the last element: "uncertain"
        track.last = row.time + seconds
        track.seconds += seconds
        weight = max(seconds, 1e-9)  # a still image has no duration, but must count
        track.shown[label] += weight
        if label >= 0:
            track.weighted[label] += weight * row.shares[label]
        sums = np.zeros(2 * c + 2)
        sums[0] = weight
        sums[1 : c + 1] = row.shares * weight
        sums[c + 1 + label % (c + 1)] = weight
        number = math.floor(row.time / self.resolution + 1e-6)  # 2.0 s is in the interval that starts there
        self._intervals += track.add(number, _Bin(sums, row.shares.copy(), row.shares.copy()))

    def _add_events(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            track = self._tracks.get(event["person_id"])
            if event["phase"] == "start":
                before = track.ended if track is not None else None
                if track is not None and before is not None and before["end_s"] == event["start_s"]:
                    track.transitions[self._indices[before["emotion"]], self._indices[event["emotion"]]] += 1
                continue
            self.events_forgotten += len(self.events) == _MAX_EVENTS
            self.events.append(event)
            if track is not None:
                track.ended = event
                if track.longest is None or event["dwell_s"] > track.longest["dwell_s"]:
                    track.longest = event

    def _coarsen(self) -> None:
        while self._intervals > self._max_intervals:
            self.resolution *= 2
            self._intervals = 0
            for track in self._tracks.values():
                old, track.bins = track.bins, {}
                self._intervals += sum(track.add(number // 2, row) for number, row in old.items())
            if all(len(track.bins) == 1 for track in self._tracks.values() if track.bins):
                return  # coarser is impossible

    def _forget(self, now: float) -> None:
        """Drop people who left, those on screen shortest first. Drop a tenth at once, so that this is rare."""
        left = sorted(
            (t.seconds, person_id) for person_id, t in self._tracks.items() if t.newest is None or t.newest.time < now
        )
        for _, person_id in left[: max(1, self._max_people // 10)]:
            self._intervals -= len(self._tracks.pop(person_id).bins)
            self.people_forgotten += 1

    def _person(self, person_id: int, track: _Sums) -> Person:
        c = len(self.labels)
        numbers = sorted(track.bins)
        bins = [track.bins[n] for n in numbers]
        rows = np.array([b.sums for b in bins])  # (T, 2C + 2)
        emotion = rows[:, c + 1 :].argmax(axis=1)
        with np.errstate(invalid="ignore"):
            mean_share = track.weighted[:c] / track.shown[:c]
        return Person(
            person_id=person_id,
            track_id=track.track_id,
            first=track.first,
            last=track.last,
            seconds=track.seconds,
            shown=track.shown,
            mean_share=mean_share,
            transitions=track.transitions,
            longest=track.longest,
            times=np.clip((np.array(numbers) + 0.5) * self.resolution, track.first, max(track.first, track.last)),
            curve=rows[:, 1 : c + 1] / rows[:, :1],
            low=np.array([b.low for b in bins]),
            high=np.array([b.high for b in bins]),
            emotion=np.where(emotion == c, -1, emotion).astype(np.int64),
        )
