"""Which pseudo-labels are trusted: fixed, per class (Ada-CM) or self-adaptive (FreeMatch) thresholds.

Each holds its state as tensors with ``state_dict``; all see the joint batch of all processes, so that every process
holds the same state. Knows no model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def class_thresholds(probs: Tensor, targets: Tensor, epoch: int, least: float = 0.8) -> Tensor:
    """Ada-CM's margin of each class (Li et al., CVPR 2022): mean confidence of the correct samples, grown with time.

    Args:
        probs: (N, C) of the labelled pictures.
        targets: (N,) int64.
        epoch: From 1.
        least: Floor, and the value of a class without a correct sample.

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


class FixedThreshold:
    """One threshold for all classes and times."""

    def __init__(self, num_classes: int, p_cutoff: float, device: torch.device) -> None:
        self.thresholds = torch.full((num_classes,), p_cutoff, device=device)

    def mask(self, probs: Tensor) -> Tensor:
        """(B,) in {0, 1} for weak probabilities (B, C)."""
        return confident(probs, self.thresholds)

    def end_epoch(self, probs: Tensor, targets: Tensor, epoch: int) -> None:
        """Nothing to learn."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {"thresholds": self.thresholds}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """What ``state_dict`` gave."""
        self.thresholds = state["thresholds"].to(self.thresholds.device)


class ClassThreshold(FixedThreshold):
    """Ada-CM: renewed after every epoch from the labelled pictures."""

    def __init__(self, num_classes: int, p_cutoff: float, device: torch.device) -> None:
        super().__init__(num_classes, p_cutoff, device)
        self._least = p_cutoff

    def end_epoch(self, probs: Tensor, targets: Tensor, epoch: int) -> None:
        """Renew from the EMA model's probabilities (N, C) on the labelled pictures; epoch from 1."""
        self.thresholds = class_thresholds(probs, targets, epoch, self._least).to(self.thresholds.device)


class AdaptiveThreshold(FixedThreshold):
    """FreeMatch (arXiv 2205.07246): a global confidence and a share per class, both running means over steps."""

    def __init__(self, num_classes: int, device: torch.device, momentum: float = 0.999) -> None:
        super().__init__(num_classes, 1.0 / num_classes, device)
        self.momentum = momentum
        self.confidence = torch.tensor(1.0 / num_classes, device=device)
        self.mean_probs = torch.full((num_classes,), 1.0 / num_classes, device=device)
        self.histogram = torch.full((num_classes,), 1.0 / num_classes, device=device)

    def mask(self, probs: Tensor) -> Tensor:
        """Learn from the weak probabilities (B, C) of this step, then judge them; see ``FixedThreshold.mask``."""
        probs = probs.float()
        confidence, predicted = probs.max(1)
        counts = torch.bincount(predicted, minlength=probs.shape[1]).float() / max(len(probs), 1)
        keep = self.momentum
        self.confidence = keep * self.confidence + (1 - keep) * confidence.mean()
        self.mean_probs = keep * self.mean_probs + (1 - keep) * probs.mean(0)
        self.histogram = keep * self.histogram + (1 - keep) * counts
        self.thresholds = self.confidence * self.mean_probs / self.mean_probs.max()
        return confident(probs, self.thresholds)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {
            "thresholds": self.thresholds,
            "confidence": self.confidence,
            "mean_probs": self.mean_probs,
            "histogram": self.histogram,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """What ``state_dict`` gave."""
        for name in self.state_dict():
            setattr(self, name, state[name].to(self.thresholds.device))
