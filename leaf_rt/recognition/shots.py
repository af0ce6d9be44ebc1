"""Finds cuts in a video: frames that show another scene than the frames before.

A hard cut shows in two frames. They are compared as shrunken pictures, each brightened or darkened to the same
exposure, so that a dark scene counts like a bright one. The comparison has three steps, the cheapest first: the mean
difference of the pixels, the difference of the colors, and the correlation of blocks. A block is looked for around its
old place, so that motion is no cut, and without its mean and contrast, so that light is none. A cut comes at once,
while motion goes on: where the difference is much larger than the one before, less of the other signs is needed, and
where it is not, more.

A frame without content, such as a white flash, a black picture or the dark middle of a fade, is passed over: the next
one is compared with the last frame that had content. So a flash within one scene is no cut, and a black picture between
two scenes is one as soon as the second scene shows. Some fades count as one, because a very dark or pale picture has
few details: docs/identity.md says how often.

A gradual change to another scene has no such frame. ``leaf_rt.recognition.fades`` finds it when it is over.

Knows pictures. Does not know faces, times or sources.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import cv2
import numpy as np

from leaf_rt.recognition.fades import FadeDetector
from leaf_rt.recognition.thumbnails import HEIGHT, WIDTH, color_counts, exposed, grey, sample, similarity
from leaf_rt.types import F32, U8

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
    FADE = "fade"  # a cut: the end of a gradual change to another scene


class ShotDetector:
    """Compares the frames of one source.

    Attributes:
        fading_since: When the newest gradual change began, s.

    The constants were chosen on ``tests/shot_clips.py`` and on set A of ``tests/fresh_cuts.py``. Its set B is held out.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all frames, after a reconnect."""
        self.fading_since = 0.0
        self._fades = FadeDetector()
        self._last: U8 | None = None  # the last picture with content
        self._last_deviation = 0.0
        self._last_colors: F32 | None = None  # None where they were not needed
        self._last_difference = 0.0
        self._similarities: deque[float] = deque(maxlen=USUAL)

    def compare(self, image: U8, now: float) -> Change:
        """Compare the next frame with the last ones.

        Args:
            image: (H, W, 3) uint8 BGR. Its size may differ from the last one's.
            now: Media time of the frame, s.
        """
        picture, gain = exposed(sample(image))
        deviation = float(cv2.meanStdDev(picture)[1].mean())
        has_content = deviation >= max(FLAT, NOISE * gain)
        change = self._compare(picture, deviation) if has_content else Change.SAME
        if change is Change.CUT:
            self._fades.reset()
        green = np.multiply(
            picture[..., 1], 1.0 / gain, dtype=np.float32
        )  # a tenth of the time of a conversion to grey
        began = self._fades.add(green, deviation / gain, has_content, now)
        if began is None:
            return change
        self.fading_since = began
        return Change.FADE

    def _compare(self, picture: U8, deviation: float) -> Change:
        """Compare a picture, as ``exposed`` returns it, with the last one."""
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
        alike = similarity(grey(last), grey(picture))
        compared_before = len(self._similarities) > 0
        usual = float(np.median(self._similarities)) if compared_before else 1.0
        self._similarities.append(alike)
        is_new = alike <= usual - MIN_DROP
        if is_sharp and has_other_colors and alike <= SHARP_SIMILARITY:
            return Change.CUT
        # The jump of the first two frames says nothing: no difference is known before it.
        if (
            compared_before
            and is_sudden
            and is_new
            and jump >= BLOCKS_JUMP
            and ratio >= BLOCKS_RATIO
            and (alike <= BLOCKS_SIMILARITY)
        ):
            return Change.CUT
        if has_other_colors and ratio >= MIN_RATIO and is_new and alike <= DOUBTFUL_SIMILARITY:
            if jump < MIN_JUMP and not (alike <= NOTHING_COMMON[0] and color_change >= NOTHING_COMMON[1]):
                return Change.DOUBTFUL
            if alike <= MAX_SIMILARITY or ratio >= STRONG_RATIO:
                return Change.CUT
            return Change.SUDDEN if is_sudden else Change.DOUBTFUL
        return Change.SUDDEN if is_sudden and alike <= SUDDEN_SIMILARITY else Change.SAME

    def _color_change(self, last: U8, last_colors: F32 | None, picture: U8) -> float:
        """Return how much the colors of two pictures differ: 0 for the same, 1 for none in common."""
        before = color_counts(last) if last_colors is None else last_colors
        self._last_colors = color_counts(picture)
        return cv2.norm(before, self._last_colors, cv2.NORM_L1) / (2 * WIDTH * HEIGHT)
