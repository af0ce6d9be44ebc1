"""Recognition in a single image: detect, align, classify, without smoothing. Does not know files."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from leaf_rt.backends.base import Backend, empty_prediction
from leaf_rt.faces.alignment import crop_faces, is_low_quality
from leaf_rt.faces.pose import head_pose
from leaf_rt.faces.quality import quality
from leaf_rt.models.calibration import Prior
from leaf_rt.recognition.answers import Answers
from leaf_rt.recognition.parts import Landmarker
from leaf_rt.types import F32, I64, U8, Detections, Estimates, Prediction

BORDER = 0.25  # of the longer side, on every side: the detector misses a face that fills the picture
GREY = 128  # of the border; it finds more faces than a border that repeats the edge
MAX_ASPECT = 10  # longer over shorter side; in a longer picture no face fits, and the border would need gigabytes
TIGHT_SIDE = 32  # px; a smaller picture is not looked at again
LOOK_SIDE = 512  # px, longer side of the picture that is looked at again
FILLS = 0.5  # of the shorter side of the picture; a face found only at the second look must be so large
_BATCH_SIZE = 32  # faces per call of the back end


class ImageDetector(Protocol):
    """Finds faces in single images. ``ImageFaceDetector`` implements it."""

    def detect(self, image: U8) -> Detections:
        """Find all faces in an image, (H, W, 3) uint8 BGR."""
        ...


def recognize_image(
    image: U8,
    detector: ImageDetector,
    backend: Backend,
    *,
    max_faces: int = 0,
    uncertain_below: float | None = None,
    pose: bool = False,
    landmarker: Landmarker | None = None,
    prior: Prior = "natural",
) -> Estimates:
    """Find and classify all faces in an image.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: Finds the faces.
        backend: Classifies them.
        max_faces: Largest number of faces to report; the largest faces are kept. 0 sets no limit.
        uncertain_below: If the largest probability is below this, the emotion is "uncertain". None takes the threshold
            of the model.
        pose: Whether to compute the head pose.
        landmarker: Finds blendshapes and the head pose. None leaves both to ``pose``.
        prior: How frequent the classes are taken to be; see ``Calibration.shares``.

    Returns:
        One row per face from left to right, with track ids from 1. The timestamp is 0.

    Raises:
        ModelError: See ``Calibration.shares``.
    """
    found = find_faces(image, detector)
    seen = found.xyxy
    size = found.xyxy[:, 2:] - found.xyxy[:, :2]
    largest = np.argsort(-(size[:, 0] * size[:, 1]), kind="stable")
    chosen = largest[:max_faces] if max_faces > 0 else largest
    found = found[chosen[np.argsort(found.xyxy[chosen, 0], kind="stable")]]
    spec = backend.spec
    crops = crop_faces(image, found.keypoints, spec.side, spec.margin)
    probs, emotion, clear = judge(backend, crops, found.confidence, uncertain_below, prior)
    angles = head_pose(found.keypoints) if pose else np.zeros((len(found), 0), np.float32)
    shapes = np.zeros((len(found), 0), np.float32)
    if landmarker is not None:
        measured = landmarker.measure(image, found.xyxy, found.keypoints)
        angles, shapes = measured.pose, measured.blendshapes
    return Estimates(
        timestamp=0.0,
        track_id=np.arange(1, len(found) + 1, dtype=np.int64),
        xyxy=found.xyxy,
        confidence=found.confidence,
        probs=probs,
        smoothed=probs,
        emotion=emotion,
        classified=np.ones(len(found), np.bool_),
        low_quality=np.asarray(is_low_quality(found.keypoints, crops), dtype=np.bool_),
        quality=clear,
        seen=seen,
        pose=angles,
        blendshapes=shapes,
    )


def judge(
    backend: Backend,
    crops: U8,
    confidence: F32 | None = None,
    uncertain_below: float | None = None,
    prior: Prior = "natural",
) -> tuple[F32, I64, F32]:
    """Classify aligned crops.

    Args:
        backend: Classifies them.
        crops: (N, side, side, 3) uint8 BGR.
        confidence: (N,) float32, of the face detection. None takes all of them for faces.
        uncertain_below: See ``recognize_image``.
        prior: See ``recognize_image``.

    Returns:
        Calibrated shares (N, C) float32; the label of each crop, (N,) int64, -1 for "uncertain"; and its quality, (N,)
        float32.

    Raises:
        ModelError: See ``Calibration.shares``.
    """
    model, empty = Answers(backend.spec, prior), empty_prediction(backend.spec)
    answers = [backend.infer(crops[i : i + _BATCH_SIZE]) for i in range(0, len(crops), _BATCH_SIZE)]
    raw, features = (
        np.concatenate([part, *(getattr(answer, name) for answer in answers)])
        for name, part in (("probs", empty.probs), ("features", empty.features))
    )
    evidence = None if confidence is None else model.calibration.evidence(features, confidence)
    probs, clear = model.judge(Prediction(raw, features), quality(crops), evidence)
    least = model.calibration.uncertain_below if uncertain_below is None else uncertain_below
    is_certain = probs.max(axis=1, initial=0.0) >= least
    return probs, np.where(is_certain, probs.argmax(axis=1), -1).astype(np.int64), clear


def find_faces(image: U8, detector: ImageDetector) -> Detections:
    """Find all faces in an image; if there is none, a single face that fills it.

    The detector misses a face that fills the image. So an image without a face is looked at again, shrunk and with a
    border; a face found there counts if it fills the image.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: Finds the faces.
    """
    found = detector.detect(image)
    height, width = image.shape[:2]
    shorter, longer = sorted((height, width))
    if len(found) or shorter < TIGHT_SIDE or longer > MAX_ASPECT * shorter:
        return found
    scale = min(1.0, LOOK_SIDE / longer)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = image if scale == 1.0 else np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = with_border(small, detector)
    fills = (found.xyxy[:, 2:] - found.xyxy[:, :2]).max(axis=1, initial=0.0) >= FILLS * min(size)
    factor = np.array([width / size[0], height / size[1]], np.float32)
    found = found[fills]
    return Detections(
        np.asarray(found.xyxy * np.tile(factor, 2), np.float32), found.confidence,
        np.asarray(found.keypoints * factor, np.float32), found.appearance,
    )  # fmt: skip


def with_border(image: U8, detector: ImageDetector) -> Detections:
    """Find the faces in an image that gets a border first, in px of the image without it.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: Finds the faces.
    """
    border = round(BORDER * max(image.shape[:2]))
    bordered = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    found = detector.detect(np.asarray(bordered, np.uint8))
    shift = np.float32(border)
    return Detections(found.xyxy - shift, found.confidence, found.keypoints - shift, found.appearance)
