"""How a head looks from afar, to tell two people in the same place apart: colours on a coarse grid, nothing finer.

Good for seconds within one video, not for recognising anybody: it holds hair, skin and collar, and any change of
clothes or light makes it another. It lives and dies with its track and is never stored. Knows pixels, not tracks.
"""

from __future__ import annotations

import cv2
import numpy as np

from leaf_rt.faces.regions import Window
from leaf_rt.types import F32, U8

GRID = 8  # cells in a row and in a column
REACH = 1.8  # side of the grid over the width of the face: the whole head
CHROMA = 2.0  # weight of the colour channels; they vary less than lightness and say more
SIZE = GRID * GRID * 3  # numbers per face


def describe(frame: U8, xyxy: F32) -> F32:
    """The appearance of faces.

    Args:
        frame: (H, W, 3) uint8, BGR.
        xyxy: (N, 4) float32, px.

    Returns:
        (N, SIZE) float32: CIE L*a*b* in OpenCV's 8-bit steps on the grid; mean lightness 0, so that a change of
        exposure changes little.
    """
    out = np.zeros((len(xyxy), GRID, GRID, 3), np.float32)
    for cells, box in zip(out, xyxy, strict=True):
        part = Window.around(box, factor=REACH).cut(frame)
        step = max(part.shape[0] // (4 * GRID), 1)
        small = cv2.resize(part[::step, ::step], (GRID, GRID), interpolation=cv2.INTER_AREA)
        cells[:] = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    out[..., 0] -= out[..., 0].mean(axis=(1, 2), keepdims=True)
    out[..., 1:] *= CHROMA
    return out.reshape(len(xyxy), SIZE)


def change(a: F32, b: F32) -> F32:
    """How different appearances (N, A) and (M, A) are, (N, M): root mean square, 8-bit steps; 0 where A is 0.

    On the street clip the same head a second later is at 9 (median) and under 28 (95 %), another one at 37 (median).
    """
    if a.shape[1] == 0 or b.shape[1] == 0:
        return np.zeros((len(a), len(b)), np.float32)
    return np.asarray(np.sqrt(((a[:, None] - b[None]) ** 2).mean(axis=2)), np.float32)
