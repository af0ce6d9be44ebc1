"""Assigns ids to faces over time.

All durations are in seconds and timestamps may be irregular, so a clip gives the same ids at 10, 30 and 60 frames/s.
Knows boxes, appearances and times. Does not know images, detectors or clocks.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field

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
        indices: dict[int, int] = {}  # position in self._tracks -> row of detections
        free = list(range(len(detections)))
        recent = [k for k, t in enumerate(self._tracks) if t.track_id > 0 and now - t.seen <= RECENT]
        lost = [k for k, t in enumerate(self._tracks) if t.track_id > 0 and now - t.seen > RECENT]
        unconfirmed = [k for k, t in enumerate(self._tracks) if t.track_id == 0]
        for group in (recent, lost, unconfirmed):
            for k, row in self._assign(group, detections, free, now):
                self._tracks[k].correct(detections.xyxy[row], detections.appearance[row], now)
                indices[k] = row
                free.remove(row)
        doubtful = self._in_place_of_others(indices, detections, free, now) if free else set[int]()
        for row in free:
            indices[len(self._tracks)] = row
            self._tracks.append(_Track(detections.xyxy[row], detections.appearance[row], now))
        for k, row in indices.items():
            track = self._tracks[k]
            confident = float(detections.confidence[row]) >= self.options.confirm_confidence
            if track.track_id == 0 and (track.hits > 1 or (confident and row not in doubtful)):
                track.track_id = self._next_id
                self._next_id += 1
        return self._rows(indices, detections, now)

    def _in_place_of_others(
        self, indices: dict[int, int], detections: Detections, free: list[int], now: float
    ) -> set[int]:
        """Return the free rows that lie over a track that was seen just before: a flash looks like somebody else."""
        lost = [t for k, t in enumerate(self._tracks) if t.track_id > 0 and k not in indices and now - t.seen <= FLASH]
        if not lost:
            return set()
        overlap = iou(detections.xyxy[free], np.array([t.xyxy() for t in lost], np.float32)).max(axis=1)
        return {row for row, most in zip(free, overlap, strict=True) if most >= SAME_PLACE}

    def _max_age(self, track: _Track) -> float:
        """Return the seconds without a detection after which a track ends."""
        return self.options.max_lost if track.track_id > 0 else self.options.confirm_within

    def _assign(self, group: list[int], detections: Detections, free: list[int], now: float) -> list[tuple[int, int]]:
        """Match a group of tracks with the free rows at the least total cost; return pairs (track, row)."""
        if not group or not free:
            return []
        boxes = _to_state(detections.xyxy[free])  # (F, 4)
        tracks = np.array([self._tracks[k].state[0] for k in group])  # (G, 4)
        lost_for = np.array([now - self._tracks[k].seen for k in group])
        width = np.exp(0.5 * (tracks[:, None, 2] + boxes[None, :, 2]))  # (G, F), geometric mean
        distance = np.hypot(tracks[:, None, 0] - boxes[None, :, 0], tracks[:, None, 1] - boxes[None, :, 1]) / width
        growth = np.abs(tracks[:, None, 2] - boxes[None, :, 2])
        reach = np.minimum(self.options.reach + self.options.reach_growth * lost_for, self.options.max_reach)[:, None]
        appearance = detections.appearance[free]
        changes = np.array([change(self._tracks[k].appearances, appearance).min(axis=0) for k in group])
        cost = distance + growth + changes / self.options.max_change
        allowed = (distance <= reach) & (growth <= math.log(2.0)) & (changes <= self.options.max_change)
        # Whoever comes back far away and looks different is somebody else, though each alone would be allowed.
        doubt = np.hypot(distance / np.maximum(reach, 1e-9), changes / max(self.options.max_change, 1e-9))
        allowed &= (lost_for <= RECENT)[:, None] | (doubt <= 1.0)
        if changes.flat[changes.argmax()] > NOTICEABLE:
            alike = np.array([likeness(self._tracks[k].appearances, appearance).max(axis=0) for k in group])
            allowed &= alike >= MIN_LIKENESS + LIKENESS_GROWTH * np.maximum(lost_for - RECENT, 0.0)[:, None]
        # A forbidden pair costs more than all allowed pairs together, so that it never replaces one of them.
        penalty = 1e3
        columns = cheapest_pairs(np.where(allowed, cost, penalty)).tolist()
        return [(group[r], free[c]) for r, c in enumerate(columns) if c >= 0 and allowed[r, c]]

    def _rows(self, indices: dict[int, int], detections: Detections, now: float) -> Tracks:
        order = sorted((t.track_id, k) for k, t in enumerate(self._tracks) if t.track_id > 0)
        tracks = [self._tracks[k] for _, k in order]
        xyxy = np.array([t.xyxy() for t in tracks], np.float32).reshape(-1, 4)
        rows = [indices.get(k, -1) for _, k in order]
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


def _to_state(xyxy: F32) -> F64:
    """Convert boxes (N, 4) to center x, center y, log width, log height (N, 4)."""
    box = xyxy.astype(np.float64)
    size = np.maximum(box[:, 2:] - box[:, :2], 1.0)
    return np.concatenate([(box[:, :2] + box[:, 2:]) / 2, np.log(size)], axis=1)


@dataclass(slots=True, eq=False)
class _Track:
    """One person: the appearance, and a Kalman filter of the position.

    Attributes:
        box: (4,) the first detection, px.
        seen: When the face was last detected, s.
        track_id: 0 until the track is confirmed.
        hits: Number of detections.
        appearances: (2, A), the newest and the mean appearance.
        time: Time of the state, s.
        state: (2, 4), value and speed of center x, center y (px), log width and log height.
        covariance: (3, 4). The four values are filtered independently; the rows are the variance of the value, the
            covariance of value and speed, and the variance of the speed.
    """

    box: F32
    appearance: InitVar[F32]
    seen: float
    track_id: int = 0
    hits: int = 1
    appearances: F32 = field(init=False)
    time: float = field(init=False)
    state: F64 = field(init=False)
    covariance: F64 = field(init=False)

    def __post_init__(self, appearance: F32) -> None:
        self.appearances = np.stack([appearance, appearance])
        self.time = self.seen
        self.state = np.stack([_to_state(self.box[None])[0], np.zeros(4)])
        unit = self._unit()
        # The speed is unknown at first: standard deviation of one face width per second.
        self.covariance = np.stack([(POSITION_NOISE * unit) ** 2, np.zeros(4), unit**2])

    def _unit(self) -> F64:
        """Return the unit of the noise: the face width for the center, 0.5 for the logarithms of the size."""
        width = math.exp(self.state[0, 2])
        return np.array([width, width, 0.5, 0.5])

    def predict(self, now: float) -> None:
        """Predict the state at a time. A face that is not detected slows down."""
        dt = now - self.time
        if dt <= 0:
            return
        self.time = now
        tau = DAMPING if now - self.seen > dt + 1e-9 else math.inf
        decay = math.exp(-dt / tau)
        distance = dt if math.isinf(tau) else tau * (1.0 - decay)
        self.state[0] += self.state[1] * distance
        self.state[1] *= decay
        p, c, v = self.covariance
        q = (ACCELERATION * self._unit()) ** 2
        self.covariance = np.stack(
            [
                p + 2 * distance * c + distance**2 * v + q * dt**4 / 4,
                decay * (c + distance * v) + q * dt**3 / 2,
                decay**2 * v + q * dt**2,
            ]
        )

    def correct(self, xyxy: F32, appearance: F32, now: float) -> None:
        """Update the state with a detection, box (4,) and appearance (A,), at the predicted time."""
        p, c, v = self.covariance
        variance = p + (POSITION_NOISE * self._unit()) ** 2
        innovation = _to_state(xyxy[None])[0] - self.state[0]
        limit = OUTLIER * np.sqrt(variance)
        innovation = np.clip(innovation, -limit, limit)
        self.state = self.state + np.stack([p, c]) / variance * innovation
        self.covariance = np.stack([p - p * p / variance, c - p * c / variance, v - c * c / variance])
        old = self.appearances[1]
        mean = (1 - MEMORY) * old + MEMORY * appearance
        mean = np.where(np.isnan(old), appearance, np.where(np.isnan(appearance), old, mean))  # parts outside the frame
        self.appearances = np.stack([appearance, mean]).astype(np.float32)
        self.seen = now
        self.hits += 1

    def xyxy(self) -> list[float]:
        """Return the box, px."""
        center, half = self.state[0, :2], np.exp(self.state[0, 2:]) / 2
        return [*(center - half).tolist(), *(center + half).tolist()]
