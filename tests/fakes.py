"""Fakes for parts that are slow or need hardware. Each follows the protocol of the real part."""

from __future__ import annotations

import numpy as np

from leaf_rt.backends.base import Device
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import Detections, Frame, Prediction

SPEC = ModelSpec(
    labels=FERPLUS8,
    side=64,
    margin=0.05,
    color="grey",
    net_side=80,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    flip=False,
    feature_dim=4,
    precision="fp32",
    opset=20,
    sha256="0" * 64,
    training={},
    metrics={},
    licence="none",
)


def face_at(x: float, y: float, size: float = 60.0, confidence: float = 0.9) -> Detections:
    """One frontal face whose box has its corner at (x, y)."""
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.5, 0.8], [0.0, 0.5], [1.0, 0.5]], np.float32)
    return Detections(
        np.array([[x, y, x + size, y + size]], np.float32),
        np.array([confidence], np.float32),
        (points * size + (x, y)).astype(np.float32)[None],
        np.zeros((1, 0), np.float32),
    )


def join(*parts: Detections) -> Detections:
    """Detections of several faces in one."""
    return Detections(
        np.concatenate([p.xyxy for p in parts]),
        np.concatenate([p.confidence for p in parts]),
        np.concatenate([p.keypoints for p in parts]),
        np.concatenate([p.appearance for p in parts]),
    )


def frame(index: int, timestamp: float, generation: int = 0, value: int | None = None) -> Frame:
    """A 320x240 frame, noisy so that no face in it counts as blurred, or of one value."""
    image = np.random.default_rng(index).integers(0, 255, (240, 320, 3), np.uint8)
    if value is not None:
        image[:] = value
    return Frame(image, index, timestamp, "fake", generation)


class FakeDetector:
    """Returns the detections of a list, one entry per call; then none."""

    def __init__(self, script: list[Detections]) -> None:
        self.script = list(script)
        self.resets = 0
        self.closed = False
        self.lag = 0.0

    def detect(self, frame: Frame) -> Detections:
        return self.script.pop(0) if self.script else Detections.empty()

    def reduce_effort(self, level: int) -> float:
        return 1.0

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


class FakeBackend:
    """Answers every crop with class ``answer`` and remembers the batch sizes."""

    name = "fake"
    device: Device = "cpu"
    cropper = None
    reason = "a test"

    def __init__(self, answer: int = 1) -> None:
        self.spec = SPEC
        self.answer = answer
        self.batches: list[int] = []
        self.closed = False

    def infer(self, faces: np.ndarray) -> Prediction:
        self.batches.append(len(faces))
        probs = np.full((len(faces), len(FERPLUS8)), 0.01, np.float32)
        probs[:, self.answer] = 1 - 0.01 * (len(FERPLUS8) - 1)
        return Prediction(probs, np.zeros((len(faces), 4), np.float32))

    def close(self) -> None:
        self.closed = True
