"""MediaPipe's face landmarks, blendshapes and head pose, without MediaPipe: what its graph does around the networks.

The networks are those of a ``face_landmarker.task`` that the user gives. The results are those of MediaPipe's Face
Landmarker in its mode for images, for the same face box. Each step names the part of MediaPipe that it follows
(github.com/google-ai-edge/mediapipe). Knows pictures and faces; must not know tracks.
"""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leaf_rt.backends.tflite import TfliteNetwork
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces.alignment import LEFT_EYE, RIGHT_EYE
from leaf_rt.faces.pose import landmark_pose
from leaf_rt.labels import BLENDSHAPES
from leaf_rt.models.landmarks import read_landmark_files, unusable
from leaf_rt.types import F32, U8

# SHA-256 of the file of 2023, which is known to be whole.
_KNOWN = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
_LONGEST = 120.0  # s; a load takes less than 1
POINTS = 478  # landmarks of a face; the last ten are those of the irises
SIDE = 256  # px of the network's input
REACH = 1.5  # side of the input / side of the face box
MIN_PRESENCE = 0.5  # below this there is no face; min_face_presence_confidence

# The landmarks that the network of the blendshapes takes, from face_blendshapes_graph.cc.
FOR_BLENDSHAPES = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154,
    155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321,
    323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387,
    388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """What the networks find in N faces. A row is NaN where they see no face.

    Attributes:
        points: (N, POINTS, 3) float32, px; z grows away from the camera, with the scale of x.
        blendshapes: (N, len(BLENDSHAPES)) float32, 0 to 1.
        pose: (N, 3) float32, degrees; see ``leaf_rt.faces.pose.landmark_pose``.
    """

    points: F32
    blendshapes: F32
    pose: F32


class FaceLandmarker:
    """Finds the landmarks of detected faces. May be used from several threads.

    Args:
        path: MediaPipe's ``face_landmarker.task``.

    Raises:
        NotFound, NoPermission: The file cannot be opened.
        ModelError: It is another file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        files = read_landmark_files(path)
        self._face, self._weights = files.face, files.weights
        try:
            self._find = TfliteNetwork(files.landmarks)
            self._shapes = TfliteNetwork(files.blendshapes)
            points, presence, *_ = self._find(np.zeros((1, SIDE, SIDE, 3), np.float32))
            (shapes,) = self._shapes(np.zeros((1, len(FOR_BLENDSHAPES), 2), np.float32))
        except (ModelError, BackendError, ValueError) as e:
            raise unusable(path, "its networks cannot be run") from e
        sizes = (points.size, presence.size, shapes.size, len(self._face))
        if sizes != (POINTS * 3, 1, len(BLENDSHAPES) + 1, POINTS - 10):
            raise unusable(path, f"its networks answer with {sizes} values")

    def measure(self, image: U8, xyxy: F32, keypoints: F32) -> Landmarks:
        """Find the landmarks of faces, one face after the other.

        Args:
            image: (H, W, 3) uint8 BGR.
            xyxy: (N, 4) float32, px, their boxes.
            keypoints: (N, 6, 2) float32, px; see ``Detections``.
        """
        found = Landmarks(
            np.full((len(xyxy), POINTS, 3), np.nan, np.float32),
            np.full((len(xyxy), len(BLENDSHAPES)), np.nan, np.float32),
            np.full((len(xyxy), 3), np.nan, np.float32),
        )
        height, width = image.shape[:2]
        for row, matrix in enumerate(_regions(xyxy, keypoints)):
            points = self._points(image, matrix) if np.isfinite(matrix).all() else None
            if points is None:
                continue
            (shapes,) = self._shapes(points[None, FOR_BLENDSHAPES, :2].astype(np.float32))
            found.points[row] = points
            found.blendshapes[row] = np.clip(shapes.ravel()[1:], 0.0, 1.0)
            found.pose[row] = landmark_pose(points[: len(self._face)], self._face, self._weights, width, height)
        return found

    def _points(self, image: U8, matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the landmarks of the face in a region, (POINTS, 3) px of the image, or None if there is no face.

        After image_to_tensor_converter_opencv.cc and landmark_projection_calculator.cc.
        """
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        raw, presence, *_ = self._find(crop[None, :, :, ::-1].astype(np.float32) / np.float32(255))
        if not float(presence.ravel()[0]) >= math.log(MIN_PRESENCE / (1 - MIN_PRESENCE)) or not np.isfinite(raw).all():
            return None
        points = raw.reshape(POINTS, 3).astype(np.float64)
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] *= math.hypot(*matrix[:, 0])
        return points


@functools.lru_cache(maxsize=2)
def open_landmarker(path: Path) -> FaceLandmarker:
    """Load the file, or return what this process has loaded before; all sources share it. Raises as the class."""
    if read_landmark_files(path).sha256 != _KNOWN:
        _try_in_another_process(path)
    return FaceLandmarker(path)


def _try_in_another_process(path: Path) -> None:
    """Load a file that nobody has tried, where a damaged network that ends OpenCV ends nothing else.

    Raises:
        ModelError: It does. What Python can report is left to the load that follows.
    """
    code = f"import sys, pathlib; from {__name__} import FaceLandmarker; FaceLandmarker(pathlib.Path(sys.argv[1]))"
    try:
        tried = subprocess.run([sys.executable, "-c", code, path], capture_output=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired as e:
        raise unusable(path, "its networks take too long") from e
    if tried.returncode < 0:
        raise unusable(path, f"its networks end OpenCV by signal {-tried.returncode}")


def _regions(xyxy: F32, keypoints: F32) -> NDArray[np.float64]:
    """Return the affine matrices (N, 2, 3) from the network's input to the image: the boxes, turned with the eyes.

    After detections_to_rects_calculator.cc and rect_transformation_calculator.cc. The input shows ``REACH`` times the
    box.
    """
    eyes = keypoints[:, LEFT_EYE].astype(np.float64) - keypoints[:, RIGHT_EYE]
    angle = np.arctan2(eyes[:, 1], eyes[:, 0])
    columns, rows = np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)
    size = (xyxy[:, 2:].astype(np.float64) - xyxy[:, :2]) * REACH / SIDE
    linear = np.stack([columns * size[:, :1], rows * size[:, 1:]], axis=2)  # (N, 2, 2)
    middle = (xyxy[:, 2:].astype(np.float64) + xyxy[:, :2]) / 2
    return np.concatenate([linear, (middle - linear.sum(axis=2) * (SIDE / 2))[..., None]], axis=2)
