"""MediaPipe's face detection networks (BlazeFace) without MediaPipe: what its graph does before and after the network.

The results are those of MediaPipe's Tasks detector, but boxes are not cut to whole px. Each step names the part of
MediaPipe that it follows (github.com/google-ai-edge/mediapipe). Knows networks by their protocol; must not know which
runtime runs them.

Source: Bazarevsky et al., BlazeFace, arXiv:1907.05047, for networks and weighted suppression.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from leaf_rt.backends.networks import Network
from leaf_rt.faces.search import ModelKind
from leaf_rt.types import F32, U8, Detections

SIDE: dict[ModelKind, int] = {"short": 128, "full": 192}  # of the input, px
# Cells of the grids, px of the input, and anchors per cell. All anchors are squares of size 1 in the center of a cell.
# From mediapipe/modules/face_detection/face_detection_{short,full}_range.pbtxt.
GRIDS: dict[ModelKind, tuple[tuple[int, int], ...]] = {"short": ((8, 2), (16, 6)), "full": ((4, 1),)}
MAX_OVERLAP = 0.3  # min_suppression_threshold; intersection over union above which two detections are of one face
MAX_BATCH = 8  # images per call; a photograph has up to 100 tiles, and a call with 8 needs about 100 MB


class BlazeFace:
    """One of the networks, run by any runtime; see ``DetectionModel``. May be used from several threads.

    Args:
        kind: ``short`` finds faces wider than about a tenth of the image, ``full`` finds smaller ones.
        network: Its outputs are ``boxes`` (N, A, 16) and ``scores`` (N, A, 1).
        min_confidence: Faces with a lower confidence are not reported.
    """

    def __init__(self, kind: ModelKind, network: Network, min_confidence: float = 0.4) -> None:
        self._side = self.close_up_side = SIDE[kind]
        self._anchors = anchors(kind)
        self._network = network
        share = min(max(min_confidence, 1e-6), 1.0 - 1e-6)
        self._min_logit = math.log(share / (1.0 - share))

    def find(self, images: Sequence[U8]) -> list[Detections]:
        """Find the faces in images, with one call of the network per ``MAX_BATCH``; see ``DetectionModel.find``."""
        parts = [images[start : start + MAX_BATCH] for start in range(0, len(images), MAX_BATCH)]
        return [found for part in parts for found in self._find(part)]

    def _find(self, images: Sequence[U8]) -> list[Detections]:
        inputs = np.empty((len(images), self._side, self._side, 3), np.uint8)
        for image, out in zip(images, inputs, strict=True):
            letterbox(image, out)
        boxes, scores = self._network(inputs)
        return [self._decode(*parts) for parts in zip(boxes, scores[..., 0], images, strict=True)]

    def close(self) -> None:
        """Nothing to do: the network belongs to the process."""

    def _decode(self, boxes: F32, logits: F32, image: U8) -> Detections:
        """Turn the answer for one image, (A, 16) and (A,), into faces in px of the image.

        After tensors_to_detections_calculator.cc; the values are x, y, width, height, and x, y of six keypoints. It
        cuts logits at 100 (score_clipping_thresh), where the confidence is 1 to the last bit anyway.
        """
        rows = (logits >= self._min_logit).nonzero()[0]
        if not len(rows):
            return Detections.empty()
        rows = rows[(-logits[rows]).argsort(kind="stable")]
        confidence: F32 = (1.0 / (1.0 + np.exp(-logits[rows].astype(np.float64)))).astype(np.float32)
        values = boxes[rows].reshape(-1, 8, 2) / np.float32(self._side)
        half = values[:, 1] / 2
        points = values + self._anchors[rows, None]  # (M, 8, 2), shares of the square: two corners, six keypoints
        np.add(points[:, 0], half, out=points[:, 1])
        points[:, 0] -= half
        if not (np.isfinite(points).all() and half.min() >= 0):
            valid = np.isfinite(points).all(axis=(1, 2)) & (half >= 0).all(axis=1)
            points, confidence = points[valid], confidence[valid]
        points, confidence = _merge(points, confidence)
        height, width = image.shape[:2]
        longer = max(height, width)
        # detection_projection_calculator.cc: out of the square, in whose middle the image lies
        points *= longer
        if width != height:
            points -= np.array([longer - width, longer - height], np.float32) / 2
        n = len(points)
        return Detections.unchecked(
            points[:, :2].reshape(n, 4), confidence, points[:, 2:], np.empty((n, 0), np.float32)
        )


def letterbox(image: U8, out: U8) -> None:
    """Fit an image into a square; what it does not cover becomes black.

    To the last bit what image_to_tensor_converter_opencv.cc computes: a bilinear sample per pixel with coordinates in
    steps of 1/32 px, without averaging. The upper left corner of an output pixel is sampled, not its center.

    Args:
        image: (H, W, 3) uint8.
        out: (side, side, 3) uint8, overwritten.
    """
    height, width = image.shape[:2]
    side = len(out)
    longer = max(height, width)
    step, rest = divmod(longer, side)
    if rest == 0 and (longer - height) % (2 * step) == 0 and (longer - width) % (2 * step) == 0:  # no mixed pixels
        part = image[::step, ::step]
        top, left = (side - len(part)) // 2, (side - part.shape[1]) // 2
        if part.shape != out.shape:
            out[:] = 0
        out[top : top + len(part), left : left + part.shape[1]] = part
        return
    cv2.remap(image, *_maps(height, width, side), cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_CONSTANT)


@functools.lru_cache(64)  # tiles of one frame have few sizes
def _maps(height: int, width: int, side: int) -> tuple[cv2.typing.MatLike, cv2.typing.MatLike]:
    """Return the fixed-point maps of ``cv2.remap`` for an image size.

    OpenCV's warpPerspective became more exact in version 4.11 (and MediaPipe contains an older one), so that its pixels
    differ by one step, and keypoints by up to 2 px of a large photograph. ``cv2.remap`` with such maps still does the
    old arithmetic.
    """
    longer = max(height, width)
    columns, rows = (
        np.rint((np.arange(side) * (longer / side) - (longer - length) / 2) * 32).astype(np.int64)
        for length in (width, height)
    )
    whole = np.stack(np.meshgrid(columns >> 5, rows >> 5), axis=-1).astype(np.int16)
    fraction = ((rows & 31)[:, None] * 32 + (columns & 31)).astype(np.uint16)
    return whole, fraction


@functools.cache
def anchors(kind: ModelKind) -> F32:
    """Return the centers of all anchors, (A, 2) float32, as shares of the input. After ssd_anchors_calculator.cc."""
    parts = []
    for stride, count in GRIDS[kind]:
        middle = (np.arange(SIDE[kind] // stride) + 0.5) * stride / SIDE[kind]
        centers = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
        parts.append(np.repeat(centers, count, axis=0))
    return np.concatenate(parts).astype(np.float32)


def _merge(points: F32, confidence: F32) -> tuple[F32, F32]:
    """Merge detections that overlap into their mean, weighted with the confidence.

    After WeightedNonMaxSuppression in non_max_suppression_calculator.cc.

    Args:
        points: (M, 8, 2), two corners and six keypoints, best first.
        confidence: (M,)

    Returns:
        (N, 8, 2) and (N,), the largest confidence of each.
    """
    if not len(points):
        return points, confidence
    low, high = points[:, 0], points[:, 1]
    size = high - low
    area = size[:, 0] * size[:, 1]
    sides = np.maximum(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0.0)
    shared = sides[..., 0] * sides[..., 1]
    same = shared > MAX_OVERLAP * (area[:, None] + area - shared)  # (M, M)
    np.fill_diagonal(same, True)  # a box without area overlaps nothing, not even itself
    flat = points.reshape(len(points), 16)
    merged, best = [], []
    left = np.arange(len(points))
    while len(left):
        first = left[0]
        belongs = same[first, left]
        group = left[belongs]
        weights = confidence[group]
        merged.append(weights @ flat[group] / weights.sum())
        best.append(first)
        left = left[~belongs]
    return np.array(merged).reshape(-1, 8, 2), confidence[best]
