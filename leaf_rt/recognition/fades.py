"""Finds gradual changes to another scene in a video: dissolves, and fades through black, white or another color.

In a gradual change every picture is a mixture of the last one of the old scene, the first one of the new scene, and a
plain color. Motion gives no such mixtures. So two pictures some time apart are compared, and if they show different
scenes, the pictures between them are fitted by least squares.

Knows small pictures of one channel and times. Does not know faces or sources.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import cv2
import numpy as np

from leaf_rt.recognition.thumbnails import similarity
from leaf_rt.types import F32

LAGS = (0.5, 1.0, 2.0)  # s between the two pictures that are compared; a longer change is not found
STEP = 0.03  # s between two remembered pictures, at least
PERIOD = 0.06  # s between two looks for a change, at least
MAX_GAP = 0.5  # s between two pictures; after a longer one nothing is known of what happened between them
SETTLED_AFTER = 0.12  # s for which the new scene must have lasted
MAX_UNSETTLED = 0.2  # change in that time / difference of the scenes
MIN_RATIO = 0.4  # mean difference of the scenes / their standard deviation
MAX_SIMILARITY = 0.75  # mean correlation of the blocks of the two scenes
MAX_CORRELATION = 0.8  # of the pixels of the two scenes; the same scene in another light has more
MAX_RESIDUAL = 0.35  # of the fit of a mixture / standard deviation of the scenes
MIXED = (0.15, 0.85)  # share of the new scene in a picture that belongs to the change
MIN_MIXED = 2  # pictures that belong to a change


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A picture of the last seconds.

    Attributes:
        time: s.
        values: (H, W) float32.
        deviation: Their standard deviation.
        has_content: Whether it shows more than a plain color.
    """

    time: float
    values: F32
    deviation: float
    has_content: bool


class FadeDetector:
    """Looks for gradual changes in the pictures of one source."""

    def __init__(self) -> None:
        self._pictures: list[_Picture] = []
        self._times: list[float] = []  # of the pictures, s
        self._looked = -math.inf  # s, when

    def reset(self) -> None:
        """Forget all pictures, after a cut."""
        self._keep_from(len(self._pictures))

    def add(self, values: F32, deviation: float, has_content: bool, now: float) -> float | None:
        """Take the next picture.

        Args:
            values: (H, W) float32, the picture, small.
            deviation: Its standard deviation.
            has_content: Whether it shows more than a plain color.
            now: Its time, s.

        Returns:
            When a gradual change to the scene of this picture began, s; None if none has ended now. All pictures
            before are then forgotten.
        """
        since = now - self._times[-1] if self._times else 0.0
        if not 0.0 <= since <= MAX_GAP:
            self.reset()
        elif self._times and since < STEP:
            return None
        new = _Picture(now, values, deviation, has_content)
        self._pictures.append(new)
        self._times.append(now)
        self._keep_from(max(self._before(LAGS[-1]), 0))
        if not has_content or 0.0 <= now - self._looked < PERIOD:
            return None
        self._looked = now
        began = self._began(new)
        if began is not None:
            self._keep_from(len(self._pictures) - 1)
        return began

    def _keep_from(self, index: int) -> None:
        del self._pictures[:index], self._times[:index]

    def _before(self, lag: float) -> int:
        """Return the index of the newest picture that is at least this much older than the last one, s; -1 if none."""
        return bisect_right(self._times, self._times[-1] - lag + 1e-6) - 1

    def _began(self, new: _Picture) -> float | None:
        index = self._before(SETTLED_AFTER)
        if index < 0 or not self._pictures[index].has_content:
            return None
        unsettled = cv2.norm(new.values, self._pictures[index].values, cv2.NORM_L1)
        for lag in LAGS:
            index = self._before(lag)
            if index < 0:
                return None
            old = self._pictures[index]
            difference = cv2.norm(new.values, old.values, cv2.NORM_L1)
            if not old.has_content or unsettled > MAX_UNSETTLED * difference:
                continue
            if 2.0 * difference / new.values.size < MIN_RATIO * (new.deviation + old.deviation):
                continue
            if similarity(old.values, new.values) <= MAX_SIMILARITY:
                began = _mixtures(old, new, self._pictures[index + 1 : -1])
                if began is not None:
                    return began
        return None


def _mixtures(old: _Picture, new: _Picture, between: list[_Picture]) -> float | None:
    """Return when the pictures between two scenes began to mix; None if they are not mixtures of the two."""
    if cv2.matchTemplate(old.values, new.values, cv2.TM_CCOEFF_NORMED)[0, 0] > MAX_CORRELATION:
        return None
    scenes = np.stack([old.values.ravel(), new.values.ravel(), np.ones(old.values.size)], axis=1).astype(np.float64)
    pictures = np.stack([p.values.ravel() for p in between], axis=1).astype(np.float64)
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
