"""Head pose from the six keypoints of the detector. Knows the shape of an average head. Does not know pictures.

The keypoints are fitted to six points of an average head under scaled orthographic projection. The solution by least
squares is closed: a product with a fixed matrix, then the nearest rotation by a singular value decomposition. The
camera need not be known, but a wide-angle camera close to the face makes the error larger.
"""

from __future__ import annotations

import numpy as np

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
    yaw = np.arctan2(-top[:, 0, 2], third[:, 2])
    pitch = np.arcsin(np.clip(top[:, 1, 2], -1.0, 1.0))
    roll = np.arctan2(top[:, 1, 0], top[:, 1, 1])
    angles = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    angles[~valid] = np.nan
    return np.asarray(angles, np.float32)
