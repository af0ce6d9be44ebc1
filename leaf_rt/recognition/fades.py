"""Finds gradual changes to another scene in a video: dissolves, and fades through black, white or another color.

In a gradual change every picture is a mixture of the last one of the old scene, the first one of the new scene, and a
plain color. Motion gives no such mixtures. So two pictures some time apart are compared, and if they show different
scenes, the pictures between them are fitted by least squares.

Knows small grey pictures and times. Does not know faces or sources.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from leaf_rt.recognition.thumbnails import similarity
from leaf_rt.types import F32

LAGS = (0.5, 1.0, 2.0)  # s between the two pictures that are compared; a longer change is not found
STEP = 0.03  # s between two remembered pictures, at least
MAX_GAP = 0.5  # s between two pictures; after a longer one nothing is known of what happened between them
SETTLED_AFTER = 0.12  # s for which the new scene must have lasted
MAX_UNSETTLED = 0.2  # change in that time / difference of the scenes
MIN_RATIO = 0.4  # mean difference of the scenes / their standard deviation
MAX_SIMILARITY = 0.75  # mean correlation of the blocks of the two scenes
MAX_RESIDUAL = 0.35  # of the fit of a mixture / standard deviation of the scenes
MIXED = (0.15, 0.85)  # share of the new scene in a picture that belongs to the change
MIN_MIXED = 2  # pictures that belong to a change


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A picture of the last seconds.

    Attributes:
        time: s.
        grey: (H, W) float32.
        deviation: Standard deviation of ``grey``.
        has_content: Whether it shows more than a plain color.
    """

    time: float
    grey: F32
    deviation: float
    has_content: bool


class FadeDetector:
    """Looks for gradual changes in the pictures of one source."""

    def __init__(self) -> None:
        self._pictures: deque[_Picture] = deque()

    def reset(self) -> None:
        """Forget all pictures, after a cut."""
        self._pictures.clear()

    def add(self, grey: F32, has_content: bool, now: float) -> float | None:
        """Take the next picture.

        Args:
            grey: (H, W) float32, the picture, small.
            has_content: Whether it shows more than a plain color.
            now: Its time, s.

        Returns:
            When a gradual change to the scene of this picture began, s; None if none has ended now. All pictures
            before are then forgotten.
        """
        pictures = self._pictures
        if pictures and not 0.0 <= now - pictures[-1].time <= MAX_GAP:
            pictures.clear()
        if pictures and now - pictures[-1].time < STEP:
            return None
        new = _Picture(now, grey, float(cv2.meanStdDev(grey)[1][0, 0]), has_content)
        pictures.append(new)
        while len(pictures) > 1 and now - pictures[1].time >= LAGS[-1]:
            pictures.popleft()
        began = self._began(new) if has_content else None
        if began is not None:
            pictures.clear()
            pictures.append(new)
        return began

    def _began(self, new: _Picture) -> float | None:
        recent = next((p for p in reversed(self._pictures) if new.time - p.time >= SETTLED_AFTER), None)
        if recent is None or not recent.has_content:
            return None
        unsettled = cv2.norm(new.grey, recent.grey, cv2.NORM_L1)
        for lag in LAGS:
            old = next((p for p in reversed(self._pictures) if new.time - p.time >= lag - 1e-6), None)
            if old is None:
                return None
            difference = cv2.norm(new.grey, old.grey, cv2.NORM_L1)
            if not old.has_content or unsettled > MAX_UNSETTLED * difference:
                continue
            if 2.0 * difference / new.grey.size < MIN_RATIO * (new.deviation + old.deviation):
                continue
            if similarity(old.grey, new.grey) <= MAX_SIMILARITY:
                between = [p for p in self._pictures if old.time < p.time < new.time]
                began = _mixtures(old, new, between)
                if began is not None:
                    return began
        return None


def _mixtures(old: _Picture, new: _Picture, between: list[_Picture]) -> float | None:
    """Return when the pictures between two scenes began to mix; None if they are not mixtures of the two."""
    scenes = np.stack([old.grey.ravel(), new.grey.ravel(), np.ones(old.grey.size)], axis=1).astype(np.float64)
    pictures = np.stack([p.grey.ravel() for p in between], axis=1).astype(np.float64)
    shares, *_ = np.linalg.lstsq(scenes, pictures, rcond=None)
    residual = (pictures - scenes @ shares).std(axis=0) / np.sqrt(old.deviation * new.deviation)
    if residual.max() > MAX_RESIDUAL:
        return None
    low, high = MIXED
    of_new = shares[1]
    in_change = ((of_new > low) & (of_new < high)) | (shares[0] + of_new < high)
    if in_change.sum() < MIN_MIXED:
        return None
    return between[int(in_change.argmax())].time
