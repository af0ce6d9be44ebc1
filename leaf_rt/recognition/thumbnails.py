"""Small pictures that stand for the frames of a video where scenes are compared.

Knows pictures. Does not know faces, times or sources.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from leaf_rt.types import F32, U8

WIDTH, HEIGHT = 48, 32  # px of a small picture
PRE_SHRINK = 2  # it is made from this many times its size, so that every pixel is a mean of four
COLUMNS, ROWS = 3, 2  # blocks
MARGIN_X, MARGIN_Y = 9, 5  # px by which a block may move from one picture to the other
EXPOSURE = 110.0  # root mean square of a picture after ``exposed``, 8-bit steps
MAX_GAIN = 10.0  # to which it is brightened at most: what is darker is mostly noise


def sample(image: U8) -> U8:
    """Return a smaller picture. Skips pixels of large frames: averaging all of them would take longer."""
    if image.shape[0] <= PRE_SHRINK * HEIGHT or image.shape[1] <= PRE_SHRINK * WIDTH:
        return image
    size = PRE_SHRINK * WIDTH, PRE_SHRINK * HEIGHT
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def exposed(image: U8) -> tuple[U8, float]:
    """Return a picture of (HEIGHT, WIDTH, 3) uint8 with the exposure that all have, and its gain.

    The gain comes before the mean of the pixels, which would round dark ones to a few steps.
    """
    level = cv2.norm(image, cv2.NORM_L2) / math.sqrt(image.size)
    gain = EXPOSURE / max(level, EXPOSURE / MAX_GAIN)
    shrunk = cv2.resize(cv2.convertScaleAbs(image, alpha=gain), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8), gain


def color_counts(picture: U8) -> F32:
    """Return how many pixels have each of 8 x 8 x 8 colors."""
    return np.asarray(cv2.calcHist([picture], [0, 1, 2], None, [8] * 3, [0, 256] * 3), np.float32)


def grey(picture: U8) -> F32:
    """Return a picture (H, W, 3) in grey, (H, W) float32, 8-bit steps."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.float32)


def similarity(a: F32, b: F32) -> float:
    """Return the mean correlation of the blocks of each picture with their best places in the other one, -1 to 1.

    Blocks with more contrast count more.
    """
    width, height = (WIDTH - 2 * MARGIN_X) // COLUMNS, (HEIGHT - 2 * MARGIN_Y) // ROWS
    means = []
    for here, there in ((a, b), (b, a)):
        scores, weights = [], []
        for y in range(MARGIN_Y, HEIGHT - MARGIN_Y - height + 1, height):
            for x in range(MARGIN_X, WIDTH - MARGIN_X - width + 1, width):
                block = here[y : y + height, x : x + width]
                area = there[y - MARGIN_Y : y + height + MARGIN_Y, x - MARGIN_X : x + width + MARGIN_X]
                scores.append(float(cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max()))
                weights.append(float(cv2.meanStdDev(block)[1][0, 0]) + 1e-3)
        means.append(sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights))
    return sum(means) / len(means)
