"""A coarse description of a head, to tell two people in the same place apart: colors on an 8 x 8 grid.

It is valid for seconds within one video and cannot identify a person: it describes hair, skin and collar, and changes
with clothes and light. It is deleted together with its track and never stored. Knows pixels, not tracks.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from leaf_rt.faces.regions import Window
from leaf_rt.types import F32, U8

GRID = 8  # cells per row and per column
REACH = 1.8  # side of the grid / width of the face; covers the whole head
CHROMA = 2.0  # weight of the color channels, which vary less than lightness and tell more
SIZE = GRID * GRID * 3  # values per face
MIN_CELLS = 48  # that two descriptions must share; with 40, one of 10,000 pairs of other people would match
EXPOSURE = 110.0  # mean of a head after it is brightened or darkened, 8-bit steps; the limits of others belong to it
MAX_GAIN = 20.0  # to which it is brightened at most: what is darker is mostly noise
MIN_CONTRAST = 14.0  # standard deviation of the lightness of a head; less is darkness, in which all heads look alike
_STEPS = np.array([255 / 100, CHROMA, CHROMA])  # of OpenCV's 8-bit L*a*b*, weighted
COLORLESS = 10.0  # standard deviation of the color channels; less is an almost grey picture


def load_tables() -> None:
    """Let OpenCV compute its color tables now, which takes longer than a frame, rather than at the first face."""
    cv2.cvtColor(np.zeros((1, 1, 3), np.uint8), cv2.COLOR_BGR2LAB)


def describe(frame: U8, xyxy: F32) -> F32:
    """Describe the appearance of faces.

    Args:
        frame: (H, W, 3) uint8, BGR.
        xyxy: (N, 4) float32, px.

    Returns:
        (N, SIZE) float32: CIE L*a*b* of the cells in OpenCV's 8-bit steps, as if every head had the same exposure.
        The mean lightness is 0. NaN in cells outside the frame: what fills them is the same for all people.
    """
    out = np.zeros((len(xyxy), GRID, GRID, 3), np.float32)
    for cells, box in zip(out, xyxy.tolist(), strict=True):
        window = Window.around(box, factor=REACH)
        part = window.cut(frame, max(window.side // (4 * GRID), 1))
        small = cv2.resize(part.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)  # keeps dark steps
        outside = _outside(window, frame.shape[1], frame.shape[0])
        cells[:] = cv2.cvtColor(_exposed(np.asarray(small, np.float32), outside), cv2.COLOR_BGR2LAB) * _STEPS
        if outside is None:
            cells[..., 0] -= cells[..., 0].ravel().mean()
        else:
            cells[..., 0] -= cells[~outside, 0].mean() if not outside.all() else 0.0
            cells[outside] = np.nan
    return out.reshape(len(xyxy), SIZE)


def _exposed(cells: F32, outside: NDArray[np.bool_] | None) -> F32:
    """Return the cells of a head with the exposure that all heads have: (GRID, GRID, 3) float32 BGR, 0 to 1."""
    shown = cells if outside is None else cells[~outside]
    level = float(shown.mean()) if shown.size else EXPOSURE
    gain = EXPOSURE / max(level, EXPOSURE / MAX_GAIN)
    return np.asarray(np.minimum(cells * (gain / 255), 1.0), np.float32)


def change(a: F32, b: F32) -> F32:
    """Return the difference between every pair of appearances.

    On a street clip, the difference of the same head one second later has a median of 9 and is below 28 in 95 % of the
    cases. The median between two heads is 37.

    Args:
        a: (N, A) float32.
        b: (M, A) float32.

    Returns:
        (N, M) float32, root mean square in 8-bit steps, of the values that both have; 0 if they have none in common.
    """
    if a.shape[1] == 0 or b.shape[1] == 0:
        return np.zeros((len(a), len(b)), np.float32)
    squares = (a[:, None] - b[None]) ** 2
    known = ~np.isnan(squares)
    total = np.where(known, squares, 0.0).sum(axis=2)
    return np.asarray(np.sqrt(total / np.maximum(known.sum(axis=2), 1)), np.float32)


def likeness(a: F32, b: F32) -> F32:
    """Return how alike the patterns of light of two heads are, whatever the brightness and contrast of the pictures.

    From one frame to the next it is above 0.88 for one person before a camera, mostly above 0.75 in a street; in cuts
    between photographs with the faces in the same place, 95 % of the values are below 0.75, half are below 0.37.

    Args:
        a: (N, A) float32; NaN where the head is outside the frame.
        b: (M, A) float32, likewise.

    Returns:
        (N, M) float32, correlation of the lightness of the cells that both have; 1 where it cannot be measured.
    """
    if a.shape[1] != SIZE or b.shape[1] != SIZE:
        return np.ones((len(a), len(b)), np.float32)
    light_a, light_b = a[:, None, ::3], b[None, :, ::3]
    known = ~np.isnan(light_a + light_b)
    number = np.maximum(known.sum(axis=2, keepdims=True), 1)
    x, y = (np.where(known, light, 0.0) for light in (light_a, light_b))
    x, y = (np.where(known, v - v.sum(axis=2, keepdims=True) / number, 0.0) for v in (x, y))
    energy = np.sqrt((x * x).sum(axis=2) * (y * y).sum(axis=2))
    found = (x * y).sum(axis=2) / np.maximum(energy, 1e-9)
    return np.where((known.sum(axis=2) >= MIN_CELLS) & (energy > 1.0), found, 1.0).astype(np.float32)


def _outside(window: Window, width: int, height: int) -> NDArray[np.bool_] | None:
    """Return which cells of a window have their middle outside a frame of this size, (GRID, GRID), or None for none."""
    if window.x >= 0 and window.y >= 0 and window.x + window.side <= width and window.y + window.side <= height:
        return None
    middles = [(k + 0.5) * window.side / GRID for k in range(GRID)]
    columns = [not 0 <= window.x + middle < width for middle in middles]
    rows = [not 0 <= window.y + middle < height for middle in middles]
    if not (any(columns) or any(rows)):
        return None
    return np.logical_or.outer(rows, columns)


def difference(a: F32, b: F32) -> F32:
    """Return how unlike two heads are, for recognizing a person who comes back.

    It is ``change``, but of the cells that both descriptions have, and without the color channels where a picture has
    no colors. They would halve the difference of any two people in it.

    Args:
        a: (N, SIZE) float32; NaN where the head is outside the frame.
        b: (M, SIZE) float32, likewise.

    Returns:
        (N, M) float32; infinite if the appearance was not measured, if the two share too few cells, or if one of them
        shows hardly anything.
    """
    if a.shape[1] != SIZE or b.shape[1] != SIZE:
        return np.full((len(a), len(b)), np.inf, np.float32)
    light = np.arange(SIZE) % 3 == 0
    colorless = np.minimum.outer(_spread(a[:, ~light]), _spread(b[:, ~light])) < COLORLESS
    contrast = np.minimum.outer(_spread(a[:, light]), _spread(b[:, light]))
    apart = a[:, None] - b[None]  # (N, M, SIZE)
    known = ~np.isnan(apart)
    apart = np.where(known, apart, 0.0)
    cells = known[..., light].sum(axis=2)
    squares = np.maximum(cells, 1)
    mean = apart[..., light].sum(axis=2) / squares
    of_light = (apart[..., light] ** 2).sum(axis=2) / squares - mean**2  # the light of the cells that both have
    of_colors = (apart[..., ~light] ** 2).sum(axis=2) / squares
    found = np.sqrt(np.maximum(np.where(colorless, of_light, (of_light + of_colors) / 3), 0.0))
    return np.where((cells >= MIN_CELLS) & (contrast >= MIN_CONTRAST), found, np.inf).astype(np.float32)


def _spread(values: F32) -> F32:
    """Return the standard deviation of the known values of each row, 0 if there are none."""
    known = ~np.isnan(values)
    number = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, values, 0.0).sum(axis=1) / number
    return np.asarray(np.sqrt((np.where(known, values - mean[:, None], 0.0) ** 2).sum(axis=1) / number), np.float32)
