"""Makes faces unrecognizable. Does not know what is drawn on them, sources or files."""

from __future__ import annotations

import cv2
import numpy as np

from leaf_rt.geometry import iou
from leaf_rt.types import F32, U8, Estimates

_CELLS = 6  # a hidden face is reduced to this many cells on its longer side
_MARGIN = 0.2  # share of the box added on every side, for hair, chin and ears
_SAME_PLACE = 0.3  # intersection over union above which a face is taken for the one that was there before


def blur_faces(image: U8, xyxy: F32) -> None:
    """Replace faces by a few flat cells each, in place. The faces cannot be restored.

    Args:
        image: (H, W, 3) uint8.
        xyxy: (N, 4) float32, px. Parts outside the image are ignored.
    """
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in xyxy[np.isfinite(xyxy).all(axis=1)].tolist():
        dx, dy = (x1 - x0) * _MARGIN, (y1 - y0) * _MARGIN
        left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
        right, bottom = min(width, int(np.ceil(x1 + dx))), min(height, int(np.ceil(y1 + dy)))
        if right <= left or bottom <= top:
            continue
        part = image[top:bottom, left:right]
        scale = _CELLS / max(right - left, bottom - top)
        cells = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)


class Anonymizer:
    """Hides the faces of one source, also where a face was lost a moment ago.

    A detector sometimes misses a face for a few frames, and these frames must not show it. Faces without a row in the
    estimates are hidden as well.

    Args:
        linger: Seconds for which the place of a lost face stays hidden.
    """

    def __init__(self, linger: float = 1.0) -> None:
        self.linger = linger
        self._people: dict[int, tuple[float, F32]] = {}  # track id -> time (s), box (4,)
        self._others: list[tuple[float, F32]] = []  # the same for faces without a row

    def hide(self, canvas: U8, estimates: Estimates) -> None:
        """Hide all faces on the next frame, (H, W, 3) uint8, in place."""
        now = estimates.timestamp
        for track_id, box in zip(estimates.track_id.tolist(), estimates.xyxy, strict=True):
            self._people[track_id] = (now, box)
        self._people = {k: (t, box) for k, (t, box) in self._people.items() if 0 <= now - t <= self.linger}
        present = np.concatenate([estimates.xyxy, estimates.seen])
        self._others = [
            (t, box)
            for t, box in self._others
            if 0 <= now - t <= self.linger and not (iou(box[None], present) > _SAME_PLACE).any()
        ]
        lost = [box for _, box in (*self._people.values(), *self._others)]
        blur_faces(canvas, np.concatenate([estimates.seen, np.array(lost, np.float32).reshape(-1, 4)]))
        known = (iou(estimates.seen, estimates.xyxy) > _SAME_PLACE).any(axis=1)
        self._others += [(now, box) for box in estimates.seen[~known]]
