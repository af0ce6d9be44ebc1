"""The aligned faces of a video frame, cut where it costs least: on the device of the back end, or on the CPU.

Knows keypoints and the protocol of a ``Cropper``; must not know runtimes.
"""

from __future__ import annotations

import numpy as np

from leaf_rt.backends.base import Cropper
from leaf_rt.faces.alignment import ALIGN_POINTS, crop_faces, shrink_by_area, similarity, template
from leaf_rt.types import F32, U8

# A device needs about a millisecond for any faces of a frame: to copy it, and to start some 60 kernels. In that time a
# CPU core cuts faces of a million pixels, where each face counts PER_FACE more: `python -m experiments gpu --cpu`.
WORTHWHILE = 1_000_000  # px
PER_FACE = 150_000  # px


def cut_crops(image: U8, keypoints: F32, side: int, margin: float, cropper: Cropper | None) -> U8:
    """Cut aligned faces out of a frame.

    Args:
        image: (H, W, 3) uint8 BGR.
        keypoints: (N, 6, 2) float32, px.
        side: Side of the square crops, px.
        margin: See ``template``.
        cropper: Of the back end. It is used if there is enough to do.

    Returns:
        (N, side, side, 3) uint8 as of ``crop_faces``. Those of a cropper differ from it by at most one step of 255.

    Raises:
        BackendError: The device of the cropper failed.
    """
    if cropper is None or not len(keypoints):
        return crop_faces(image, keypoints, side, margin)
    plans, pixels = plan_crops(keypoints, side, margin, *image.shape[:2])
    if pixels + len(plans) * PER_FACE < WORTHWHILE:
        return crop_faces(image, keypoints, side, margin)
    crops = np.zeros((len(keypoints), side, side, 3), np.uint8)
    known = np.isfinite(plans).all(axis=1)
    crops[known] = cropper(image, plans[known], side)
    return crops


def plan_crops(keypoints: F32, side: int, margin: float, height: int, width: int) -> tuple[F32, int]:
    """Plan the crops of a frame.

    Args:
        keypoints: (N, 6, 2) float32, px.
        side: Side of the square crops, px.
        margin: See ``template``.
        height: Of the frame, px.
        width: Of the frame, px.

    Returns:
        Plans, (N, 11) float32; see ``Cropper``. A face whose points coincide has NaN. And the number of pixels that all
        crops are made of.
    """
    matrices = similarity(np.ascontiguousarray(keypoints[:, ALIGN_POINTS]), template(side, margin)).astype(np.float64)
    plans = np.full((len(matrices), 11), np.nan, np.float32)
    pixels = 0
    for plan, matrix in zip(plans, matrices, strict=True):
        if np.isfinite(matrix).all():
            blocks, factor, low, size = shrink_by_area(matrix, side, height, width)
            linear = np.linalg.inv(blocks[:, :2])
            # Pixel centers are at half integers in the matrices, and at integers in a plan.
            shift = linear @ (0.5 - blocks[:, 2]) - 0.5
            plan[:] = (*np.column_stack([linear, shift]).reshape(-1), factor, *low, *size)
            pixels += size[0] * size[1] * factor**2 if factor > 1 else side**2
    return plans, pixels
