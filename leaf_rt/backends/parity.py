"""Compares predictions, to check that an engine answers like its fp32 model.

Also loads the crops of real faces, stored with the models, on which this is checked. Must not know any runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.errors import BackendError, ModelError, NotFound
from leaf_rt.models.spec import GOLDEN, GOLDEN_ROW, GOLDEN_SIDE, ModelSpec
from leaf_rt.types import U8, Prediction

MIN_AGREEMENT = 0.995
MAX_DIFFERENCE = 0.02
MIN_COSINE = 0.999
PROOF = 64  # stored crops that are enough where 256 take too long


@dataclass(frozen=True, slots=True)
class Parity:
    """How two predictions for the same faces differ.

    Attributes:
        faces: Number of faces.
        agreement: Share of equal labels, 0 to 1.
        probs: Largest difference of a probability; NaN if a prediction contains NaN.
        features: Largest difference of a feature.
        cosine: Smallest cosine similarity between the features of a face.
    """

    faces: int
    agreement: float
    probs: float
    features: float
    cosine: float

    @property
    def ok(self) -> bool:
        """Whether an engine may replace its fp32 model. False if a prediction contains NaN."""
        close = self.probs <= MAX_DIFFERENCE and self.cosine >= MIN_COSINE
        return self.agreement >= MIN_AGREEMENT and close

    def __str__(self) -> str:
        return (
            f"{self.agreement:.2%} equal labels, probabilities differ by at most {self.probs:.1e}, features by a "
            f"cosine of {self.cosine:.4f}"
        )


def compare(reference: Prediction, other: Prediction) -> Parity:
    """Compare two predictions for the same faces.

    Args:
        reference: For at least one face.
        other: For the same faces.

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


def check_batches(reference: Prediction, infer: Callable[[U8], Prediction], faces: U8, batches: Sequence[int]) -> None:
    """Check the answers of an engine at every batch size that it treats differently.

    Args:
        reference: What the fp32 model answers for ``faces``.
        infer: See ``Backend.infer``.
        faces: (N, side, side, 3) uint8 BGR.
        batches: Faces per call.

    Raises:
        BackendError: At some batch size they differ from the reference by more than rounding.
    """
    for batch in batches:
        parts = [infer(faces[start : start + batch]) for start in range(0, len(faces), batch)]
        whole = Prediction(np.concatenate([p.probs for p in parts]), np.concatenate([p.features for p in parts]))
        parity = compare(reference, whole)
        if not parity.ok:
            raise BackendError(f"parity failed in batches of {batch} ({parity})")


def check_stored_answers(
    model: Path, spec: ModelSpec, infer: Callable[[U8], Prediction], batches: Sequence[int], step: int = 1
) -> None:
    """Check a file that runs without its fp32 model: against the answers of that model in its description.

    Args:
        model: The file, for messages.
        spec: Its description.
        infer: See ``Backend.infer``.
        batches: As for ``check_batches``.
        step: Check only every ``step``-th crop.

    Raises:
        ModelError: The description has no answers, or not those of this model.
        BackendError: See ``check_batches``.
    """
    probs = np.asarray(spec.answers, np.float32)
    if probs.shape != (PROOF, len(spec.labels)):
        raise ModelError(f"{model}: its description has no answers of the fp32 model to check it; export it again")
    faces, probs = golden_faces(spec.side)[:PROOF:step], probs[::step]
    # The features are only compared between batch sizes: those of the fp32 model are too large for a text file.
    check_batches(Prediction(probs, infer(faces).features), infer, faces, batches)


def answers_to_store(reference: Prediction) -> tuple[list[float], ...]:
    """The answers of the fp32 model for the first ``PROOF`` stored crops, for ``ModelSpec.answers``."""
    return tuple([round(float(p), 5) for p in row] for row in reference.probs[:PROOF])


def golden_faces(side: int, path: Path = GOLDEN) -> U8:
    """Load the stored crops of real faces.

    Args:
        side: Side of the crops, px; they are resized to it.
        path: The picture that holds them.

    Returns:
        (256, side, side, 3) uint8 BGR.

    Raises:
        NotFound: The file is missing or damaged.
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
