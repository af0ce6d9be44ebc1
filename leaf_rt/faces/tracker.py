"""Ids over time: which face of this frame is which person of the last ones.

Every duration is in seconds and steps may be irregular, so a clip gives the same ids at 10, 30 and 60 frames/s.
Knows boxes, appearances and times (numpy, SciPy); must not know pictures, detectors or clocks.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from leaf_rt.faces.appearance import change
from leaf_rt.types import F32, Detections, Tracks

F64 = NDArray[np.float64]

POSITION_NOISE = 0.04  # of a detected box: deviation of its centre and (half) of its size, in face widths
ACCELERATION = 3.0  # face widths/s^2: how hard people change their speed
DAMPING = 0.4  # s in which a face that is out of sight loses 63 % of its speed
OUTLIER = 3.0  # standard deviations; a larger surprise counts as this one, so one bad box does not throw a track
MEMORY = 0.3  # share of a new appearance in the mean one of its track
RECENT = 0.3  # s; tracks seen since choose their detections before those out of sight


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """When a face is a person, and for how long.

    Attributes:
        max_lost: s without a detection after which a track ends and its id is gone for good.
        confirm_confidence: A face found with at least this confidence has its id at once, others when found twice.
        confirm_within: s within which the second find must come.
        reach: How far from its predicted place a face may turn up, in face widths; grows with the time out of sight.
        reach_growth: Face widths/s by which it grows.
        max_reach: Its limit.
        max_change: How different a head may look from one find to the next, see ``appearance.change``. Who
            looks more different is somebody else, wherever they stand.
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
    """Gives faces their ids; one instance per source.

    Each track is a constant-velocity Kalman filter over centre and logarithm of width and height, with noise in units
    of the face's own width. Detections are assigned to all tracks at once (the least total cost), first to the tracks
    seen lately, then to those out of sight, so that who has long been gone takes no one's face.
    """

    def __init__(self, options: TrackOptions | None = None) -> None:
        self.options = options or TrackOptions()
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._time = -math.inf  # s, of the newest frame

    def reset(self) -> None:
        """Drop all tracks, after a reconnect; ids go on counting."""
        self._tracks.clear()
        self._time = -math.inf

    def update(self, detections: Detections, timestamp: float) -> Tracks:
        """Follow everybody to this time.

        Args:
            detections: Faces of this frame; a face that is absent was not found or not looked for.
            timestamp: s, media time. One that is older than the last counts as equal to it.

        Returns:
            Every living, confirmed track, those out of sight included (``detection_index`` -1). An id that is absent
            is gone for good.
        """
        now = max(timestamp, self._time)
        self._time = now
        self._tracks = [t for t in self._tracks if now - t.seen <= self._patience(t)]
        for track in self._tracks:
            track.predict(now)
        indices: dict[int, int] = {}  # position in self._tracks -> row of detections
        free = list(range(len(detections)))
        recent = [k for k, t in enumerate(self._tracks) if t.track_id > 0 and now - t.seen <= RECENT]
        stale = [k for k, t in enumerate(self._tracks) if t.track_id > 0 and now - t.seen > RECENT]
        fresh = [k for k, t in enumerate(self._tracks) if t.track_id == 0]
        for group in (recent, stale, fresh):
            for k, row in self._assign(group, detections, free, now):
                self._tracks[k].correct(detections.xyxy[row], detections.appearance[row], now)
                indices[k] = row
                free.remove(row)
        for row in free:
            indices[len(self._tracks)] = row
            self._tracks.append(_Track(detections.xyxy[row], detections.appearance[row], now))
        for k, row in indices.items():
            track = self._tracks[k]
            sure = float(detections.confidence[row]) >= self.options.confirm_confidence
            if track.track_id == 0 and (track.hits > 1 or sure):
                track.track_id = self._next_id
                self._next_id += 1
        return self._rows(indices, now)

    def _patience(self, track: _Track) -> float:
        return self.options.max_lost if track.track_id > 0 else self.options.confirm_within

    def _assign(self, group: list[int], detections: Detections, free: list[int], now: float) -> list[tuple[int, int]]:
        """Pairs (track, row) among a group of tracks and the free rows, of least total cost."""
        if not group or not free:
            return []
        boxes = _measured(detections.xyxy[free])  # (F, 4)
        tracks = np.array([self._tracks[k].state[0] for k in group])  # (G, 4)
        lost = np.array([now - self._tracks[k].seen for k in group])
        width = np.exp(0.5 * (tracks[:, None, 2] + boxes[None, :, 2]))  # (G, F), geometric mean
        distance = np.hypot(tracks[:, None, 0] - boxes[None, :, 0], tracks[:, None, 1] - boxes[None, :, 1]) / width
        growth = np.abs(tracks[:, None, 2] - boxes[None, :, 2])
        reach = np.minimum(self.options.reach + self.options.reach_growth * lost, self.options.max_reach)[:, None]
        appearance = detections.appearance[free]
        changes = np.array([change(self._tracks[k].looks, appearance).min(axis=0) for k in group])
        cost = distance + growth + changes / self.options.max_change
        allowed = (distance <= reach) & (growth <= math.log(2.0)) & (changes <= self.options.max_change)
        # A forbidden pair costs more than any number of allowed ones, so that it never displaces one.
        penalty = 1e3
        rows, columns = linear_sum_assignment(np.where(allowed, cost, penalty))
        return [(group[r], free[c]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if allowed[r, c]]

    def _rows(self, indices: dict[int, int], now: float) -> Tracks:
        order = sorted((t.track_id, k) for k, t in enumerate(self._tracks) if t.track_id > 0)
        tracks = [self._tracks[k] for _, k in order]
        return Tracks(
            track_id=np.array([t.track_id for t in tracks], np.int64),
            xyxy=np.array([t.xyxy() for t in tracks], np.float32).reshape(-1, 4),
            detection_index=np.array([indices.get(k, -1) for _, k in order], np.int64),
            time_since_update=np.array([now - t.seen for t in tracks], np.float32),
        )


def _measured(xyxy: F32) -> F64:
    """Boxes (N, 4) as centre, log width, log height (N, 4)."""
    box = xyxy.astype(np.float64)
    size = np.maximum(box[:, 2:] - box[:, :2], 1.0)
    return np.concatenate([(box[:, :2] + box[:, 2:]) / 2, np.log(size)], axis=1)


@dataclass(slots=True, eq=False)
class _Track:
    """One person: newest and mean appearance, and a filter over where the face is.

    ``looks`` is (2, A). ``state`` (2, 4) holds value and speed of centre x, y (px) and log width, height. The four are
    filtered on their own: the rows of ``covariance`` (3, 4) are of value, of value with speed, and of speed.
    ``track_id`` is 0 until the track is confirmed.
    """

    first: F32
    look: InitVar[F32]
    seen: float
    track_id: int = 0
    hits: int = 1
    looks: F32 = field(init=False)
    time: float = field(init=False)
    state: F64 = field(init=False)
    covariance: F64 = field(init=False)

    def __post_init__(self, look: F32) -> None:
        self.looks = np.stack([look, look])
        self.time = self.seen
        self.state = np.stack([_measured(self.first[None])[0], np.zeros(4)])
        unit = self._unit()
        # The speed is unknown at first: one face width per second either way.
        self.covariance = np.stack([(POSITION_NOISE * unit) ** 2, np.zeros(4), unit**2])

    def _unit(self) -> F64:
        """What noise is measured in: the face's width for the centre, half of a logarithm's 1 for the size."""
        width = math.exp(self.state[0, 2])
        return np.array([width, width, 0.5, 0.5])

    def predict(self, now: float) -> None:
        """Move on to a time; the longer out of sight, the slower."""
        dt = now - self.time
        if dt <= 0:
            return
        self.time = now
        tau = DAMPING if now - self.seen > dt + 1e-9 else math.inf
        fade = math.exp(-dt / tau)
        way = dt if math.isinf(tau) else tau * (1.0 - fade)
        self.state[0] += self.state[1] * way
        self.state[1] *= fade
        p, c, v = self.covariance
        q = (ACCELERATION * self._unit()) ** 2
        self.covariance = np.stack(
            [
                p + 2 * way * c + way**2 * v + q * dt**4 / 4,
                fade * (c + way * v) + q * dt**3 / 2,
                fade**2 * v + q * dt**2,
            ]
        )

    def correct(self, xyxy: F32, look: F32, now: float) -> None:
        """Take a detection, box (4,) and appearance (A,), of the time it was predicted to."""
        p, c, v = self.covariance
        spread = p + (POSITION_NOISE * self._unit()) ** 2
        surprise = _measured(xyxy[None])[0] - self.state[0]
        limit = OUTLIER * np.sqrt(spread)
        surprise = np.clip(surprise, -limit, limit)
        self.state = self.state + np.stack([p, c]) / spread * surprise
        self.covariance = np.stack([p - p * p / spread, c - p * c / spread, v - c * c / spread])
        self.looks = np.stack([look, (1 - MEMORY) * self.looks[1] + MEMORY * look]).astype(np.float32)
        self.seen = now
        self.hits += 1

    def xyxy(self) -> list[float]:
        """The box, px."""
        centre, half = self.state[0, :2], np.exp(self.state[0, 2:]) / 2
        return [*(centre - half).tolist(), *(centre + half).tolist()]
