"""Which pseudo-labels count as confident: fixed, per-class (Ada-CM) and self-adaptive (FreeMatch) thresholds.

Every process sees the joint batch, so every process holds the same thresholds. Knows tensors; must not know models.

A new kind of threshold is a class below, an entry in ``THRESHOLDS`` and a choice of ``method.threshold``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from train.methods.losses import class_counts, fairness_loss
from train.recipes.schema import Method

LabelledPredictions = Callable[[], tuple[Tensor, Tensor]]  # probabilities (N, C) and classes (N,) int64, on the CPU


class Threshold(Protocol):
    """Decides which pseudo-labels count as confident.

    The training loop calls ``update`` and ``mask`` in every step with unlabelled images and ``end_epoch`` after every
    epoch. A subclass must define ``update`` and ``end_epoch``, even when it learns nothing there.

    Attributes:
        thresholds: (C,) float32, the threshold of each class.
    """

    thresholds: Tensor

    @abstractmethod
    def update(self, probs: Tensor) -> None:
        """Learn from the weak-view probabilities (B, C) of a step, before ``mask`` is called with them."""

    @abstractmethod
    def end_epoch(self, predict_labelled: LabelledPredictions, epoch: int) -> None:
        """Learn from a finished epoch.

        Args:
            predict_labelled: Computes the EMA model's probabilities for all labelled training images and returns them
                with the true classes. It is slow: call it only if the threshold needs it.
            epoch: Number of the epoch, from 1.
        """

    def mask(self, probs: Tensor) -> Tensor:
        """(B,) in {0, 1}: which of the weak-view probabilities (B, C) are confident."""
        return confident(probs, self.thresholds)

    def fairness(self, strong: Tensor, mask: Tensor) -> Tensor | None:
        """The fairness loss that belongs to this threshold, scalar; None if it has none.

        Args:
            strong: (B, C) logits of the strong view.
            mask: (B,) from ``mask``.
        """
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for a checkpoint."""
        return {"thresholds": self.thresholds}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        for name in self.state_dict():
            setattr(self, name, state[name].to(self.thresholds.device))


class FixedThreshold(Threshold):
    """One constant threshold for all classes."""

    def __init__(self, num_classes: int, p_cutoff: float, device: torch.device) -> None:
        self.thresholds = torch.full((num_classes,), p_cutoff, device=device)

    def update(self, probs: Tensor) -> None:
        """Keep the threshold."""

    def end_epoch(self, predict_labelled: LabelledPredictions, epoch: int) -> None:
        """Keep the threshold."""


class ClassThreshold(Threshold):
    """Ada-CM (Li et al., CVPR 2022): one threshold per class, computed from the labelled images after each epoch."""

    def __init__(self, num_classes: int, p_cutoff: float, device: torch.device) -> None:
        self.thresholds = torch.full((num_classes,), p_cutoff, device=device)
        self._least = p_cutoff

    def update(self, probs: Tensor) -> None:
        """Keep the thresholds within an epoch."""

    def end_epoch(self, predict_labelled: LabelledPredictions, epoch: int) -> None:
        """Compute new thresholds, see ``class_thresholds``."""
        probs, targets = predict_labelled()
        self.thresholds = class_thresholds(probs, targets, epoch, self._least).to(self.thresholds.device)


class AdaptiveThreshold(Threshold):
    """FreeMatch (arXiv 2205.07246): a global confidence times a share per class, both running means over steps.

    Attributes:
        confidence: Scalar, running mean of the largest probability.
        mean_probs: (C,), running mean of the probabilities.
        histogram: (C,), running share of each class among the pseudo-labels.
    """

    def __init__(self, num_classes: int, device: torch.device, momentum: float = 0.999) -> None:
        uniform = 1.0 / num_classes
        self.thresholds = torch.full((num_classes,), uniform, device=device)
        self.momentum = momentum
        self.confidence = torch.tensor(uniform, device=device)
        self.mean_probs = torch.full((num_classes,), uniform, device=device)
        self.histogram = torch.full((num_classes,), uniform, device=device)

    def update(self, probs: Tensor) -> None:
        """Move the running means towards the probabilities (B, C) of this step."""
        probs = probs.float()
        confidence, predicted = probs.max(1)
        counts = class_counts(predicted, probs.shape[1], torch.ones_like(confidence)) / max(len(probs), 1)
        keep = self.momentum
        self.confidence = keep * self.confidence + (1 - keep) * confidence.mean()
        self.mean_probs = keep * self.mean_probs + (1 - keep) * probs.mean(0)
        self.histogram = keep * self.histogram + (1 - keep) * counts
        self.thresholds = self.confidence * self.mean_probs / self.mean_probs.max()

    def end_epoch(self, predict_labelled: LabelledPredictions, epoch: int) -> None:
        """Keep the running means: they change in every step."""

    def fairness(self, strong: Tensor, mask: Tensor) -> Tensor:
        """See ``losses.fairness_loss``."""
        return fairness_loss(strong, mask, self.mean_probs, self.histogram)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for a checkpoint."""
        return {
            "thresholds": self.thresholds,
            "confidence": self.confidence,
            "mean_probs": self.mean_probs,
            "histogram": self.histogram,
        }


THRESHOLDS: dict[str, Callable[[Method, int, torch.device], Threshold]] = {
    "fixed": lambda method, num_classes, device: FixedThreshold(num_classes, method.p_cutoff, device),
    "class": lambda method, num_classes, device: ClassThreshold(num_classes, method.p_cutoff, device),
    "adaptive": lambda method, num_classes, device: AdaptiveThreshold(num_classes, device),
}


def build_threshold(method: Method, num_classes: int, device: torch.device) -> Threshold:
    """The threshold that ``method.threshold`` names."""
    return THRESHOLDS[method.threshold](method, num_classes, device)


def class_thresholds(probs: Tensor, targets: Tensor, epoch: int, least: float = 0.8) -> Tensor:
    """Ada-CM's threshold of each class: the mean confidence of its correct samples, times a factor that grows.

    Source: Li et al., CVPR 2022. T_c = max(least, mean * 0.97 / (1 + exp(-epoch))).

    Args:
        probs: (N, C) of the labelled images.
        targets: (N,) int64.
        epoch: From 1.
        least: Smallest threshold, also used for a class without a correct sample.

    Returns:
        (C,) float32.
    """
    confidence, predicted = probs.float().max(1)
    out = probs.new_full((probs.shape[1],), least, dtype=torch.float32)
    for c in range(probs.shape[1]):
        correct = (predicted == c) & (targets == c)
        if bool(correct.any()):
            out[c] = max(least, float(confidence[correct].mean()) * 0.97 / (1 + math.exp(-epoch)))
    return out


def confident(probs: Tensor, thresholds: Tensor) -> Tensor:
    """(B,) float: 1 where the largest of (B, C) probabilities reaches the threshold (C,) of its class."""
    confidence, predicted = probs.float().max(1)
    return (confidence >= thresholds[predicted]).float()
