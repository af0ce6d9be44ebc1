"""Head pose from keypoints or landmarks. Knows the shape of an average head. Does not know pictures.

The six keypoints of the detector are fitted to six points of an average head under scaled orthographic projection. The
solution by least squares is closed: a product with a fixed matrix, then the nearest rotation by a singular value
decomposition. The camera need not be known, but a wide-angle camera close to the face makes the error larger.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from leaf_rt.types import F32

# Right eye, left eye, nose tip, mouth, right ear, left ear of an average head that looks into the camera, cm: x to the
# right of the picture, y down, z away from the camera.
HEAD = np.array(
    [
        [-3.15, -2.63, -3.60],
        [3.15, -2.63, -3.60],
        [0.0, 1.13, -7.48],
        [0.0, 4.20, -5.60],
        [-7.70, -1.00, 2.20],
        [7.70, -1.00, 2.20],
    ]
)  # (6, 3)

_CENTERED = HEAD - HEAD.mean(axis=0)
_FIT = np.linalg.pinv(_CENTERED).T  # (6, 3)

FIELD_OF_VIEW = 63.0  # degrees, vertical; MediaPipe assumes it of every camera
_UPRIGHT = np.diag([1.0, -1.0, -1.0])  # between y up, z to the camera, and y down, z away from it


def head_pose(keypoints: F32) -> F32:
    """Return where faces look.

    Args:
        keypoints: (N, 6, 2) float32, px; see ``Detections``.

    Returns:
        (N, 3) float32, degrees: yaw, positive if the face looks to the right of the picture; pitch, positive if it
        looks up; roll, positive if the head is tilted clockwise in the picture. NaN where the keypoints are not finite
        or all the same.
    """
    points = keypoints.astype(np.float64)
    points -= points.mean(axis=1, keepdims=True)
    affine = np.einsum("npi,pj->nij", points, _FIT)  # (N, 2, 3)
    valid = np.isfinite(affine).all(axis=(1, 2)) & (np.abs(affine).max(axis=(1, 2), initial=0.0) > 1e-9)
    affine[~valid] = np.eye(3)[:2]
    u, _, vt = np.linalg.svd(affine, full_matrices=False)
    top = u @ vt  # (N, 2, 3), the first two rows of the nearest rotation
    third = np.cross(top[:, 0], top[:, 1])
    angles = _angles(np.concatenate([top, third[:, None]], axis=1))
    angles[~valid] = np.nan
    return angles


def landmark_pose(
    points: NDArray[np.float64], face: NDArray[np.float64], weights: NDArray[np.float64], width: int, height: int
) -> F32:
    """Return where a face looks, from its landmarks.

    After geometry_pipeline.cc of MediaPipe: the landmarks are put into the space of a camera with the assumed field of
    view, and an average face is fitted to them.

    Args:
        points: (P, 3) float64, landmarks, px; z grows away from the camera.
        face: (P, 3) float64, the same of an average face, cm; y up, z to the camera.
        weights: (P,) float64, of the landmarks.
        width: Of the frame, px.
        height: Of the frame, px.

    Returns:
        (3,) float32, as ``head_pose``; NaN if the landmarks are not finite or all the same.
    """
    spread = np.ptp(points, axis=0)
    if not np.isfinite(spread).all() or spread[:2].max() < 1e-6:
        return np.full(3, np.nan, np.float32)
    side = 2.0 * math.tan(math.radians(FIELD_OF_VIEW / 2)) / height  # of a pixel, cm, at a distance of 1 cm
    screen = (points - (width / 2, height / 2, points[:, 2].mean())) * (side, -side, side)
    _, scale = _fit(face, screen * (1, 1, -1), weights)
    for _ in range(2):
        distance = screen[:, 2] / scale + 1.0 / scale
        space = np.stack([screen[:, 0] * distance, screen[:, 1] * distance, -distance], axis=1)
        rotation, more = _fit(face, space, weights)
        scale *= more
    return np.asarray(_angles((_UPRIGHT @ rotation @ _UPRIGHT)[None])[0], np.float32)


def _fit(
    source: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Fit rotation, scale and shift that map points to target points, (P, 3) each, with the least squared error.

    Source: Umeyama, IEEE TPAMI 13(4), 1991, with weights.

    Returns:
        Rotation (3, 3), and scale.
    """
    share = weights / weights.sum()
    a, b = source - share @ source, target - share @ target
    u, s, vt = np.linalg.svd((b * share[:, None]).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return (u * sign) @ vt, float((s * sign).sum() / (share @ (a**2).sum(axis=1)))


def _angles(rotations: NDArray[np.float64]) -> F32:
    """Return yaw, pitch and roll of rotations, (N, 3, 3), as (N, 3) float32, degrees."""
    yaw = np.arctan2(-rotations[:, 0, 2], rotations[:, 2, 2])
    pitch = np.arcsin(np.clip(rotations[:, 1, 2], -1.0, 1.0))
    roll = np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float32)
