"""Makes the bundled files of the face detector: ``python -m engines detectors``.

Knows the converter, and MediaPipe as the reference. Needed only when the converter or the networks change.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx

from engines.tflite_import import convert
from leaf_rt.errors import DataError
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.models.detectors import DETECTOR_REFERENCE, DETECTORS, check_detector
from leaf_rt.models.spec import MODELS, sha256_of
from leaf_rt.types import F32, U8

REFERENCE_WIDTH = 256  # px


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """What was made.

    Attributes:
        files: The files.
        sha256: Hash of each network by its range, for ``leaf_rt.models.detectors``.
    """

    files: tuple[Path, ...]
    sha256: dict[str, str]


def make_detectors(out: Path = MODELS, picture: Path | None = None) -> DetectorResult:
    """Convert both networks to ONNX and, given a picture, store what MediaPipe finds in it.

    Args:
        out: Folder for the files.
        picture: A picture with faces that may be redistributed; None keeps the stored one.

    Raises:
        BackendError: MediaPipe, which finds the reference, is not installed.
        DataError: The picture cannot be read, or MediaPipe finds no face in it.
        ModelError: An original is missing or damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    hashes, files = {}, []
    for kind, names in DETECTORS.items():
        path = out / names.onnx[0]
        onnx.save(convert(check_detector(names.tflite).read_bytes()), str(path))
        hashes[kind] = sha256_of(path)
        files.append(path)
    if picture is not None:
        files += _make_reference(picture, out / DETECTOR_REFERENCE.name)
    return DetectorResult(tuple(files), hashes)


def _make_reference(picture: Path, out: Path) -> list[Path]:
    """Store a picture, shrunk to ``REFERENCE_WIDTH``, and what MediaPipe finds in it."""
    image = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"detectors {picture}: cannot be read as a picture")
    size = (REFERENCE_WIDTH, round(image.shape[0] * REFERENCE_WIDTH / image.shape[1]))
    small: U8 = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    answers = {}
    for kind in ("short", "full"):
        with contextlib.closing(choose_detector("mediapipe").open(kind)) as model:
            (found,) = model.find([small])
        if not len(found):
            raise DataError(f"detectors {picture}: MediaPipe finds no face in it ({kind} range)")
        answers[kind] = {
            "xyxy": _rounded(found.xyxy, 3),
            "confidence": _rounded(found.confidence, 5),
            "keypoints": _rounded(found.keypoints, 3),
        }
    out.write_text(json.dumps(answers) + "\n", encoding="utf-8")
    cv2.imwrite(str(out.with_suffix(".png")), small, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return [out, out.with_suffix(".png")]


def _rounded(values: F32, digits: int) -> object:
    return np.round(values.astype(np.float64), digits).tolist()
