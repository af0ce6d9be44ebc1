"""What a run found, per person: time on screen, share of time per expression, and the curve of its probabilities.

Knows ``Estimates``; must not know sources, clocks, plots or terminals. Memory does not grow with the length of a run:
the curves coarsen, and who was on screen shortest is forgotten first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import UNCERTAIN
from leaf_rt.types import Estimates

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One track over the whole run, its curve cut into stretches of equal length.

    Attributes:
        track_id: Its number.
        first: s, media time of the first frame it was seen on.
        last: s, when the last one made way for the next.
        seconds: s on screen; gaps do not count.
        shown: (C + 1,) s for which each label was shown, above 0 in sum; the last is "uncertain".
        times: (T,) s, the middle of each stretch, rising; stretches without the person are left out.
        curve: (T, C) mean smoothed probabilities over the stretch; rows sum to 1.
        emotion: (T,) int64, the label shown longest in the stretch; -1 is "uncertain".
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
        """Share of the time on screen per label that was shown at all, largest first; "uncertain" included."""
        pairs = zip((*labels, UNCERTAIN), (self.shown / self.shown.sum()).tolist(), strict=True)
        return dict(sorted(((name, share) for name, share in pairs if share > 0), key=lambda pair: -pair[1]))


@dataclass(slots=True, eq=False)
class _Track:
    """Sums of one person; a row of ``bins`` holds the weight, C probabilities x weight, C + 1 seconds shown."""

    first: float
    last: float
    seconds: float = 0.0
    bins: dict[int, F64] = field(default_factory=dict)

    def add(self, number: int, row: F64) -> int:
        """Sum a row into a stretch; gives how many stretches that added."""
        have = self.bins.get(number)
        if have is None:
            self.bins[number] = row
            return 1
        have += row
        return 0


class Summary:
    """Gathers the estimates of one source. Every frame counts for the media time until the next one.

    Attributes:
        labels: Names of the C classes.
        frames: Frames taken.
        frames_with_faces: Of these, with at least one person.
        people_forgotten: People who were dropped to keep memory bounded.
        start: s, media time of the first frame; 0 before it.
        end: s, end of the newest frame counted.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        max_gap: float | None = None,
        resolution: float = 0.02,
        max_stretches: int = 20_000,
        max_people: int = 200,
    ) -> None:
        """Start empty.

        Args:
            labels: Names of the C classes.
            max_gap: s; no frame counts for longer than this (live sources stall). None sets no limit.
            resolution: s, length of a stretch; doubled whenever ``max_stretches`` is passed.
            max_stretches: Stretches kept over all people.
            max_people: People kept who are no longer on screen.
        """
        self.labels = labels
        self.frames = 0
        self.frames_with_faces = 0
        self.people_forgotten = 0
        self.start = 0.0
        self.end = 0.0
        self._max_gap, self._max_stretches, self._max_people = max_gap, max_stretches, max_people
        self._resolution = resolution
        self._tracks: dict[int, _Track] = {}
        self._stretches = 0
        self._open: tuple[Estimates, int] | None = None  # the newest frame and its generation; its end is not known yet
        self._duration = 0.0  # s, of the frame before it

    def add(self, estimates: Estimates, generation: int = 0) -> None:
        """Take the next frame.

        Args:
            estimates: Everybody on it.
            generation: Of the frame; the time lost between two generations counts for nobody.

        Raises:
            ValueError: The number of classes differs from that of ``labels``.
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
                self._duration = max(0.0, estimates.timestamp - newest.timestamp)
                if self._max_gap is not None:
                    self._duration = min(self._duration, self._max_gap)
            self._close(newest)
        self._open = (estimates, generation)

    def finish(self) -> None:
        """Count the last frame for as long as the one before it. May be called twice."""
        if self._open is not None:
            self._close(self._open[0])
            self._open = None

    def people(self) -> list[Person]:
        """Everybody, who was on screen longest first."""
        found = [self._person(track_id, track) for track_id, track in self._tracks.items()]
        return sorted(found, key=lambda p: (-p.seconds, p.track_id))

    def _close(self, estimates: Estimates) -> None:
        c, now, seconds = len(self.labels), estimates.timestamp, self._duration
        self.end = now + seconds
        for row, track_id in enumerate(estimates.track_id.tolist()):
            track = self._tracks.setdefault(track_id, _Track(now, now))
            track.last = self.end
            track.seconds += seconds
            weight = max(seconds, 1e-9)  # the one frame of a picture has no length, but it shows something
            values = np.zeros(2 * c + 2)
            values[0] = weight
            values[1 : c + 1] = estimates.smoothed[row] * weight
            values[c + 1 + int(estimates.emotion[row]) % (c + 1)] = weight  # -1 becomes c: "uncertain"
            self._stretches += track.add(int(now // self._resolution), values)
        if self._stretches > self._max_stretches:
            self._coarsen()
        if len(self._tracks) > self._max_people:
            self._forget(now)

    def _coarsen(self) -> None:
        self._resolution *= 2
        self._stretches = 0
        for track in self._tracks.values():
            old, track.bins = track.bins, {}
            self._stretches += sum(track.add(number // 2, row) for number, row in old.items())

    def _forget(self, now: float) -> None:
        """Drop the shortest of those who are gone; a tenth at once, so that this is rare."""
        gone = sorted((t.seconds, track_id) for track_id, t in self._tracks.items() if t.last < now)
        for _, track_id in gone[: max(1, self._max_people // 10)]:
            self._stretches -= len(self._tracks.pop(track_id).bins)
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
