"""Classifies crops: pictures of any size that show one face each."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import crop_faces, crop_plain, is_low_quality
from leaf_rt.models.calibration import Prior
from leaf_rt.recognition.images import MAX_ASPECT, ImageDetector, judge, with_border
from leaf_rt.types import F32, U8, Estimates


def classify_crops(
    crops: Sequence[U8],
    detector: ImageDetector | None,
    backend: Backend,
    uncertain_below: float | None,
    prior: Prior = "natural",
) -> tuple[Estimates, NDArray[np.bool_]]:
    """Classify one face per crop.

    Args:
        crops: (H, W, 3) uint8 BGR each, any size.
        detector: Finds the face to align. The largest face is used, or the whole crop if there is none.
            None: the crops are aligned already and are only resized.
        backend: Classifies them.
        uncertain_below: If the largest probability is below this, the label is "uncertain". None takes the threshold
            of the model.
        prior: How frequent the classes are taken to be; see ``Calibration.shares``.

    Returns:
        One row per crop, in order, boxes in px of the crop; and (N,) bool, whether a face was found in it.
    """
    spec, count = backend.spec, len(crops)
    faces = np.zeros((count, spec.side, spec.side, 3), np.uint8)
    boxes = np.array([[0, 0, crop.shape[1], crop.shape[0]] for crop in crops], np.float32).reshape(-1, 4)
    confidence = np.ones(count, np.float32)
    low_quality = np.full(count, detector is not None, np.bool_)
    detected = np.zeros(count, np.bool_)
    for row, crop in enumerate(crops):
        if detector is None:
            faces[row] = _resized(crop, spec.side)
            continue
        found = _largest_face(crop, detector)
        if found is None:
            faces[row], confidence[row] = crop_plain(crop, spec.side, spec.margin), 0.0
            continue
        boxes[row], confidence[row], keypoints = found
        faces[row] = crop_faces(crop, keypoints[None], spec.side, spec.margin)[0]
        low_quality[row] = is_low_quality(keypoints[None], faces[row : row + 1])[0]
        detected[row] = True
    probs, emotion, clear = judge(backend, faces, None, uncertain_below, prior)
    estimates = Estimates(
        timestamp=0.0,
        track_id=np.arange(1, count + 1, dtype=np.int64),
        xyxy=boxes,
        confidence=confidence,
        probs=probs,
        smoothed=probs,
        emotion=emotion,
        classified=np.ones(count, np.bool_),
        low_quality=low_quality,
        seen=boxes,
        quality=clear,
    )
    return estimates, detected


def _largest_face(crop: U8, detector: ImageDetector) -> tuple[F32, float, F32] | None:
    """Box (4,), confidence and keypoints (6, 2) of the largest face, in px of the crop."""
    shorter, longer = sorted(crop.shape[:2])
    if longer > MAX_ASPECT * shorter:
        return None
    found = with_border(crop, detector)
    if not len(found):
        return None
    size = found.xyxy[:, 2:] - found.xyxy[:, :2]
    row = int((size[:, 0] * size[:, 1]).argmax())
    return found.xyxy[row], float(found.confidence[row]), found.keypoints[row]


def _resized(crop: U8, side: int) -> U8:
    if crop.shape[:2] == (side, side):
        return crop
    shrinks = min(crop.shape[:2]) > side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (side, side), interpolation=method), dtype=np.uint8)
