"""MediaPipe's face detection models. The only module that imports mediapipe."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import cv2
import numpy as np

from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces.search import ModelKind
from leaf_rt.models.spec import DETECTORS
from leaf_rt.system.closing import Closing
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import U8, Detections


class MediaPipeDetector(Closing):
    """One bundled MediaPipe model; see ``DetectionModel``. Every image is independent of the others.

    Args:
        kind: ``short`` finds faces wider than about a tenth of the image, ``full`` finds smaller ones.
        min_confidence: Faces with a lower confidence are not reported.

    Raises:
        BackendError: MediaPipe cannot be loaded.
        ModelError: The bundled model is missing or damaged.
    """

    def __init__(self, kind: ModelKind, min_confidence: float = 0.4) -> None:
        data = _read_model(kind)
        mediapipe, vision = _import_mediapipe()
        self._mediapipe = mediapipe
        options = vision.FaceDetectorOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=data),
            running_mode=vision.RunningMode.IMAGE,
            min_detection_confidence=min_confidence,
        )
        with suppress_native_stderr():
            self._detector: Any = vision.FaceDetector.create_from_options(options)
            self.find(np.zeros((128, 128, 3), np.uint8))  # the first call writes log lines, too

    @staticmethod
    def check() -> None:
        """Check that MediaPipe and all bundled models can be loaded, without loading the models.

        Raises:
            BackendError: MediaPipe cannot be loaded.
            ModelError: A bundled model is missing or damaged.
        """
        _import_mediapipe()
        for kind in DETECTORS:
            _read_model(kind)

    def find(self, image: U8) -> Detections:
        """Find the faces in an image, (H, W, 3) uint8 BGR."""
        rgb = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        )
        with suppress_native_stderr():  # LiteRT may warn about unaligned memory at any call
            result = self._detector.detect(rgb)
        return _to_detections(result.detections, image.shape[1], image.shape[0])

    def close(self) -> None:
        """Free the model."""
        with suppress_native_stderr():
            self._detector.close()


def _import_mediapipe() -> tuple[Any, Any]:
    """Import mediapipe and mediapipe.tasks.python.vision."""
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:  # OSError: a system library is missing
        raise BackendError(
            f"MediaPipe, which detects the faces, cannot be loaded ({error}); reinstall it with: "
            "pip install --force-reinstall mediapipe"
        ) from error
    return mediapipe, vision


def _read_model(kind: str) -> bytes:
    """Read a bundled model and check its hash."""
    name, sha256 = DETECTORS[kind]
    path = resources.files("leaf_rt") / "models" / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The face detector {path} cannot be read ({error.strerror}); install leaf-rt again."
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"The face detector {path} is damaged (its SHA-256 is wrong); install leaf-rt again.")
    return data


def _to_detections(detections: list[Any], width: int, height: int) -> Detections:
    """Convert MediaPipe's detections to px of the image; drop those that are not finite or have no size."""
    n = len(detections)
    xyxy = np.zeros((n, 4), np.float32)
    confidence = np.zeros(n, np.float32)
    keypoints = np.zeros((n, 6, 2), np.float32)
    for i, detection in enumerate(detections):
        box = detection.bounding_box
        xyxy[i] = (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
        confidence[i] = detection.categories[0].score
        keypoints[i] = [(p.x * width, p.y * height) for p in detection.keypoints]
    # MediaPipe sets a negative corner to 0 but keeps width and height. This shifts the box of a face that the left or
    # upper border cuts off. The true center is the mean of eyes, nose and mouth.
    size = xyxy[:, 2:] - xyxy[:, :2]
    corner = np.minimum(keypoints[:, :4].mean(axis=1) - size / 2, 0.0)
    xyxy[:, :2] = np.where(xyxy[:, :2] == 0.0, corner, xyxy[:, :2])
    xyxy[:, 2:] = xyxy[:, :2] + size
    valid = np.isfinite(xyxy).all(1) & np.isfinite(keypoints).all((1, 2)) & (size > 0).all(1)
    return Detections(xyxy, confidence, keypoints, np.zeros((n, 0), np.float32))[valid]
