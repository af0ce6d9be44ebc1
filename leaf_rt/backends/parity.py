"""Does an engine answer as its fp32 model does? Measured on crops of real faces that travel with the models.

Knows predictions and the stored crops; must not know any runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.errors import NotFound
from leaf_rt.models.spec import GOLDEN, GOLDEN_ROW, GOLDEN_SIDE
from leaf_rt.types import U8, Prediction

MIN_AGREEMENT = 0.995
MAX_DIFFERENCE = 0.02
MIN_COSINE = 0.999


@dataclass(frozen=True, slots=True)
class Parity:
    """How two predictions on the same faces differ.

    Attributes:
        faces: How many were compared.
        agreement: Share of equal labels.
        probs: Largest difference of a probability; NaN where an answer is no number.
        features: Largest difference of a feature.
        cosine: Smallest cosine between the features of a face.
    """

    faces: int
    agreement: float
    probs: float
    features: float
    cosine: float

    @property
    def ok(self) -> bool:
        """Whether an engine of lower precision may stand in for its fp32 model; never with NaN."""
        close = self.probs <= MAX_DIFFERENCE and self.cosine >= MIN_COSINE
        return self.agreement >= MIN_AGREEMENT and close

    def __str__(self) -> str:
        return (
            f"{self.agreement:.2%} equal labels, probabilities differ by at most {self.probs:.1e}, features by a "
            f"cosine of {self.cosine:.4f}"
        )


def compare(reference: Prediction, other: Prediction) -> Parity:
    """Compare predictions on the same faces, at least one.

    Raises:
        ValueError: The shapes differ.
    """
    if reference.probs.shape != other.probs.shape or reference.features.shape != other.features.shape:
        raise ValueError(f"parity: wanted probs {reference.probs.shape}, got {other.probs.shape}")
    a, b = reference.features.astype(np.float64), other.features.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(lengths, 1e-12)
    return Parity(
        faces=len(reference.probs),
        agreement=float((reference.probs.argmax(1) == other.probs.argmax(1)).mean()),
        probs=float(np.abs(reference.probs - other.probs).max()),
        features=float(np.abs(a - b).max()),
        cosine=float(cosine.min()),
    )


def golden_faces(side: int, path: Path = GOLDEN) -> U8:
    """The stored crops, (256, side, side, 3) uint8 BGR.

    Raises:
        NotFound: They are missing or damaged.
    """
    mosaic = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    edge = GOLDEN_ROW * GOLDEN_SIDE
    if mosaic is None or mosaic.shape != (edge, edge, 3):
        raise NotFound(f"{path}: the stored crops are missing or damaged; install leaf-rt again")
    tiles = mosaic.reshape(GOLDEN_ROW, GOLDEN_SIDE, GOLDEN_ROW, GOLDEN_SIDE, 3).transpose(0, 2, 1, 3, 4)
    faces = tiles.reshape(-1, GOLDEN_SIDE, GOLDEN_SIDE, 3)
    if side != GOLDEN_SIDE:
        faces = np.stack([cv2.resize(face, (side, side), interpolation=cv2.INTER_LINEAR) for face in faces])
    return np.ascontiguousarray(faces, np.uint8)
