"""How much a picture of a face can tell: a quality from 0 to 1.

The measures are computed from the aligned crop, so that a face that is small in the frame counts as blurred. The
weights are fitted by ``python -m engines calibrate`` and lie in ``leaf_rt/models/face_quality.json``. Does not know
detectors, networks or expressions.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from leaf_rt.models.quality import QualityWeights, load_weights
from leaf_rt.types import F32, U8

SIDE = 64  # px, at which crops are measured
MEASURES = ("detail", "light", "contrast", "noise", "coarse detail", "contrast of the eyes", "contrast of the mouth")
LARGEST = 3.0  # standard deviations; what lies further off counts as this
_EYES, _MOUTH = (slice(16, 34), slice(8, 56)), (slice(42, 58), slice(14, 50))  # rows and columns of an aligned crop
_SMOOTH = cv2.getGaussianKernel(9, 1.5, cv2.CV_32F)  # GaussianBlur computes the same in three times the time
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer, CVIU 64(2), 1996


def measure(crops: U8) -> F32:
    """Measure aligned crops.

    Args:
        crops: (N, side, side, 3) uint8 BGR.

    Returns:
        (N, 7) float32, logarithms of ``MEASURES``. Details, noise and the last two are shares of the contrast.
    """
    return np.array([_measured(crop) for crop in crops], np.float32).reshape(len(crops), len(MEASURES))


def quality(crops: U8) -> F32:
    """Judge pictures of faces.

    Args:
        crops: (N, side, side, 3) uint8 BGR, aligned.

    Returns:
        (N,) float32 from 0 (tells nothing) to 1 (as good as a clear picture).
    """
    return quality_of(measure(crops), load_weights())


def quality_of(measured: F32, weights: QualityWeights) -> F32:
    """Quality of measured crops, (N,) float32; see ``quality``."""
    return np.asarray(
        np.exp(np.minimum(terms(measured, weights) @ weights.clear + weights.clear_offset, 0.0)), np.float32
    )


def terms(measured: F32, weights: QualityWeights) -> F32:
    """The measures as standard deviations from their mean, and their squares, (N, 14) float32."""
    z = np.clip((measured - weights.mean) / weights.std, -LARGEST, LARGEST)
    return np.concatenate([z, z * z], axis=1).astype(np.float32)


def _measured(crop: U8) -> list[float]:
    gray = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    if gray.shape != (SIDE, SIDE):
        gray = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    light, contrast = (float(value[0, 0]) for value in cv2.meanStdDev(gray))
    contrast = max(contrast, 1.0)
    noise = cv2.norm(cv2.filter2D(gray, cv2.CV_16S, _NOISE), cv2.NORM_L1) / gray.size
    smooth = cv2.sepFilter2D(gray, cv2.CV_8U, _SMOOTH, _SMOOTH)
    values = (
        _deviation(cv2.Laplacian(gray, cv2.CV_16S)) / contrast + 0.01,
        light + 5.0,
        contrast,
        noise / contrast + 0.003,
        _deviation(cv2.Laplacian(smooth, cv2.CV_16S)) / contrast + 0.01,
        _deviation(gray[_EYES]) / contrast + 0.05,
        _deviation(gray[_MOUTH]) / contrast + 0.05,
    )
    return [math.log(value) for value in values]


def _deviation(image: np.ndarray[Any, np.dtype[Any]]) -> float:
    return float(cv2.meanStdDev(image)[1][0, 0])
