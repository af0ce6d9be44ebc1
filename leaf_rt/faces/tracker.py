"""Assigns ids to faces over time.

All durations are in seconds and timestamps may be irregular, so a clip gives the same ids at 10, 30 and 60 frames/s.
Knows boxes, appearances and times. Does not know images, detectors or clocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import lap
import numpy as np
from numpy.typing import NDArray

from leaf_rt.faces.appearance import change, likeness
from leaf_rt.geometry import iou
from leaf_rt.types import F32, I64, Detections, Tracks

F64 = NDArray[np.float64]

POSITION_NOISE = 0.04  # standard deviation of the center of a detected box, in face widths; the size has half of it
ACCELERATION = 3.0  # face widths/s^2, standard deviation
DAMPING = 0.4  # s in which the speed of a face that is not detected drops by 63 %
OUTLIER = 3.0  # standard deviations; larger innovations are clipped, so that one bad box does not throw a track off
MEMORY = 0.3  # weight of a new appearance in the mean appearance of its track
RECENT = 0.3  # s; tracks seen within this time are matched first
NOTICEABLE = 8.0  # change of the appearance from which ``MIN_LIKENESS`` is looked at
MIN_LIKENESS = 0.2  # of a head in two detections; less is another person. The least in a street was 0.42
LIKENESS_GROWTH = 0.7  # of ``MIN_LIKENESS``, per s of a loss beyond ``RECENT``: somebody else may have come
SAME_PLACE = 0.5  # intersection over union of two boxes that cannot both be shown
_TWICE = math.log(2.0)  # a box that is larger or smaller by more is another face
FLASH = 0.09  # s; whoever appears in the place of a face that was seen this recently must be detected twice


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """When a face becomes a track, and for how long.

    Attributes:
        max_lost: Seconds without a detection after which a track ends for good.
        confirm_confidence: A face detected with at least this confidence gets an id at once. Other faces get one when
            they are detected a second time.
        confirm_within: Seconds within which the second detection must follow.
        reach: Largest distance between the predicted and the detected position, in face widths. It grows while the face
            is not detected.
        reach_growth: Growth of ``reach``, face widths/s.
        max_reach: Limit of ``reach``.
        max_change: How much the appearance may change between two detections, see ``appearance.change``. A face that
            differs more is another person, wherever it is. After a loss, the less it may differ the farther away it is.
    """

    max_lost: float = 1.0
    confirm_confidence: float = 0.8
    confirm_within: float = 0.5
    reach: float = 0.8
    reach_growth: float = 1.5
    max_reach: float = 1.6
    max_change: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"TrackOptions.{name}: wanted a finite number >= 0, got {value!r}")


class FaceTracker:
    """Assigns ids to the faces of one source.

    Each track is a constant-velocity Kalman filter over the center and the logarithm of width and height. Its noise is
    in units of the face width. Detections are assigned to tracks at the least total cost: first to tracks that were
    seen recently, then to the others, so that a person who left does not take over another face.
    """

    def __init__(self, options: TrackOptions | None = None) -> None:
        self.options = options or TrackOptions()
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._time = -math.inf  # s, of the newest frame

    def reset(self) -> None:
        """Drop all tracks, after a reconnect. Ids continue to count up."""
        self._tracks.clear()
        self._time = -math.inf

    def update(self, detections: Detections, timestamp: float) -> Tracks:
        """Update all tracks with the detections of a frame.

        Args:
            detections: Faces of this frame. A missing face was not found, or not looked for.
            timestamp: Media time, s. A time before the last one counts as equal to it.

        Returns:
            All living, confirmed tracks, including those that were not detected (``detection_index`` -1). A missing
            id is gone for good.
        """
        now = max(timestamp, self._time)
        self._time = now
        self._tracks = [t for t in self._tracks if now - t.seen <= self._max_age(t)]
        for track in self._tracks:
            track.predict(now)
        places = [_Place.of(*box) for box in detections.xyxy.tolist()]
        free = list(range(len(detections)))
        recent = [t for t in self._tracks if t.track_id > 0 and now - t.seen <= RECENT]
        lost = [t for t in self._tracks if t.track_id > 0 and now - t.seen > RECENT]
        unconfirmed = [t for t in self._tracks if t.track_id == 0]
        for group in (recent, lost, unconfirmed):
            for track, row in self._assign(group, places, detections.appearance, free, now):
                track.correct(row, places[row], detections.appearance[row], now)
                free.remove(row)
        doubtful = self._in_place_of_others(detections, free, now) if free else set[int]()
        self._tracks += [_Track(row, places[row], detections.appearance[row], now) for row in free]
        for track in self._tracks:
            if track.track_id == 0 and track.row >= 0:
                confident = float(detections.confidence[track.row]) >= self.options.confirm_confidence
                if track.hits > 1 or (confident and track.row not in doubtful):
                    track.track_id = self._next_id
                    self._next_id += 1
        return self._rows(detections, now)

    def _in_place_of_others(self, detections: Detections, free: list[int], now: float) -> set[int]:
        """Return the free rows that lie over a track that was seen just before: a flash looks like somebody else."""
        lost = [t for t in self._tracks if t.track_id > 0 and t.row < 0 and now - t.seen <= FLASH]
        if not lost:
            return set()
        overlap = iou(detections.xyxy[free], np.array([t.xyxy() for t in lost], np.float32)).max(axis=1)
        return {row for row, most in zip(free, overlap, strict=True) if most >= SAME_PLACE}

    def _max_age(self, track: _Track) -> float:
        """Return the seconds without a detection after which a track ends."""
        return self.options.max_lost if track.track_id > 0 else self.options.confirm_within

    def _assign(
        self, group: list[_Track], places: list[_Place], appearance: F32, free: list[int], now: float
    ) -> list[tuple[_Track, int]]:
        """Match a group of tracks with the free rows at the least total cost."""
        costs = [self._costs(track, places, appearance, free, now) for track in group]
        wanted = [row for allowed in costs for row in allowed]
        if len(wanted) == len(set(wanted)) and all(len(allowed) <= 1 for allowed in costs):  # nobody to choose between
            return [(track, row) for track, allowed in zip(group, costs, strict=True) for row in allowed]
        # A forbidden pair costs more than all allowed pairs together, so that it never replaces one of them.
        penalty = 1e3
        table = np.array([[allowed.get(row, penalty) for row in free] for allowed in costs])
        columns = cheapest_pairs(table).tolist()
        pairs = [(k, free[column]) for k, column in enumerate(columns) if column >= 0]
        return [(group[k], row) for k, row in pairs if row in costs[k]]

    def _costs(
        self, track: _Track, places: list[_Place], appearance: F32, free: list[int], now: float
    ) -> dict[int, float]:
        """Return the free rows that may show the face of a track, and the cost of each."""
        options = self.options
        lost_for = now - track.seen
        reach = min(options.reach + options.reach_growth * lost_for, options.max_reach)
        x, y, log_width = (axis.value for axis in track.axes[:3])
        near = []  # rows, their distances in face widths, and how much larger or smaller they are
        for row in free:
            place = places[row]
            growth = abs(log_width - place.log_width)
            distance = math.hypot(x - place.x, y - place.y) / math.exp(0.5 * (log_width + place.log_width))
            if distance <= reach and growth <= _TWICE:
                near.append((row, distance, growth))
        if not near:
            return {}
        looks = appearance[[row for row, _, _ in near]]
        changes = change(track.appearances, looks).min(axis=0).tolist()
        alike = [1.0] * len(near)
        if max(changes) > NOTICEABLE:
            alike = likeness(track.appearances, looks).max(axis=0).tolist()
        min_alike = MIN_LIKENESS + LIKENESS_GROWTH * max(lost_for - RECENT, 0.0)
        costs = {}
        for (row, distance, growth), changed, like in zip(near, changes, alike, strict=True):
            difference = changed / max(options.max_change, 1e-9)
            # Whoever comes back far away and looks different is somebody else, though each alone would be allowed.
            is_doubtful = lost_for > RECENT and math.hypot(distance / max(reach, 1e-9), difference) > 1.0
            if changed <= options.max_change and like >= min_alike and not is_doubtful:
                costs[row] = distance + growth + difference
        return costs

    def _rows(self, detections: Detections, now: float) -> Tracks:
        tracks = sorted((t for t in self._tracks if t.track_id > 0), key=lambda t: t.track_id)
        xyxy = np.array([t.xyxy() for t in tracks], np.float32).reshape(-1, 4)
        rows = [t.row for t in tracks]
        seen = np.array(rows, np.int64)
        age = np.array([now - t.seen for t in tracks], np.float32)
        if -1 in rows and len(detections):  # a face has one box: that of the track that was detected
            covered = (iou(xyxy, detections.xyxy[seen[seen >= 0]]) >= SAME_PLACE).any(axis=1)
            age[(seen < 0) & covered] = np.inf
        return Tracks(np.array([t.track_id for t in tracks], np.int64), xyxy, seen, age)


def cheapest_pairs(cost: F64) -> I64:
    """Pair rows with columns so that the sum of the costs is the smallest (Jonker and Volgenant, Computing 38, 1987).

    Args:
        cost: (N, M), finite. min(N, M) pairs are made.

    Returns:
        (N,) int64, the column of each row, -1 for none.
    """
    if 0 in cost.shape:
        return np.full(len(cost), -1, np.int64)
    return np.asarray(
        lap.lapjv(np.ascontiguousarray(cost, np.float64), extend_cost=True, return_cost=False)[0], np.int64
    )


class _Place(NamedTuple):
    """Where a face is: its center, px, and the logarithms of width and height."""

    x: float
    y: float
    log_width: float
    log_height: float

    @classmethod
    def of(cls, left: float, top: float, right: float, bottom: float) -> _Place:
        """Convert a box, px."""
        width, height = max(right - left, 1.0), max(bottom - top, 1.0)
        return cls((left + right) / 2, (top + bottom) / 2, math.log(width), math.log(height))


@dataclass(slots=True, eq=False)
class _Axis:
    """A constant-velocity Kalman filter of one number; plain floats, as arrays of one value take ten times as long.

    Attributes:
        value: The number.
        variance: Of the value.
        speed: Per s.
        covariance: Of value and speed.
        speed_variance: Of the speed.
    """

    value: float
    variance: float
    speed_variance: float
    speed: float = 0.0
    covariance: float = 0.0

    def predict(self, dt: float, distance: float, decay: float, acceleration: float) -> None:
        """Go on by ``dt`` s, in which the speed drops to ``decay`` times it and moves the value ``distance`` times it.

        Args:
            dt: s.
            distance: s.
            decay: 0 to 1.
            acceleration: Standard deviation of the acceleration.
        """
        self.value += self.speed * distance
        self.speed *= decay
        p, c, v, q = self.variance, self.covariance, self.speed_variance, acceleration * acceleration
        self.variance = p + 2 * distance * c + distance**2 * v + q * dt**4 / 4
        self.covariance = decay * (c + distance * v) + q * dt**3 / 2
        self.speed_variance = decay**2 * v + q * dt**2

    def correct(self, measured: float, noise: float) -> None:
        """Update the filter with a measured value, whose noise has this standard deviation."""
        p, c = self.variance, self.covariance
        total = p + noise * noise
        limit = OUTLIER * math.sqrt(total)
        innovation = min(max(measured - self.value, -limit), limit)
        self.value += p / total * innovation
        self.speed += c / total * innovation
        self.variance -= p * p / total
        self.covariance -= p * c / total
        self.speed_variance -= c * c / total


class _Track:
    """One person: the appearance, and a Kalman filter of the position.

    Attributes:
        row: Row of the newest detections, -1 if the face was not detected in this frame.
        seen: When the face was last detected, s.
        track_id: 0 until the track is confirmed.
        hits: Number of detections.
        appearances: (2, A), the newest and the mean appearance.
        time: Time of the state, s.
        axes: Center x, center y (px), log width and log height. They are filtered independently.
    """

    __slots__ = ("appearances", "axes", "hits", "row", "seen", "time", "track_id")

    def __init__(self, row: int, place: _Place, appearance: F32, now: float) -> None:
        self.row, self.hits, self.track_id = row, 1, 0
        self.seen = self.time = now
        self.appearances = np.stack([appearance, appearance])
        # The speed is unknown at first: standard deviation of one face width per second.
        self.axes = [
            _Axis(value, (POSITION_NOISE * unit) ** 2, unit**2)
            for value, unit in zip(place, _units(place.log_width), strict=True)
        ]

    def predict(self, now: float) -> None:
        """Predict the state at a time. A face that is not detected slows down."""
        self.row = -1
        dt = now - self.time
        if dt <= 0:
            return
        self.time = now
        tau = DAMPING if now - self.seen > dt + 1e-9 else math.inf
        decay = math.exp(-dt / tau)
        distance = dt if math.isinf(tau) else tau * (1.0 - decay)
        log_width = self.axes[2].value + self.axes[2].speed * distance
        for axis, unit in zip(self.axes, _units(log_width), strict=True):
            axis.predict(dt, distance, decay, ACCELERATION * unit)

    def correct(self, row: int, place: _Place, appearance: F32, now: float) -> None:
        """Update the state with a detection and its appearance, (A,), at the predicted time."""
        for axis, measured, unit in zip(self.axes, place, _units(self.axes[2].value), strict=True):
            axis.correct(measured, POSITION_NOISE * unit)
        old = self.appearances[1]
        mean = (1 - MEMORY) * old + MEMORY * appearance
        if np.isnan(mean).any():  # parts outside the frame
            mean = np.where(np.isnan(old), appearance, np.where(np.isnan(appearance), old, mean))
        self.appearances[0], self.appearances[1] = appearance, mean
        self.row, self.seen = row, now
        self.hits += 1

    def xyxy(self) -> list[float]:
        """Return the box, px."""
        x, y, log_width, log_height = (axis.value for axis in self.axes)
        width, height = math.exp(log_width) / 2, math.exp(log_height) / 2
        return [x - width, y - height, x + width, y + height]


def _units(log_width: float) -> tuple[float, float, float, float]:
    """Return the units of the noise: the face width for the center, 0.5 for the logarithms of the size."""
    width = math.exp(log_width)
    return width, width, 0.5, 0.5
