"""Where to look for faces in a picture: tiles, close-up windows, mosaics of windows, and which finds are the same.

Geometry alone (numpy, OpenCV); must not know detectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from leaf_rt.types import F32, U8, Detections

OVERLAP = 0.25  # of neighbouring tiles, as a share of their side: a face smaller than this lies whole in one of them
TILE_SHARE = 0.34  # side of a tile over the longer side of what it divides
MIN_TILE = 384  # px; below, tiles show faces that are too small for an expression

WINDOW = 2.0  # side of a close-up window over the width of its face
DRIFT = 0.15  # a window stays where it is until its face moved or grew by this share: still faces give still answers

Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in px


def tiles(height: int, width: int, levels: int = 1) -> list[Region]:
    """Overlapping square tiles of a picture (cut off at its borders), coarse level first, without the whole picture.

    Args:
        height: px.
        width: px.
        levels: How many times the tiles get smaller by ``TILE_SHARE``, as long as they stay above ``MIN_TILE``.
    """
    regions: list[Region] = []
    side = float(max(height, width))
    for _ in range(levels):
        side = max(side * TILE_SHARE, MIN_TILE)
        if side < max(height, width):
            regions += [
                (x, y, min(x + int(side), width), min(y + int(side), height))
                for y in _starts(height, side)
                for x in _starts(width, side)
            ]
        if side == MIN_TILE:
            break
    return regions


def _starts(length: int, side: float) -> list[int]:
    count = max(1, math.ceil((length - OVERLAP * side) / ((1.0 - OVERLAP) * side)))
    return [round(s) for s in np.linspace(0.0, max(length - side, 0.0), count).tolist()]


@dataclass(frozen=True, slots=True)
class Window:
    """A square close-up of the frame round one face: upper left corner and side in whole px; may leave the frame."""

    x: int
    y: int
    side: int

    @classmethod
    def around(cls, xyxy: F32, previous: Window | None = None, factor: float = WINDOW) -> Window:
        """The window for a face box (4,), ``factor`` times as wide; the previous one where that still fits."""
        x0, y0, x1, y1 = xyxy.tolist()
        width = max(x1 - x0, 1.0)
        side = width * factor
        x, y = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
        if previous is not None:
            growth = abs(side - previous.side) / side
            middle = (side - previous.side) / 2
            drift = max(abs(x + middle - previous.x), abs(y + middle - previous.y)) / width
            if growth < DRIFT and drift < DRIFT:
                return previous
        return cls(round(x), round(y), max(round(side), 2))

    def cut(self, frame: U8) -> U8:
        """What it shows (side, side, 3); outside the frame its border is repeated."""
        height, width = frame.shape[:2]
        top, left = max(-self.y, 0), max(-self.x, 0)
        bottom, right = max(self.y + self.side - height, 0), max(self.x + self.side - width, 0)
        if max(top, bottom, left, right) >= self.side:  # all of it is outside
            return np.zeros((self.side, self.side, 3), np.uint8)
        part = frame[self.y + top : self.y + self.side - bottom, self.x + left : self.x + self.side - right]
        if top or bottom or left or right:
            part = np.asarray(cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)
        return part


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Close-ups of several places of a frame side by side in one square picture.

    Attributes:
        image: (side, side, 3) uint8 BGR.
        grid: Cells in a row and in a column.
        windows: What the cells show, row by row.
    """

    image: U8
    grid: int
    windows: list[Window]

    @classmethod
    def of(cls, frame: U8, windows: list[Window], side: int) -> Mosaic:
        """Cut one window, or two to four."""
        grid = 1 if len(windows) == 1 else 2
        cell = side // grid
        image = np.zeros((side, side, 3), np.uint8)
        for k, window in enumerate(windows):
            y, x = (cell * c for c in divmod(k, grid))
            cv2.resize(window.cut(frame), (cell, cell), dst=image[y : y + cell, x : x + cell])
        return cls(image, grid, windows)

    def split(self, found: Detections) -> list[Detections]:
        """What was found in the mosaic, for every window, in px of the frame."""
        cell = self.image.shape[0] // self.grid
        centres = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
        columns, rows = np.floor_divide(centres, cell).astype(np.int64).T
        parts = []
        for k, window in enumerate(self.windows):
            row, column = divmod(k, self.grid)
            scale = window.side / cell
            corner = np.array([window.x - column * window.side, window.y - row * window.side], np.float32)
            parts.append(moved(found[(rows == row) & (columns == column)], scale, corner))
        return parts


def moved(found: Detections, scale: float, shift: F32) -> Detections:
    """Detections times ``scale`` plus ``shift`` (2,) px."""
    xyxy = np.asarray(found.xyxy * scale + np.tile(shift, 2), np.float32)
    return replace(found, xyxy=xyxy, keypoints=np.asarray(found.keypoints * scale + shift, np.float32))


def join(parts: list[Detections]) -> Detections:
    """Detections one after another."""
    parts = [p for p in parts if len(p)]
    if not parts:
        return Detections.empty()
    return Detections(
        np.concatenate([p.xyxy for p in parts]),
        np.concatenate([p.confidence for p in parts]),
        np.concatenate([p.keypoints for p in parts]),
        np.concatenate([p.appearance for p in parts]),
    )


def iou(a: F32, b: F32) -> F32:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    size = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - top_left, 0.0, None)
    inter = size[..., 0] * size[..., 1]
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - inter
    return np.asarray(inter / np.maximum(union, 1e-9), dtype=np.float32)


def same_face(a: F32, b: F32, min_iou: float = 0.3) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which boxes (N, 4) and (M, 4) cannot both be faces: (N, M) bool.

    They overlap, or the centre of one lies inside another that is clearly larger (a chin or an eye taken for a face).
    """
    inside = []
    for small, large in ((a[:, None], b[None]), (b[None], a[:, None])):
        centre = (small[..., :2] + small[..., 2:]) / 2
        contained = ((centre > large[..., :2]) & (centre < large[..., 2:])).all(-1)
        inside.append(contained & (small[..., 2] - small[..., 0] < 0.75 * (large[..., 2] - large[..., 0])))
    return np.asarray((iou(a, b) > min_iou) | inside[0] | inside[1], dtype=np.bool_)


def suppress(found: Detections, priority: F32 | None = None, min_iou: float = 0.3) -> list[int]:
    """Rows that remain when of every group of boxes on the same face the best is kept, best first.

    Args:
        found: N detections.
        priority: (N,) float32, larger is better; the confidence where None.
        min_iou: See ``same_face``.
    """
    order = np.argsort(-(found.confidence if priority is None else priority), kind="stable").tolist()
    same = same_face(found.xyxy, found.xyxy, min_iou)
    kept: list[int] = []
    for i in order:
        if not same[i, kept].any():
            kept.append(i)
    return kept
