"""Which runtime runs the detection networks: chosen once per process, by name or by a check on a stored picture.

``auto`` takes the first runtime of the CPU that finds in the picture what MediaPipe finds there. PyTorch is used only
when it is asked for by name: whether a GPU is faster is not measured yet. So is MediaPipe: it sends usage statistics.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np

from leaf_rt.backends.networks import RUNTIMES, open_network, runtime_version
from leaf_rt.errors import BackendError, LeafError, ModelError
from leaf_rt.faces.blazeface import BlazeFace
from leaf_rt.faces.mediapipe_detector import NOTICE, MediaPipeDetector, check_mediapipe
from leaf_rt.faces.search import DetectionModel, ModelKind
from leaf_rt.models.detectors import DETECTOR_REFERENCE, DETECTORS, check_detector
from leaf_rt.text import counted
from leaf_rt.types import U8, Detections

DetectorName: TypeAlias = Literal["auto", "onnxruntime", "openvino", "torch", "mediapipe"]
MAX_BOX_ERROR = 1.0  # px of the picture
MAX_KEYPOINT_ERROR = 0.5  # px
MAX_CONFIDENCE_ERROR = 0.01

_TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """What runs the detection networks.

    Attributes:
        name: "onnxruntime", "openvino", "torch" or "mediapipe".
        reason: One sentence for users: the runtime, and why it was chosen.
        notes: What else users should know, one sentence each.
    """

    name: str
    reason: str
    notes: tuple[str, ...] = ()

    def open(self, kind: ModelKind, min_confidence: float = 0.4) -> DetectionModel:
        """Open a model. Those of a runtime share one network per process.

        Raises:
            BackendError: The runtime cannot be loaded.
            ModelError: The bundled model is missing or damaged.
        """
        if self.name == "mediapipe":
            return MediaPipeDetector(kind, min_confidence)
        return BlazeFace(kind, open_network(_network_file(kind), self.name), min_confidence)


def choose_detector(name: str = "auto") -> DetectorChoice:
    """Choose what runs the detection networks. ``auto`` decides once per process.

    Args:
        name: One of ``DetectorName``.

    Raises:
        BackendError: The name is unknown, the named one cannot run here, or none can.
        ModelError: A bundled model is missing or damaged.
    """
    names = get_args(DetectorName)
    if name not in names:
        raise BackendError(f"--detector {name}: unknown; choose one of {', '.join(names)}")
    if name == "mediapipe":
        return DetectorChoice(name, f"{check_mediapipe()}, requested with --detector", (NOTICE,))
    for kind in get_args(ModelKind):
        _network_file(kind)
    if name == "auto":
        return _automatic()
    network = open_network(_network_file("short"), name)
    where = "" if name in RUNTIMES else " on the GPU" if network.device == "cuda" else " on the CPU"
    return DetectorChoice(name, f"{_title(name)}{where}, requested with --detector")


@functools.cache  # a failure is not kept
def _automatic() -> DetectorChoice:
    failures: list[str] = []
    for name in RUNTIMES:
        try:
            check_answers(DetectorChoice(name, "").open)
        except ModelError:  # a damaged file is damaged for all runtimes
            raise
        except LeafError as e:
            failures.append(f"{name}: {e}")
            continue
        reason = f"{_title(name)}, gives the same answer as MediaPipe on a test picture"
        return DetectorChoice(name, reason, tuple(f"the face detector does not use {text}" for text in failures))
    raise BackendError(
        f"no runtime can run the face detector here ({'; '.join(failures)}); reinstall one with: "
        "pip install --force-reinstall onnxruntime"
    )


def check_answers(open_model: Callable[[ModelKind], DetectionModel]) -> None:
    """Compare what both models find in a stored picture, in a batch, with what MediaPipe finds there.

    Raises:
        BackendError: It differs.
        ModelError: The picture or a model is missing or damaged.
    """
    image, reference = load_reference()
    for kind in get_args(ModelKind):
        model = open_model(kind)
        try:
            first, blank, last = model.find([image, np.zeros_like(image), image])
        finally:
            model.close()
        problem = "it finds a face in a black picture" if len(blank) else None
        for found in (first, last):
            problem = problem or difference(found, reference[kind])
        if problem:
            raise BackendError(f"its answers differ from those of MediaPipe ({kind} range: {problem})")


def difference(found: Detections, reference: Detections) -> str | None:
    """Return how detections differ from those of MediaPipe, in words, or None if they are the same faces."""
    if len(found) != len(reference):
        return f"{counted(len(found), 'face')} instead of {len(reference)}"
    # MediaPipe cuts the corner and the size of a box to whole px.
    corner = np.floor(found.xyxy[:, :2])
    left = replace(found, xyxy=np.hstack([corner, corner + np.floor(found.xyxy[:, 2:] - found.xyxy[:, :2])]))
    for k in range(len(reference)):
        near = np.abs(left.xyxy - reference.xyxy[k]).max(axis=1)
        row = int(near.argmin())
        keypoints = float(np.abs(left.keypoints[row] - reference.keypoints[k]).max())
        confidence = float(abs(left.confidence[row] - reference.confidence[k]))
        # "not <=" is true of NaN, too.
        if not (near[row] <= MAX_BOX_ERROR and keypoints <= MAX_KEYPOINT_ERROR and confidence <= MAX_CONFIDENCE_ERROR):
            return f"box by {near[row]:.2f} px, keypoints by {keypoints:.2f} px, confidence by {confidence:.3f}"
        left = left[np.arange(len(left)) != row]
    return None


def load_reference() -> tuple[U8, dict[ModelKind, Detections]]:
    """Load the stored picture, and what MediaPipe finds in it with each model.

    Raises:
        ModelError: A file is missing or damaged.
    """
    picture = DETECTOR_REFERENCE.with_suffix(".png")
    image = cv2.imread(str(picture), cv2.IMREAD_COLOR) if picture.is_file() else None
    try:
        if image is None:
            raise ValueError
        stored = json.loads(DETECTOR_REFERENCE.read_text(encoding="utf-8"))
        answers = {
            kind: Detections(
                np.array(stored[kind]["xyxy"], np.float32),
                np.array(stored[kind]["confidence"], np.float32),
                np.array(stored[kind]["keypoints"], np.float32),
                np.zeros((len(stored[kind]["xyxy"]), 0), np.float32),
            )
            for kind in get_args(ModelKind)
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelError(
            f"{DETECTOR_REFERENCE}: the stored picture for the face detector or its description is missing or "
            "damaged; install leaf-rt again"
        ) from e
    return np.asarray(image, np.uint8), answers


def _network_file(kind: ModelKind) -> Path:
    return check_detector(DETECTORS[kind].onnx)


def _title(name: str) -> str:
    version = (runtime_version(name) or "").rpartition(" ")[2]
    return f"{_TITLES[name]} {version}".strip()
