"""Classification metrics from probabilities and labels. Knows numbers and NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leaf_rt.types import F32, I64


def confusion(probs: F32, label: I64) -> I64:
    """Confusion matrix (C, C) of counts. Rows are labels, columns are predictions."""
    classes = probs.shape[1]
    flat = np.bincount(label * classes + probs.argmax(1), minlength=classes**2)
    return flat.reshape(classes, classes).astype(np.int64)


def calibration_error(probs: F32, label: I64, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., 2017, arXiv 1706.04599), with bins of equal width."""
    confidence = probs.max(1)
    correct = probs.argmax(1) == label
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float(correct[index == b].mean() - confidence[index == b].mean())) * float((index == b).mean())
            for b in range(bins) if (index == b).any()]  # fmt: skip
    return float(sum(gaps))


def reliability(probs: F32, label: I64, bins: int = 15) -> list[tuple[float, float, int]]:
    """Points of a reliability diagram: mean confidence, accuracy and number of answers of each bin that has any."""
    confidence, correct = probs.max(1), probs.argmax(1) == label
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[index == b].mean()), float(correct[index == b].mean()), int((index == b).sum()))
        for b in range(bins)
        if (index == b).any()
    ]


def risk_coverage(probs: F32, label: I64, points: int = 50) -> list[tuple[float, float]]:
    """Points of a risk-coverage curve: the surest share of the answers, and how many of them are wrong."""
    order = np.argsort(-probs.max(1), kind="stable")
    wrong = np.cumsum(probs.argmax(1)[order] != label[order])
    kept = np.unique(np.linspace(1, len(label), min(points, len(label))).round().astype(int))
    return [(float(k / len(label)), float(wrong[k - 1] / k)) for k in kept]


def flagged(probs: F32, label: I64, below: float) -> tuple[float | None, float | None]:
    """Share of the wrong and of the right answers that no class with a share of ``below`` leads; None if none are."""
    unsure, correct = probs.max(1) < below, probs.argmax(1) == label
    return tuple(float(unsure[part].mean()) if part.any() else None for part in (~correct, correct))  # type: ignore[return-value]


def chance(gained: int, lost: int) -> float:
    """How likely at least so uneven a difference between two equally good models is.

    The exact two-sided McNemar test. Only pictures on which exactly one of the two models is right count.

    Args:
        gained: Pictures that only the first model gets right.
        lost: Pictures that only the second model gets right.

    Returns:
        The p value, 0 to 1.
    """
    n = gained + lost
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / (1 << n))


def measure(probs: F32, label: I64, labels: Sequence[str]) -> dict[str, Any]:
    """All metrics that the reports show.

    Args:
        probs: (N, C), rows summing to 1.
        label: (N,) int64, all at least 0.
        labels: C class names.

    Returns:
        "n", "accuracy", "balanced_accuracy" (mean recall of the classes that occur), "calibration_error", "recall"
        by class (None if a class does not occur) and "confusion" as a list of rows.
    """
    matrix = confusion(probs, label)
    support = matrix.sum(1)
    recall = [float(matrix[c, c] / support[c]) if support[c] else None for c in range(len(labels))]
    present = [r for r in recall if r is not None]
    return {
        "n": len(label),
        "accuracy": float(np.trace(matrix) / max(len(label), 1)),
        "balanced_accuracy": float(np.mean(present)) if present else 0.0,
        "calibration_error": calibration_error(probs, label) if len(label) else 0.0,
        "recall": dict(zip(labels, recall, strict=True)),
        "confusion": matrix.tolist(),
    }
