"""Finds hard cuts in a video: frames that show another scene than the frame before.

Compares shrunken pictures, each brightened or darkened to the same exposure, so that a dark scene counts like a bright
one. The comparison has three steps, the cheapest first: the mean difference of the pixels, the
difference of the colors, and the correlation of blocks. A block is looked for around its old place, so that motion is
no cut, and without its mean and contrast, so that light is none. A cut comes at once, while motion goes on: where the
difference is much larger than the one before, less of the other signs is needed, and where it is not, more.

A frame without content, such as a white flash, a black picture or the dark middle of a fade, is passed over: the next
one is compared with the last frame that had content. So a flash within one scene is no cut, and a black picture between
two scenes is one as soon as the second scene shows. Some fades count as one, because a very dark or pale picture has
few details: docs/identity.md says how often.

Knows pictures. Does not know faces, times or sources.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

import cv2
import numpy as np

from leaf_rt.types import F32, U8

WIDTH, HEIGHT = 48, 32  # px of a shrunken picture
PRE_SHRINK = 2  # it is made from this many times its size, so that every pixel is a mean of four
COLUMNS, ROWS = 3, 2  # blocks
MARGIN_X, MARGIN_Y = 9, 5  # px by which a block may move from one frame to the next
EXPOSURE = 110.0  # root mean square of a picture after ``_exposed``, 8-bit steps; the other constants belong to it
MAX_GAIN = 10.0  # to which it is brightened at most: what is darker is mostly noise
NOISE = 1.6  # standard deviation of a picture of noise alone, before it is brightened, 8-bit steps
FLAT = 5.0  # standard deviation of a picture without content, 8-bit steps
MIN_DIFFERENCE = 5.0  # mean difference of two pictures, 8-bit steps; less is no cut
MIN_RATIO = 0.5  # the same / standard deviation of the pictures
MIN_COLOR_CHANGE = 0.27  # share of the pixels whose color the other picture does not have
MAX_SIMILARITY = 0.7  # mean correlation of the blocks; a smaller one is a cut
DOUBTFUL_SIMILARITY = 0.78  # a smaller one is a cut if the pixels differ strongly, or if the faces are gone too
STRONG_RATIO = 0.8  # of the difference, see ``MIN_RATIO``
MIN_JUMP = 2.2  # difference / the one before; a smaller jump is motion, unless the pictures have nothing in common
NOTHING_COMMON = (0.5, 0.5)  # at most this similarity, and at least this change of colors
# A sharp change: difference / the one before, its ratio, and standard deviation of both pictures, at least.
SHARP_JUMP, SHARP_RATIO, SHARP_DEVIATION = 5.0, 1.0, 10.0
SHARP_SIMILARITY = 0.83  # as ``MAX_SIMILARITY``, after a sharp change; two large faces resemble each other
SHARP_COLOR_CHANGE = 0.17  # as ``MIN_COLOR_CHANGE``, after a sharp change
MIN_DROP = 0.2  # a cut has this much less than usual, so that noise and strobe lights are no row of cuts
# A sudden change: difference / the one before and its ratio, at least. It needs no other colors than the scene before,
# because grey pictures have the same ones; but as much contrast as a sharp one, so that a flash is none.
SUDDEN_JUMP, SUDDEN_RATIO = 3.0, 0.4
SUDDEN_SIMILARITY = 0.83  # a smaller one is a cut if no face goes on
# A cut by the blocks alone, whatever the colors and faces: at least this jump and ratio, at most this similarity.
BLOCKS_JUMP, BLOCKS_RATIO, BLOCKS_SIMILARITY = 10.0, 0.75, 0.75
USUAL = 9  # comparisons, whose median is the usual similarity


class Change(Enum):
    """What a frame is, compared with the one before."""

    SAME = "same"
    DOUBTFUL = "doubtful"  # a cut if all faces are gone, else the same scene
    SUDDEN = "sudden"  # a cut if no face goes on: each is gone, or another face is in its place
    CUT = "cut"


class ShotDetector:
    """Compares the frames of one source.

    The constants were chosen on ``tests/shot_clips.py`` and on set A of ``tests/fresh_cuts.py``. Its set B is held out.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all frames, after a reconnect."""
        self._last: U8 | None = None  # the last picture with content
        self._last_deviation = 0.0
        self._last_colors: F32 | None = None  # None where they were not needed
        self._last_difference = 0.0
        self._similarities: deque[float] = deque(maxlen=USUAL)

    def compare(self, image: U8) -> Change:
        """Compare the next frame with the last one.

        Args:
            image: (H, W, 3) uint8 BGR. Its size may differ from the last one's.
        """
        picture, gain = _exposed(_sample(image))
        deviation = float(cv2.meanStdDev(picture)[1].mean())
        if deviation < max(FLAT, NOISE * gain):
            return Change.SAME
        last, last_deviation = self._last, self._last_deviation
        self._last, self._last_deviation = picture, deviation
        colors, self._last_colors = self._last_colors, None
        if last is None:
            return Change.SAME
        difference = cv2.norm(last, picture, cv2.NORM_L1) / picture.size
        ratio = 2.0 * difference / (deviation + last_deviation)
        jump, self._last_difference = difference / max(self._last_difference, 1.0), difference
        has_contrast = min(deviation, last_deviation) >= SHARP_DEVIATION
        is_sharp = jump >= SHARP_JUMP and ratio >= SHARP_RATIO and has_contrast
        is_sudden = jump >= SUDDEN_JUMP and ratio >= SUDDEN_RATIO and has_contrast
        if difference < MIN_DIFFERENCE or (ratio < MIN_RATIO and not is_sudden):
            self._similarities.append(1.0)
            return Change.SAME
        color_change = self._color_change(last, colors, picture)
        has_other_colors = color_change >= (SHARP_COLOR_CHANGE if is_sharp else MIN_COLOR_CHANGE)
        if not has_other_colors and not is_sudden:
            self._similarities.append(1.0)
            return Change.SAME
        similarity = _similarity(last, picture)
        compared_before = len(self._similarities) > 0
        usual = float(np.median(self._similarities)) if compared_before else 1.0
        self._similarities.append(similarity)
        is_new = similarity <= usual - MIN_DROP
        if is_sharp and has_other_colors and similarity <= SHARP_SIMILARITY:
            return Change.CUT
        # The jump of the first two frames says nothing: no difference is known before it.
        if (
            compared_before
            and is_sudden
            and is_new
            and jump >= BLOCKS_JUMP
            and ratio >= BLOCKS_RATIO
            and (similarity <= BLOCKS_SIMILARITY)
        ):
            return Change.CUT
        if has_other_colors and ratio >= MIN_RATIO and is_new and similarity <= DOUBTFUL_SIMILARITY:
            if jump < MIN_JUMP and not (similarity <= NOTHING_COMMON[0] and color_change >= NOTHING_COMMON[1]):
                return Change.DOUBTFUL
            if similarity <= MAX_SIMILARITY or ratio >= STRONG_RATIO:
                return Change.CUT
            return Change.SUDDEN if is_sudden else Change.DOUBTFUL
        return Change.SUDDEN if is_sudden and similarity <= SUDDEN_SIMILARITY else Change.SAME

    def _color_change(self, last: U8, last_colors: F32 | None, picture: U8) -> float:
        """Return how much the colors of two pictures differ: 0 for the same, 1 for none in common."""
        before = _colors(last) if last_colors is None else last_colors
        self._last_colors = _colors(picture)
        return cv2.norm(before, self._last_colors, cv2.NORM_L1) / (2 * WIDTH * HEIGHT)


def _sample(image: U8) -> U8:
    """Return a smaller picture. Skips pixels of large frames: averaging all of them would take longer."""
    if image.shape[0] <= PRE_SHRINK * HEIGHT or image.shape[1] <= PRE_SHRINK * WIDTH:
        return image
    size = PRE_SHRINK * WIDTH, PRE_SHRINK * HEIGHT
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _exposed(image: U8) -> tuple[U8, float]:
    """Return a picture of (HEIGHT, WIDTH, 3) uint8 with the exposure that all have, and its gain.

    The gain comes before the mean of the pixels, which would round dark ones to a few steps.
    """
    level = cv2.norm(image, cv2.NORM_L2) / math.sqrt(image.size)
    gain = EXPOSURE / max(level, EXPOSURE / MAX_GAIN)
    shrunk = cv2.resize(cv2.convertScaleAbs(image, alpha=gain), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8), gain


def _colors(picture: U8) -> F32:
    """Return how many pixels have each of 8 x 8 x 8 colors."""
    return np.asarray(cv2.calcHist([picture], [0, 1, 2], None, [8] * 3, [0, 256] * 3), np.float32)


def _similarity(a: U8, b: U8) -> float:
    """Return the mean correlation of the blocks of each picture with their best places in the other one, -1 to 1.

    Blocks with more contrast count more.
    """
    gray = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.float32) for picture in (a, b)]
    width, height = (WIDTH - 2 * MARGIN_X) // COLUMNS, (HEIGHT - 2 * MARGIN_Y) // ROWS
    means = []
    for here, there in (gray, gray[::-1]):
        scores, weights = [], []
        for y in range(MARGIN_Y, HEIGHT - MARGIN_Y - height + 1, height):
            for x in range(MARGIN_X, WIDTH - MARGIN_X - width + 1, width):
                block = here[y : y + height, x : x + width]
                area = there[y - MARGIN_Y : y + height + MARGIN_Y, x - MARGIN_X : x + width + MARGIN_X]
                scores.append(float(cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max()))
                weights.append(float(cv2.meanStdDev(block)[1][0, 0]) + 1e-3)
        means.append(sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights))
    return sum(means) / len(means)
