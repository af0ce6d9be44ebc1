"""The faces that a video detector knows: where each of them should be, and which ones to look at in a frame.

Knows boxes, windows and times. Does not know images, detectors or ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from leaf_rt.faces.regions import WINDOW, Window, concatenate, non_max_suppression
from leaf_rt.types import F32, Detections

MIN_CONFIDENCE = 0.5  # of a close-up in which a known face is found again
REVISIT_PERIOD = 0.2  # s between looks at a known face in a crowd
FORGET_AFTER = 1.0  # s after which a lost face is forgotten
WIDEN = 1.4  # the window of a face that was missed, or whose velocity is unknown, is wider by this factor
MAX_PREDICTION = 0.3  # s; positions are predicted no further than this
PER_CALL = 4  # windows in one mosaic

Box: TypeAlias = list[float]  # x0, y0, x1, y1 in px. Plain numbers: NumPy would take longer for each of them


@dataclass(slots=True, eq=False)
class KnownFace:
    """A face that the detector looks at again.

    Attributes:
        box: x0, y0, x1, y1, px, where it was last seen.
        window: The last close-up that showed it.
        seen_at: When it was last seen, s.
        looked_at: When it was last looked for, s.
        velocity: x and y, px/s.
        missed: Whether the last look did not find it.
        is_new: Whether it was seen only once, so that its velocity is unknown.
    """

    box: Box
    window: Window
    seen_at: float
    looked_at: float
    velocity: tuple[float, float] = (0.0, 0.0)
    missed: bool = False
    is_new: bool = True

    @property
    def width(self) -> float:
        """Width of the face, px, at least 1."""
        return max(self.box[2] - self.box[0], 1.0)

    def predict(self, now: float) -> Box:
        """Return the box where the face should be now."""
        ahead = min(max(now - self.seen_at, 0.0), MAX_PREDICTION)
        x, y = self.velocity[0] * ahead, self.velocity[1] * ahead
        x0, y0, x1, y1 = self.box
        return [x0 + x, y0 + y, x1 + x, y1 + y]

    def next_window(self, now: float) -> Window:
        """Return the window in which to look for the face. It stands still while the face hardly moves."""
        box = self.predict(now)
        if self.missed or self.is_new:
            return Window.around(box, factor=WINDOW * WIDEN)
        self.window = Window.around(box, self.window)
        return self.window

    def match(self, found: Detections, now: float) -> int | None:
        """Return the row of the nearest detection of about the same size, or None."""
        boxes, width = found.xyxy.tolist(), self.width
        rows = [
            row
            for row, confidence in enumerate(found.confidence.tolist())
            if confidence >= MIN_CONFIDENCE and 0.5 * width < boxes[row][2] - boxes[row][0] < 2.0 * width
        ]
        return min(rows, key=lambda row: self.distance(boxes[row], now), default=None)

    def distance(self, box: Box, now: float) -> float:
        """Return the distance from the predicted position to a box, in face widths."""
        return math.hypot(*_step(self.predict(now), box)) / self.width

    def update(self, box: Box, now: float) -> None:
        """Set the position to a new box."""
        dt = now - self.seen_at
        if dt > 0:
            x, y = (step / dt for step in _step(self.box, box))
            self.velocity = (x, y) if self.is_new else ((self.velocity[0] + x) / 2, (self.velocity[1] + y) / 2)
        self.box, self.seen_at, self.missed, self.is_new = box, now, False, False

    def urgency(self, now: float) -> float:
        """Return how urgent the next look is: the time since the last one, weighted up for fast faces."""
        speed = math.hypot(*self.velocity) / self.width
        return (now - self.looked_at) * (0.5 if self.missed else 1.0 + min(speed, 10.0))


def _step(before: Box, after: Box) -> tuple[float, float]:
    """Return how far the center of a box has moved, x and y."""
    return (after[0] + after[2] - before[0] - before[2]) / 2, (after[1] + after[3] - before[1] - before[3]) / 2


class RevisitScheduler:
    """Decides which known faces of one source to look at in each frame.

    Up to ``PER_CALL`` faces are all looked at in every frame. Of more faces, each frame takes as many as are needed to
    see each one every ``REVISIT_PERIOD`` seconds. So the cost per second does not depend on the frame rate.
    """

    def __init__(self) -> None:
        self._faces: list[KnownFace] = []
        self._time = -math.inf  # s, of the last frame
        self._calls_due = 0.0  # mosaics that should have been looked at by now

    def __len__(self) -> int:
        return len(self._faces)

    def next_faces(self, now: float, period: float = REVISIT_PERIOD, patience: float = FORGET_AFTER) -> list[KnownFace]:
        """Return the faces to look at now, and forget those that were lost too long ago.

        Args:
            now: Media time, s.
            period: Seconds between two looks at the same face.
            patience: Seconds after which a lost face is forgotten.
        """
        self._faces = [face for face in self._faces if abs(now - face.seen_at) <= patience]
        step = max(now - self._time, 0.0) if math.isfinite(self._time) else 0.0
        self._time = now
        self._calls_due += len(self._faces) * min(step / period, 1.0) / PER_CALL
        calls = max(int(self._calls_due), 1)
        self._calls_due = max(self._calls_due - calls, 0.0)
        return sorted(self._faces, key=lambda face: -face.urgency(now))[: calls * PER_CALL]

    def lag(self, now: float) -> float:
        """Return the seconds since the face that waits longest was last looked for. Missed faces do not count."""
        return max((now - face.looked_at for face in self._faces if not face.missed), default=0.0)

    def update(self, looked: list[KnownFace], close_ups: list[Detections], now: float) -> tuple[Detections, bool]:
        """Process what was found in the windows of some faces.

        Args:
            looked: The faces.
            close_ups: The detections in the window of each of them, in px of the frame.
            now: Media time, s.

        Returns:
            The known faces that were found, each once, and whether one of the faces has just been lost.
        """
        found: list[Detections] = []
        owners: list[KnownFace] = []
        for face, close_up in zip(looked, close_ups, strict=True):
            row = face.match(close_up, now)
            if row is not None:
                found.append(close_up if len(close_up) == 1 else close_up[[row]])
                owners.append(face)
        detections = concatenate(found)
        # If two windows show the same face, it belongs to the known face that moved less.
        boxes = detections.xyxy.tolist()
        nearness = [-owner.distance(box, now) for owner, box in zip(owners, boxes, strict=True)]
        kept = sorted(non_max_suppression(detections, np.array(nearness, np.float32)))
        for row in kept:
            owners[row].update(boxes[row], now)
        hits = {id(owners[row]) for row in kept}
        lost = False
        for face in looked:
            face.looked_at = now
            if id(face) not in hits:
                lost |= not face.missed
                face.missed = True
        return detections if len(kept) == len(boxes) else detections[kept], lost

    def add(self, boxes: F32, now: float) -> None:
        """Add new faces, (N, 4) boxes that were seen now."""
        self._faces += [KnownFace(box, Window.around(box), now, now) for box in boxes.tolist()]

    def boxes(self, now: float) -> F32:
        """Return where the faces that were not missed should be now, (K, 4)."""
        return np.array([face.predict(now) for face in self._faces if not face.missed], np.float32).reshape(-1, 4)
