"""The faces a video detector knows and looks at again: where each will be, and whose turn it is.

Knows boxes, windows and times; must not know pictures, detectors or ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leaf_rt.faces.regions import WINDOW, Window, join, suppress
from leaf_rt.types import F32, Detections

KEEP = 0.5  # confidence in the close-up that keeps a known face
REVISIT = 0.2  # s between looks at a known face of a crowd
FORGET = 1.0  # s for which the place of a lost face is still looked at
WIDE = 1.4  # a window for a face that was missed, or whose speed is not known, is wider by this factor
MAX_AHEAD = 0.3  # s; a face is predicted no further than this
PER_CALL = 4  # windows in one mosaic


@dataclass(slots=True, eq=False)
class Known:
    """A face to look at again.

    Attributes:
        xyxy: (4,) float32, px, where it was last seen.
        window: The close-up that showed it.
        seen: s, when it was last seen.
        looked: s, when it was last looked for.
        velocity: (2,) float32, px/s.
        missed: Whether the last look failed.
        fresh: Whether it was seen but once, so that its velocity is not known.
    """

    xyxy: F32
    window: Window
    seen: float
    looked: float
    velocity: F32
    missed: bool = False
    fresh: bool = True

    @property
    def width(self) -> float:
        """Px, at least 1."""
        return max(float(self.xyxy[2] - self.xyxy[0]), 1.0)

    def predicted(self, now: float) -> F32:
        """The box (4,) at a time."""
        ahead = np.float32(min(max(now - self.seen, 0.0), MAX_AHEAD))
        return self.xyxy + np.tile(self.velocity * ahead, 2)

    def aim(self, now: float) -> Window:
        """The window to look for it through; it stands still while the face hardly moves."""
        box = self.predicted(now)
        if self.missed or self.fresh:
            return Window.around(box, factor=WINDOW * WIDE)
        self.window = Window.around(box, self.window)
        return self.window

    def choose(self, part: Detections, now: float) -> int | None:
        """Which of the faces in its window it is: the nearest one of about its size, if any."""
        size = part.xyxy[:, 2] - part.xyxy[:, 0]
        fits = (part.confidence >= KEEP) & (size > 0.5 * self.width) & (size < 2.0 * self.width)
        rows = np.flatnonzero(fits).tolist()
        return min(rows, key=lambda i: self.distance(part.xyxy[i], now), default=None)

    def distance(self, box: F32, now: float) -> float:
        """From the predicted place to this box (4,), in widths of the face."""
        here = self.predicted(now)
        shift = (box[:2] + box[2:] - here[:2] - here[2:]) / 2
        return float(np.hypot(shift[0], shift[1])) / self.width

    def see(self, box: F32, now: float) -> None:
        """Take the new place (4,)."""
        dt = now - self.seen
        if dt > 0:
            way = (box[:2] + box[2:] - self.xyxy[:2] - self.xyxy[2:]) / 2
            self.velocity = np.asarray(way / dt if self.fresh else (self.velocity + way / dt) / 2, np.float32)
        self.xyxy, self.seen, self.missed, self.fresh = box, now, False, False

    def urgency(self, now: float) -> float:
        """How much it is its turn: the time since the last look, more for who moves fast, less for who was missed."""
        speed = float(np.hypot(self.velocity[0], self.velocity[1])) / self.width
        return (now - self.looked) * (0.5 if self.missed else 1.0 + min(speed, 10.0))


class RevisitScheduler:
    """Whom to look at in each frame of one source.

    Up to ``PER_CALL`` faces are all looked at in every frame. Of more, as many per frame as it takes to see each one
    every ``REVISIT`` seconds, so that the cost per second does not depend on the number of frames.
    """

    def __init__(self) -> None:
        self._known: list[Known] = []
        self._time = -math.inf  # s, of the last turn
        self._owed = 0.0  # mosaics that should have been looked at by now

    def __len__(self) -> int:
        return len(self._known)

    def turn(self, now: float, revisit: float = REVISIT) -> list[Known]:
        """The faces to look at now, ``revisit`` s apart; faces that were gone for too long are forgotten."""
        self._known = [k for k in self._known if abs(now - k.seen) <= FORGET]
        step = max(now - self._time, 0.0) if math.isfinite(self._time) else 0.0
        self._time = now
        self._owed += len(self._known) * min(step / revisit, 1.0) / PER_CALL
        calls = max(int(self._owed), 1)
        self._owed = max(self._owed - calls, 0.0)
        return sorted(self._known, key=lambda k: -k.urgency(now))[: calls * PER_CALL]

    def lag(self, now: float) -> float:
        """Since when, in s, the face that waits longest was not looked for; 0 where none waits."""
        return max((now - k.looked for k in self._known if not k.missed), default=0.0)

    def settle(self, looked: list[Known], parts: list[Detections], now: float) -> tuple[Detections, bool]:
        """Take what the windows of these faces showed.

        Returns:
            The known faces that were found, each once, and whether one has just been lost from sight.
        """
        found: list[Detections] = []
        owners: list[Known] = []
        for known, part in zip(looked, parts, strict=True):
            row = known.choose(part, now)
            if row is not None:
                found.append(part[[row]])
                owners.append(known)
        faces = join(found)
        # Where two windows show one face, it is the face of whom it moved less from.
        nearness = [-owner.distance(box, now) for owner, box in zip(owners, faces.xyxy, strict=True)]
        kept = sorted(suppress(faces, np.array(nearness, np.float32)))
        for row in kept:
            owners[row].see(faces.xyxy[row], now)
        hits = {id(owners[row]) for row in kept}
        lost = False
        for known in looked:
            known.looked = now
            if id(known) not in hits:
                lost |= not known.missed
                known.missed = True
        return faces[kept], lost

    def add(self, boxes: F32, now: float) -> None:
        """New faces (N, 4), seen now."""
        self._known += [Known(box, Window.around(box), now, now, np.zeros(2, np.float32)) for box in boxes]

    def boxes(self, now: float) -> F32:
        """Where the faces that were not missed are by now (K, 4)."""
        return np.array([k.predicted(now) for k in self._known if not k.missed], np.float32).reshape(-1, 4)
