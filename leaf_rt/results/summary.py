"""Summarizes a run per person: time on screen, share of each expression, and probabilities over time.

Memory use does not grow with the length of a run: the curves become coarser, and the people who were on screen for the
shortest time are dropped. Does not know sources, clocks or plots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import UNCERTAIN
from leaf_rt.types import Estimates

F64 = NDArray[np.float64]

MAX_CUTS = 5000  # that a summary keeps


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One track over the whole run. Its curve is divided into intervals of equal length.

    Attributes:
        track_id: Id of the track.
        first: Media time of the first frame that shows the person, s.
        last: Media time of the end of the last frame that shows the person, s.
        seconds: Time on screen without gaps, s.
        shown: (C + 1,) time for which each label was shown, s; the last one is "uncertain". The sum is positive.
        times: (T,) middle of each interval, s, ascending. Intervals without the person are omitted.
        curve: (T, C) mean smoothed probabilities of each interval; rows sum to 1.
        emotion: (T,) int64, the label shown longest in each interval; -1 is "uncertain".
    """

    track_id: int
    first: float
    last: float
    seconds: float
    shown: F64
    times: F64
    curve: F64
    emotion: NDArray[np.int64]

    def shares(self, labels: tuple[str, ...]) -> dict[str, float]:
        """Return the share of the time on screen of every label that was shown, largest first."""
        pairs = zip((*labels, UNCERTAIN), (self.shown / self.shown.sum()).tolist(), strict=True)
        return dict(sorted(((name, share) for name, share in pairs if share > 0), key=lambda pair: -pair[1]))


@dataclass(slots=True, eq=False)
class _Track:
    """Sums of one person. ``bins`` maps an interval to its weight, C weighted probabilities, and C + 1 label times."""

    first: float
    last: float
    seconds: float = 0.0
    bins: dict[int, F64] = field(default_factory=dict)

    def add(self, number: int, row: F64) -> int:
        """Add a row to an interval; return 1 if the interval is new, else 0."""
        total = self.bins.get(number)
        if total is None:
            self.bins[number] = row
            return 1
        total += row
        return 0


class Summary:
    """Collects the estimates of one source. Every frame counts for the time until the next frame.

    Attributes:
        labels: Names of the C classes.
        frames: Number of frames.
        frames_with_faces: Number of frames with at least one person.
        people_forgotten: Number of people who were dropped to limit memory use.
        start: Media time of the first frame, s; 0 before it.
        end: End of the newest frame that was counted, s.
        cuts: Media times of the first frames after hard cuts, s; at most ``MAX_CUTS``.
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
        self.frames = 0
        self.frames_with_faces = 0
        self.people_forgotten = 0
        self.start = 0.0
        self.end = 0.0
        self.cuts: list[float] = []
        self._max_gap, self._max_intervals, self._max_people = max_gap, max_intervals, max_people
        self._resolution = resolution
        self._tracks: dict[int, _Track] = {}
        self._intervals = 0
        self._open: tuple[Estimates, int] | None = None  # newest frame and its generation; its end is still unknown
        self._duration = 0.0  # s, of the frame before the newest one

    def add(self, estimates: Estimates, generation: int = 0) -> None:
        """Add the next frame.

        Args:
            estimates: All people in the frame.
            generation: Generation of the frame. The time between two generations does not count.

        Raises:
            ValueError: The number of classes is not that of ``labels``.
        """
        if estimates.probs.shape[1] != len(self.labels):
            raise ValueError(f"estimates: wanted {len(self.labels)} classes, got {estimates.probs.shape[1]}")
        if self._open is None and self.frames == 0:
            self.start = self.end = estimates.timestamp
        self.frames += 1
        self.frames_with_faces += len(estimates) > 0
        if self._open is not None:
            newest, its_generation = self._open
            if its_generation == generation:
                if newest.shot != estimates.shot and len(self.cuts) < MAX_CUTS:
                    self.cuts.append(estimates.timestamp)
                self._duration = max(0.0, estimates.timestamp - newest.timestamp)
                if self._max_gap is not None:
                    self._duration = min(self._duration, self._max_gap)
            self._close(newest)
        self._open = (estimates, generation)

    def finish(self) -> None:
        """Count the last frame for as long as the one before. May be called twice."""
        if self._open is not None:
            self._close(self._open[0])
            self._open = None

    def people(self) -> list[Person]:
        """Return all people. Those on screen longest come first."""
        found = [self._person(track_id, track) for track_id, track in self._tracks.items()]
        return sorted(found, key=lambda p: (-p.seconds, p.track_id))

    def _close(self, estimates: Estimates) -> None:
        c, now, seconds = len(self.labels), estimates.timestamp, self._duration
        self.end = now + seconds
        for row, track_id in enumerate(estimates.track_id.tolist()):
            track = self._tracks.setdefault(track_id, _Track(now, now))
            track.last = self.end
            track.seconds += seconds
            weight = max(seconds, 1e-9)  # a still image has no duration, but must count
            values = np.zeros(2 * c + 2)
            values[0] = weight
            values[1 : c + 1] = estimates.smoothed[row] * weight
            values[c + 1 + int(estimates.emotion[row]) % (c + 1)] = weight  # -1 becomes c: "uncertain"
            self._intervals += track.add(int(now // self._resolution), values)
        if self._intervals > self._max_intervals:
            self._coarsen()
        if len(self._tracks) > self._max_people:
            self._forget(now)

    def _coarsen(self) -> None:
        self._resolution *= 2
        self._intervals = 0
        for track in self._tracks.values():
            old, track.bins = track.bins, {}
            self._intervals += sum(track.add(number // 2, row) for number, row in old.items())

    def _forget(self, now: float) -> None:
        """Drop people who left, those on screen shortest first. Drop a tenth at once, so that this is rare."""
        left = sorted((t.seconds, track_id) for track_id, t in self._tracks.items() if t.last < now)
        for _, track_id in left[: max(1, self._max_people // 10)]:
            self._intervals -= len(self._tracks.pop(track_id).bins)
            self.people_forgotten += 1

    def _person(self, track_id: int, track: _Track) -> Person:
        c = len(self.labels)
        numbers = sorted(track.bins)
        rows = np.array([track.bins[n] for n in numbers])  # (T, 2C + 2)
        shown = rows[:, c + 1 :]
        emotion = shown.argmax(axis=1)
        return Person(
            track_id=track_id,
            first=track.first,
            last=track.last,
            seconds=track.seconds,
            shown=shown.sum(axis=0),
            times=np.clip((np.array(numbers) + 0.5) * self._resolution, track.first, max(track.first, track.last)),
            curve=rows[:, 1 : c + 1] / rows[:, :1],
            emotion=np.where(emotion == c, -1, emotion).astype(np.int64),
        )
