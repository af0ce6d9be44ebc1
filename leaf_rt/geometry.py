"""Geometry of boxes. Depends on NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair of boxes.

    Args:
        a: (N, 4) float32, xyxy.
        b: (M, 4) float32, xyxy.

    Returns:
        (N, M) float32 in [0, 1].
    """
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    size = np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - top_left, 0.0)
    intersection = size[..., 0] * size[..., 1]
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, 1e-9), dtype=np.float32)


def same_face(a: NDArray[np.float32], b: NDArray[np.float32], min_iou: float = 0.3) -> NDArray[np.bool_]:
    """Tell for every pair of boxes whether both must show the same face.

    They do if they overlap, or if the center of one lies inside another that is clearly larger (a chin or an eye that
    was detected as a face).

    Args:
        a: (N, 4) float32, xyxy.
        b: (M, 4) float32, xyxy.
        min_iou: Intersection over union above which two boxes overlap.

    Returns:
        (N, M) bool.
    """
    if not (len(a) and len(b)):
        return np.zeros((len(a), len(b)), np.bool_)
    inside = []
    for small, large in ((a[:, None], b[None]), (b[None], a[:, None])):
        center = (small[..., :2] + small[..., 2:]) / 2
        contained = ((center > large[..., :2]) & (center < large[..., 2:])).all(-1)
        inside.append(contained & (small[..., 2] - small[..., 0] < 0.75 * (large[..., 2] - large[..., 0])))
    return np.asarray((iou(a, b) > min_iou) | inside[0] | inside[1], dtype=np.bool_)
