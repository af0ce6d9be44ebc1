"""MediaPipe's face detector, for comparisons. The only module that imports mediapipe, when a model is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from leaf_rt.errors import BackendError
from leaf_rt.faces.search import ModelKind
from leaf_rt.models.detectors import DETECTORS, check_detector
from leaf_rt.system.closing import Closing
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import U8, Detections

NOTICE = (
    "MediaPipe sends usage statistics to Google at every run, and asks you to get the consent of your users; "
    "the other detectors send nothing"
)


class MediaPipeDetector(Closing):
    """One bundled MediaPipe model; see ``DetectionModel``. Every image is independent of the others.

    Args:
        kind: ``short`` finds faces wider than about a tenth of the image, ``full`` finds smaller ones.
        min_confidence: Faces with a lower confidence are not reported.

    Raises:
        BackendError: MediaPipe cannot be loaded.
        ModelError: The bundled model is missing or damaged.
    """

    close_up_side = 256  # px; twice what the short-range network sees, because MediaPipe gives boxes in whole px

    def __init__(self, kind: ModelKind, min_confidence: float = 0.4) -> None:
        data = check_detector(DETECTORS[kind].tflite).read_bytes()
        mediapipe, vision = _import_mediapipe()
        self._mediapipe = mediapipe
        options = vision.FaceDetectorOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=data),
            running_mode=vision.RunningMode.IMAGE,
            min_detection_confidence=min_confidence,
        )
        with suppress_native_stderr():
            self._detector: Any = vision.FaceDetector.create_from_options(options)
            self._find(np.zeros((128, 128, 3), np.uint8))  # the first call writes log lines, too

    def find(self, images: Sequence[U8]) -> list[Detections]:
        """Find the faces in images, one after the other; see ``DetectionModel.find``."""
        return [self._find(image) for image in images]

    def _find(self, image: U8) -> Detections:
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


def check_mediapipe() -> str:
    """Check that MediaPipe and its models can be loaded, without loading the models; return its name and version.

    Raises:
        BackendError: MediaPipe cannot be loaded.
        ModelError: A bundled model is missing or damaged.
    """
    mediapipe, _ = _import_mediapipe()
    for files in DETECTORS.values():
        check_detector(files.tflite)
    return f"MediaPipe {mediapipe.__version__}"


def _import_mediapipe() -> tuple[Any, Any]:
    """Import mediapipe and mediapipe.tasks.python.vision."""
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:  # OSError: a system library is missing
        raise BackendError(
            f"--detector mediapipe: MediaPipe cannot be loaded ({error}); leave the option away, or install it with: "
            "pip install mediapipe"
        ) from error
    return mediapipe, vision


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
