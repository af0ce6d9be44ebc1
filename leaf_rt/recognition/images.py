"""The faces of one still picture: found in tiles, cut, classified; no time, so no filter.

Knows the detector's and the back end's protocols; must not know files or terminals.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import crop_faces, is_low_quality
from leaf_rt.types import U8, Detections, Estimates

_BATCH = 32  # faces per call of the back end


class ImageDetector(Protocol):
    """Finds faces in images; ``leaf_rt.faces.image_detector.ImageFaceDetector`` is the real one."""

    def detect(self, image: U8) -> Detections:
        """The faces of a (H, W, 3) uint8 BGR picture, small ones included."""
        ...


def recognize_image(
    image: U8, detector: ImageDetector, backend: Backend, *, max_faces: int = 0, uncertain_below: float = 0.4
) -> Estimates:
    """Find and classify every face of a picture.

    Args:
        image: (H, W, 3) uint8 BGR.
        detector: Finds the faces.
        backend: Classifies them.
        max_faces: The largest faces alone; 0 sets no limit.
        uncertain_below: A leading probability below this is shown as "uncertain".

    Returns:
        One row per face, from left to right, numbered from 1; the time is 0.
    """
    found = detector.detect(image)
    seen = found.xyxy
    size = found.xyxy[:, 2:] - found.xyxy[:, :2]
    largest = np.argsort(-(size[:, 0] * size[:, 1]), kind="stable")
    chosen = largest[:max_faces] if max_faces > 0 else largest
    found = found[chosen[np.argsort(found.xyxy[chosen, 0], kind="stable")]]
    spec = backend.spec
    crops = crop_faces(image, found.keypoints, spec.side, spec.margin)
    answers = [backend.infer(crops[i : i + _BATCH]).probs for i in range(0, len(crops), _BATCH)]
    probs = np.concatenate([np.zeros((0, len(spec.labels)), np.float32), *answers])
    best = probs.argmax(axis=1)
    sure = probs.max(axis=1, initial=0.0) >= uncertain_below
    return Estimates(
        timestamp=0.0,
        track_id=np.arange(1, len(found) + 1, dtype=np.int64),
        xyxy=found.xyxy,
        confidence=found.confidence,
        probs=probs,
        smoothed=probs,
        emotion=np.where(sure, best, -1).astype(np.int64),
        classified=np.ones(len(found), np.bool_),
        low_quality=np.asarray(is_low_quality(found.keypoints, crops), dtype=np.bool_),
        seen=seen,
    )
