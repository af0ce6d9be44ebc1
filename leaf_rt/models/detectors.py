"""The bundled networks of the face detector, and what they must find in a stored picture. Knows files and hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from leaf_rt.errors import ModelError
from leaf_rt.models.spec import MODELS

NameAndHash: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DetectorFiles:
    """One network in two formats: file name and sha256 of each.

    Attributes:
        onnx: For ONNX Runtime, OpenVINO and TensorRT; made by ``python -m engines detectors``.
        tflite: The original, for MediaPipe.
    """

    onnx: NameAndHash
    tflite: NameAndHash


# By the name of the range. The originals are from the mediapipe 0.10.21 wheel.
DETECTORS = {
    "short": DetectorFiles(
        onnx=(
            "face_detection_short_range.onnx",
            "c4ee3ea2e472f9d05c537269a0fbfb7c084f7886884f3a3ee9625fc83e79c65c",
        ),
        tflite=(
            "face_detection_short_range.tflite",
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
    ),
    "full": DetectorFiles(
        onnx=(
            "face_detection_full_range.onnx",
            "71d83390d472cc782c14c955217bc68018c9ec7758c840cb2b8146399d7bcd74",
        ),
        tflite=(
            "face_detection_full_range_sparse.tflite",
            "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ),
    ),
}
# What MediaPipe finds with each network in the picture beside it (.png), in px.
DETECTOR_REFERENCE = MODELS / "face_detection_reference.json"


def check_detector(file: NameAndHash) -> Path:
    """Return the path of a bundled network, after a check of its hash.

    Raises:
        ModelError: The file is missing or damaged.
    """
    name, sha256 = file
    path = MODELS / name
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"The face detector {path} cannot be read ({e.strerror}); install leaf-rt again.") from e
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"The face detector {path} is damaged (its SHA-256 is wrong); install leaf-rt again.")
    return path
