"""Aligns faces: cuts them out of an image so that eyes and mouth have fixed positions.

The runtime, data preparation and the engines all use this module. Does not know detectors, models or files.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Order of the six keypoints of a detector. Left and right are as seen by the person.
RIGHT_EYE, LEFT_EYE, NOSE, MOUTH, RIGHT_EAR, LEFT_EAR = range(6)
ALIGN_POINTS = (RIGHT_EYE, LEFT_EYE, MOUTH)

# Positions of eyes and mouth in a crop of margin 0, as a share of its side: their mean in the FER2013 training images,
# made symmetric. So aligned crops show the same as those images (`leaf-rt prepare` prints the positions).
TEMPLATE: NDArray[np.float32] = np.array([[0.324, 0.388], [0.676, 0.388], [0.5, 0.772]], dtype=np.float32)

MIN_EYE_DISTANCE = 8.0  # px in the frame; a smaller face is enlarged more than 2.5 times for a 64 px crop
MAX_TURN = 0.45  # offset of the nose from the middle between the eyes / distance of the eyes
MIN_DETAIL = 0.2  # see _detail; 99 % of 4,000 aligned FER2013 images, which are 48 px wide, have more


@functools.cache
def template(side: int, margin: float = 0.0) -> NDArray[np.float32]:
    """Return the positions of right eye, left eye and mouth in a crop.

    Args:
        side: Side of the square crop, px.
        margin: Border added on every side, as a share of the side without it. 0.1 shows 20 % more in width and height.

    Returns:
        (3, 2) float32, x and y in px of the crop. Read-only.
    """
    points = np.asarray(((TEMPLATE - 0.5) / (1.0 + 2.0 * margin) + 0.5) * side, dtype=np.float32)
    points.flags.writeable = False  # it is made once for all callers
    return points


def similarity(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fit rotation, scale and shift that map points to target points, with the least squared error.

    Source: Umeyama, IEEE TPAMI 13(4), 1991; closed form for two dimensions, without reflection.

    Args:
        source: (N, K, 2) float32, K >= 2 points per face.
        target: (K, 2) float32, the target points.

    Returns:
        (N, 2, 3) float32, affine matrices from source to target. Not finite if all points of a face coincide.
    """
    middle, goal = source.mean(axis=1), target.mean(axis=0)  # (N, 2), (2,)
    a = source - middle[:, None]  # (N, K, 2)
    b = target - goal  # (K, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        norm = (a**2).sum(axis=(1, 2))  # (N,)
        cos = (a * b).sum(axis=(1, 2)) / norm
        sin = (a[..., 0] * b[:, 1] - a[..., 1] * b[:, 0]).sum(axis=1) / norm
    x, y = middle[:, 0], middle[:, 1]
    matrices = np.empty((len(source), 2, 3), np.float32)
    matrices[:, 0, 0] = matrices[:, 1, 1] = cos
    matrices[:, 0, 1], matrices[:, 1, 0] = -sin, sin
    matrices[:, 0, 2], matrices[:, 1, 2] = goal[0] - (cos * x - sin * y), goal[1] - (sin * x + cos * y)
    return matrices


def crop_faces(image: NDArray[np.uint8], keypoints: NDArray[np.float32], side: int, margin: float) -> NDArray[np.uint8]:
    """Cut aligned faces out of an image.

    If a face is more than twice as large as its crop, the image is first shrunk by area averaging to avoid aliasing.
    Outside the image, its border is repeated.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        keypoints: (N, 6, 2) float32, px. The center of the first pixel is at (0.5, 0.5).
        side: Side of the square crops, px.
        margin: See ``template``.

    Returns:
        (N, side, side) or (N, side, side, 3) uint8. A face whose points coincide gives zeros.
    """
    matrices = similarity(np.ascontiguousarray(keypoints[:, ALIGN_POINTS]), template(side, margin))
    crops = np.zeros((len(keypoints), side, side, *image.shape[2:]), dtype=np.uint8)
    for out, matrix in zip(crops, matrices, strict=True):
        if np.isfinite(matrix).all():
            _warp(image, matrix.astype(np.float64), out)
    return crops


def plain_matrix(height: int, width: int, side: int, margin: float) -> NDArray[np.float32]:
    """Return the affine matrix (2, 3) that fits a whole image into a crop, for face images without a detection."""
    scale = side / (max(height, width) * (1.0 + 2.0 * margin))
    return np.array([[scale, 0, side / 2 - scale * width / 2], [0, scale, side / 2 - scale * height / 2]], np.float32)


def crop_plain(image: NDArray[np.uint8], side: int, margin: float) -> NDArray[np.uint8]:
    """Fit a whole image into a crop, see ``plain_matrix``. Returns (side, side) or (side, side, 3) uint8."""
    out = np.zeros((side, side, *image.shape[2:]), dtype=np.uint8)
    _warp(image, plain_matrix(image.shape[0], image.shape[1], side, margin).astype(np.float64), out)
    return out


def shrink_by_area(
    matrix: NDArray[np.float64], side: int, height: int, width: int
) -> tuple[NDArray[np.float64], int, tuple[int, int], tuple[int, int]]:
    """Plan how an image is shrunk before it is warped: not at all, unless the face is twice as large as its crop.

    Only the part that the crop shows is shrunk, so that the cost does not depend on the size of the image.

    Args:
        matrix: (2, 3), from the image to the crop. Pixel centers are at half integers.
        side: Side of the crop, px.
        height: Of the image, px.
        width: Of the image, px.

    Returns:
        The matrix from the shrunk part to the crop, the side of the square blocks of pixels whose means it consists
        of, the first column and row of the part, and its number of blocks per row and column.
    """
    whole = matrix, 1, (0, 0), (width, height)
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale >= 0.5:
        return whole
    factor = int(1.0 / scale)
    low, size = [], []
    for (a, b, first), length in zip(cv2.invertAffineTransform(matrix).tolist(), (width, height), strict=True):
        corners = (first, first + a * side, first + b * side, first + (a + b) * side)
        low.append(max(math.floor(min(corners)) - factor, 0))
        size.append((min(math.ceil(max(corners)) + factor, length) - low[-1]) // factor)
    if min(size) < 2:
        return whole
    smaller = matrix.copy()
    smaller[:, 2] += matrix[:, :2] @ low
    smaller[:, :2] *= factor
    return smaller, factor, (low[0], low[1]), (size[0], size[1])


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], out: NDArray[np.uint8]) -> None:
    """Warp an image. Pixel centers are at half integers. For scales below 0.5, shrink by area averaging first."""
    side = out.shape[0]
    matrix, factor, (left, top), (columns, rows) = shrink_by_area(matrix, side, *image.shape[:2])
    if factor > 1:
        part = image[top : top + rows * factor, left : left + columns * factor]
        image = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # in OpenCV the center of the first pixel is at (0, 0)
    cv2.warpAffine(image, shifted, (side, side), dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def is_low_quality(keypoints: NDArray[np.float32], crops: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which faces are too small, turned too far or too blurred for a reliable result.

    Args:
        keypoints: (N, 6, 2) float32, px of the frame.
        crops: (N, side, side, 3) uint8, cut from the same frame.

    Returns:
        (N,) bool.
    """
    return np.array(
        [
            _is_small_or_turned(points) or _detail(crop) < MIN_DETAIL
            for points, crop in zip(keypoints.tolist(), crops, strict=True)
        ],
        np.bool_,
    )


def _is_small_or_turned(keypoints: list[list[float]]) -> bool:
    """Tell it from the six points of a face. Plain floats, as arrays of two numbers take ten times as long."""
    (right_x, right_y), (left_x, left_y), (nose_x, nose_y) = (keypoints[k] for k in (RIGHT_EYE, LEFT_EYE, NOSE))
    eyes_x, eyes_y = left_x - right_x, left_y - right_y
    distance = max(math.hypot(eyes_x, eyes_y), 1e-6)
    along = (nose_x - (left_x + right_x) / 2) * eyes_x + (nose_y - (left_y + right_y) / 2) * eyes_y
    turn = abs(along) / distance**2  # 0 is frontal; 0.5 means the nose is in front of one eye
    return distance < MIN_EYE_DISTANCE or turn > MAX_TURN


def _detail(crop: NDArray[np.uint8]) -> float:
    """Return the share of fine detail: standard deviation of the Laplacian / standard deviation of the crop."""
    gray = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    deviation, contrast = (cv2.meanStdDev(image)[1][0, 0] for image in (cv2.Laplacian(gray, cv2.CV_16S), gray))
    return float(deviation / max(contrast, 1.0))
