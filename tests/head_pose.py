"""Errors of the head pose: of projections of the average head, and on real pictures that are mirrored and turned.

python tests/head_pose.py [../shared/media]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.faces.pose import HEAD, head_pose

PICTURES = (
    "neutral.jpeg",
    "angry.jpg",
    "surprised.jpeg",
    "happy-baby.jpeg",
    "sad-baby.jpeg",
    "group.jpeg",
    "multi_face.jpg",
)


def projected(angles: np.ndarray, distance: float = 1e6, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return keypoints (N, 6, 2) of the average head.

    Args:
        angles: (N, 3), yaw, pitch and roll, degrees.
        distance: From the camera, cm.
        noise: Standard deviation of the keypoints, in distances of the eyes.
        seed: Of the noise.
    """
    out = []
    for yaw, pitch, roll in np.radians(angles):
        turn, nod, tilt = (cv2.Rodrigues(np.array(v))[0] for v in ([0, -yaw, 0], [-pitch, 0, 0], [0, 0, roll]))
        x, y, z = turn @ nod @ tilt @ HEAD.T
        out.append(np.stack([x, y], 1) * (100 * distance / (distance + z))[:, None])
    points = np.array(out) + np.random.default_rng(seed).normal(0, noise * 630, (len(out), 6, 2))
    return points.astype(np.float32)


def of_projections(distance: float, noise: float) -> np.ndarray:
    """Return the mean absolute error of yaw, pitch and roll of 2,000 heads, degrees."""
    angles = np.random.default_rng(1).uniform([-50, -30, -30], [50, 30, 30], (2000, 3))
    return np.abs(head_pose(projected(angles, distance, noise)) - angles).mean(axis=0)


def of_pictures(media: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return differences (N, 3) of the pose, degrees, after the pictures were mirrored, and after they were turned."""
    from leaf_rt.faces.image_detector import ImageFaceDetector

    mirrored, turned = [], []
    with ImageFaceDetector() as detector:
        for name in PICTURES:
            image = cv2.imread(str(media / name))
            scale = min(1.0, 800 / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            height, width = image.shape[:2]
            found = detector.detect(image).keypoints
            flip = np.array([[-1.0, 0, width - 1], [0, 1, 0]])
            turns = [(a, cv2.getRotationMatrix2D((width / 2, height / 2), -a, 1)) for a in (-20, -10, 10, 20)]
            for angle, matrix in [(None, flip), *turns]:
                points = detector.detect(cv2.warpAffine(image, matrix, (width, height))).keypoints
                for keypoints, pose in zip(found, head_pose(found), strict=True):
                    far = np.linalg.norm(points[:, 2] - matrix @ [*keypoints[2], 1], axis=1)
                    if far.min(initial=np.inf) > 30:
                        continue  # the face is outside the turned picture
                    now = head_pose(points[[far.argmin()]])[0]
                    if angle is None:
                        mirrored.append(now * [-1, 1, -1] - pose)
                    else:
                        turned.append(now - pose - [0, 0, angle])
    return np.array(mirrored), np.array(turned)


if __name__ == "__main__":
    lines = [f"camera at {d} cm, noise 2 %: {of_projections(d, 0.02).round(1)}" for d in (1e6, 60, 30)]
    if sys.argv[1:]:
        for what, errors in zip(("mirrored", "turned"), of_pictures(Path(sys.argv[1])), strict=True):
            lines.append(f"{what}, {len(errors)} faces: {np.abs(errors).mean(axis=0).round(1)}")
    sys.stdout.write("mean error of yaw, pitch, roll, degrees\n" + "\n".join(lines) + "\n")
