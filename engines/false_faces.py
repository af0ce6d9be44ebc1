"""Finds what the face detector takes for faces in pictures and clips, and fits how to tell it from faces.

The detector looks at random parts of each picture that show none of its faces, and its doubtful answers there are
kept. Knows pictures, detectors and features; must not know models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.geometry import iou
from leaf_rt.types import F32, U8

SUFFIXES = (".jpg", ".jpeg", ".png", ".mp4", ".mov")
LONGEST = 1600  # px; larger pictures are shrunk
CLIP_STEP = 30  # frames of a clip between two that are looked at
LARGEST_CLIP = 5  # frames per clip
PARTS = 150  # random parts per picture
DOUBTFUL = 0.25  # confidence from which an answer of the detector is kept
RIDGE = 3.0
MISSED = 0.005  # share of the clear faces whose score may be that of something else


def find_false_faces(folder: Path, side: int, margin: float, seed: int = 0) -> U8:
    """Cut out what looks a little like a face, but is none.

    Args:
        folder: Pictures and clips; everything that the detector surely takes for a face in them must be one.
        side: Of the crops, px.
        margin: See ``leaf_rt.faces.alignment.template``.
        seed: Of the random parts.

    Returns:
        (N, side, side, 3) uint8 BGR.

    Raises:
        DataError: The folder shows no such thing.
    """
    random = np.random.default_rng(seed)
    crops: list[U8] = []
    near = choose_detector().open("short", DOUBTFUL)
    try:
        with ImageFaceDetector(min_confidence=0.45) as detector:
            for image in (image for path in sorted(folder.iterdir()) for image in pictures_of(path)):
                faces, (height, width) = detector.detect(image).xyxy, image.shape[:2]
                for _ in range(PARTS):
                    edge = int(random.integers(30, max(31, min(height, width) // 2)))
                    x, y = int(random.integers(0, width - edge)), int(random.integers(0, height - edge))
                    around = np.array([[x - 0.2 * edge, y - 0.2 * edge, x + 1.2 * edge, y + 1.2 * edge]], np.float32)
                    if len(faces) and iou(around, faces).max() > 0:
                        continue
                    part = np.asarray(cv2.resize(image[y : y + edge, x : x + edge], (128, 128)), np.uint8)
                    keypoints = near.find([part])[0].keypoints * np.float32(edge / 128) + np.array([x, y], np.float32)
                    crops += list(crop_faces(image, np.asarray(keypoints, np.float32), side, margin))
    finally:
        near.close()
    if not crops:
        raise DataError(f"--backgrounds {folder}: shows nothing that looks like a face; give a folder of pictures")
    return np.stack(crops)


def fit_face_score(faces: F32, clear: F32, others: F32) -> tuple[float, ...]:
    """Fit a linear score of features that is positive for faces, by ridge regression.

    Args:
        faces: (N, D) float32, features of faces, poor pictures included.
        clear: (M, D) float32, features of clear faces, for the threshold.
        others: (K, D) float32, features of other things. They count as much as the faces.

    Returns:
        D weights, and the number to add.
    """
    x = np.concatenate([faces, others]).astype(np.float64)
    target = np.concatenate([np.ones(len(faces)), -np.ones(len(others))])
    weight = np.concatenate([np.ones(len(faces)), np.full(len(others), len(faces) / len(others))])
    mean = faces.mean(0).astype(np.float64)
    a = np.concatenate([x - mean, np.ones((len(x), 1))], axis=1)
    left = (a * weight[:, None]).T @ a + RIDGE * np.eye(a.shape[1])
    w = np.linalg.solve(left, (a * weight[:, None]).T @ target)[:-1]
    offset = -float(np.quantile(clear @ w, MISSED))
    return (*(float(f"{value:.4g}") for value in w), round(offset, 5))


def pictures_of(path: Path) -> Iterator[U8]:
    """A picture, or some frames of a clip, (H, W, 3) uint8 BGR, shrunk if they are large; nothing for other files."""
    if path.suffix.lower() in (".mp4", ".mov"):
        yield from _frames(path)
    elif path.suffix.lower() in SUFFIXES:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None:
            yield _shrunk(np.asarray(image, np.uint8))


def _frames(path: Path) -> Iterator[U8]:
    import av

    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= CLIP_STEP * LARGEST_CLIP:
                return
            if number % CLIP_STEP == 0:
                yield _shrunk(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))


def _shrunk(image: U8) -> U8:
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
