"""Parts of an image to search for faces: tiles, close-up windows, mosaics of windows. Does not know detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from leaf_rt.geometry import same_face
from leaf_rt.types import F32, U8, Detections

OVERLAP = 0.25  # of neighboring tiles, as a share of their side: a smaller face lies completely in one of them
TILE_SHARE = 0.34  # side of a tile / longer side of what it divides
MIN_TILE = 384  # px; faces that only smaller tiles would find are too small for an expression

WINDOW = 2.0  # side of a close-up window / width of its face
PHASE = 0.25  # where in a pixel of a close-up the frame is sampled; between MediaPipe's 0 (the corner) and the center
DRIFT = 0.15  # a window moves only when its face has moved or grown by this share, so still faces give still results

Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in px


def tiles(height: int, width: int, levels: int = 1) -> list[Region]:
    """Divide an image into overlapping square tiles, cut off at its borders.

    Args:
        height: Height of the image, px.
        width: Width of the image, px.
        levels: Number of tile sizes. Each is ``TILE_SHARE`` of the one before, but at least ``MIN_TILE``.

    Returns:
        The tiles, large ones first. Empty if the image is no larger than ``MIN_TILE``.
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
    """Return where the tiles along one side of an image begin, px."""
    count = max(1, math.ceil((length - OVERLAP * side) / ((1.0 - OVERLAP) * side)))
    return [round(s) for s in np.linspace(0.0, max(length - side, 0.0), count).tolist()]


@dataclass(frozen=True, slots=True)
class Window:
    """A square part of a frame around one face: upper left corner and side, px. May reach beyond the frame."""

    x: int
    y: int
    side: int

    @classmethod
    def around(cls, box: Sequence[float], previous: Window | None = None, factor: float = WINDOW) -> Window:
        """Return the window for a face.

        Args:
            box: x0, y0, x1, y1 of the face, px.
            previous: The last window of this face; it is returned if it still fits.
            factor: Side of the window / width of the box.
        """
        x0, y0, x1, y1 = box
        width = max(x1 - x0, 1.0)
        side = width * factor
        x, y = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
        if previous is not None:
            growth = abs(side - previous.side) / side
            offset = (side - previous.side) / 2
            drift = max(abs(x + offset - previous.x), abs(y + offset - previous.y)) / width
            if growth < DRIFT and drift < DRIFT:
                return previous
        return cls(round(x), round(y), max(round(side), 2))

    def draw(self, frame: U8, out: U8) -> None:
        """Draw the window into a square image, straight from the frame. Outside the frame, its border is repeated.

        Args:
            frame: (H, W, 3) uint8.
            out: (side, side, 3) uint8, overwritten.
        """
        scale = self.side / len(out)
        # In OpenCV the center of the first pixel is at (0, 0).
        shift_x, shift_y = self.x + PHASE * scale - 0.5, self.y + PHASE * scale - 0.5
        matrix = np.array([[scale, 0.0, shift_x], [0.0, scale, shift_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(frame, matrix, (len(out), len(out)), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def cut(self, frame: U8, step: int = 1) -> U8:
        """Return every ``step``-th pixel of the window. Outside the frame, its border is repeated.

        Returns:
            (S, S, 3) uint8, where S is the side divided by ``step``, rounded up. A view of the frame if it is inside.
        """
        height, width = frame.shape[:2]
        beyond = max(-self.x, -self.y, self.x + self.side - width, self.y + self.side - height)
        if beyond <= 0:
            return frame[self.y : self.y + self.side : step, self.x : self.x + self.side : step]
        if beyond >= self.side:  # completely outside
            count = -(-self.side // step)
            return np.zeros((count, count, 3), np.uint8)
        columns, rows = (
            np.minimum(np.maximum(np.arange(start, start + self.side, step), 0), length - 1)
            for start, length in ((self.x, width), (self.y, height))
        )
        picked: U8 = frame[rows][:, columns]
        return picked


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Close-ups of one to four places of a frame, side by side in one square image.

    Attributes:
        image: (side, side, 3) uint8 BGR.
        grid: Cells per row and per column, 1 or 2.
        windows: The windows that the cells show, row by row.
    """

    image: U8
    grid: int
    windows: list[Window]

    @classmethod
    def of(cls, frame: U8, windows: list[Window], side: int) -> Mosaic:
        """Cut one to four windows out of a frame, and put them into an image of ``side`` px."""
        grid = 1 if len(windows) == 1 else 2
        cell = side // grid
        image = np.zeros((side, side, 3), np.uint8)
        for k, window in enumerate(windows):
            y, x = (cell * c for c in divmod(k, grid))
            window.draw(frame, image[y : y + cell, x : x + cell])
        return cls(image, grid, windows)

    def split(self, found: Detections) -> list[Detections]:
        """Return the detections of each window, in px of the frame.

        Args:
            found: Detections in the mosaic, in px of its image.
        """
        cell = self.image.shape[0] // self.grid
        if self.grid == 1:
            cells = np.zeros(len(found), np.int64)
        else:
            columns, rows = (((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2) // cell).astype(np.int64).T
            cells = np.where((columns >= 0) & (columns < 2), 2 * rows + columns, -1)
        parts = []
        for k, window in enumerate(self.windows):
            part = found[cells == k] if self.grid > 1 else found
            row, column = divmod(k, self.grid)
            corner = np.array([window.x - column * window.side, window.y - row * window.side], np.float32)
            parts.append(transform(part, window.side / cell, corner))
        return parts


def transform(found: Detections, scale: float, shift: F32) -> Detections:
    """Multiply all coordinates by ``scale``, then add ``shift`` (2,), px."""
    if not len(found):
        return found
    corners = np.asarray(found.xyxy.reshape(-1, 2, 2) * scale + shift, np.float32)
    keypoints = np.asarray(found.keypoints * scale + shift, np.float32)
    return Detections.unchecked(corners.reshape(-1, 4), found.confidence, keypoints, found.appearance)


def concatenate(parts: list[Detections]) -> Detections:
    """Concatenate detections."""
    parts = [p for p in parts if len(p)]
    if len(parts) < 2:
        return parts[0] if parts else Detections.empty()
    return Detections.unchecked(
        np.concatenate([p.xyxy for p in parts]),
        np.concatenate([p.confidence for p in parts]),
        np.concatenate([p.keypoints for p in parts]),
        np.concatenate([p.appearance for p in parts]),
    )


def non_max_suppression(found: Detections, priority: F32 | None = None, min_iou: float = 0.3) -> list[int]:
    """Keep the best detection of every face.

    Args:
        found: N detections.
        priority: (N,) float32, larger is better. None takes the confidence.
        min_iou: See ``leaf_rt.geometry.same_face``.

    Returns:
        The rows to keep, best first.
    """
    if len(found) < 2:
        return list(range(len(found)))
    order = np.argsort(-(found.confidence if priority is None else priority), kind="stable").tolist()
    same = same_face(found.xyxy, found.xyxy, min_iou)
    kept: list[int] = []
    for i in order:
        if not same[i, kept].any():
            kept.append(i)
    return kept
