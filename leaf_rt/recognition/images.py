"""Recognition in a single image: detect, align, classify, without smoothing. Does not know files."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import crop_faces, is_low_quality
from leaf_rt.faces.pose import head_pose
from leaf_rt.types import U8, Detections, Estimates

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
    uncertain_below: float = 0.4,
    pose: bool = False,
) -> Estimates:
    """Find and classify all faces in an image.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: Finds the faces.
        backend: Classifies them.
        max_faces: Largest number of faces to report; the largest faces are kept. 0 sets no limit.
        uncertain_below: If the largest probability is below this, the emotion is "uncertain".
        pose: Whether to compute the head pose.

    Returns:
        One row per face from left to right, with track ids from 1. The timestamp is 0.
    """
    found = detector.detect(image)
    seen = found.xyxy
    size = found.xyxy[:, 2:] - found.xyxy[:, :2]
    largest = np.argsort(-(size[:, 0] * size[:, 1]), kind="stable")
    chosen = largest[:max_faces] if max_faces > 0 else largest
    found = found[chosen[np.argsort(found.xyxy[chosen, 0], kind="stable")]]
    spec = backend.spec
    crops = crop_faces(image, found.keypoints, spec.side, spec.margin)
    results = [backend.infer(crops[i : i + _BATCH_SIZE]).probs for i in range(0, len(crops), _BATCH_SIZE)]
    probs = np.concatenate([np.zeros((0, len(spec.labels)), np.float32), *results])
    best = probs.argmax(axis=1)
    is_certain = probs.max(axis=1, initial=0.0) >= uncertain_below
    return Estimates(
        timestamp=0.0,
        track_id=np.arange(1, len(found) + 1, dtype=np.int64),
        xyxy=found.xyxy,
        confidence=found.confidence,
        probs=probs,
        smoothed=probs,
        emotion=np.where(is_certain, best, -1).astype(np.int64),
        classified=np.ones(len(found), np.bool_),
        low_quality=np.asarray(is_low_quality(found.keypoints, crops), dtype=np.bool_),
        seen=seen,
        pose=head_pose(found.keypoints) if pose else np.zeros((len(found), 0), np.float32),
    )
