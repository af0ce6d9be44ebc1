"""Confidence ramps: how much each unlabelled image counts in the ambiguous loss, from 0 (nothing known) to 1.

The ambiguous loss takes all unlabelled images with weights near one. A ramp lets it start near zero and grow with what
the teacher knows. Every process sees the joint batch, so every process holds the same values. Knows tensors; must not
know models.

A new ramp is a class below, an entry in ``RAMPS`` and a choice of ``method.ramp``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from train.methods.losses import class_counts
from train.recipes.schema import Method

_LEAST = 0.5  # smallest threshold of ``ClassRamp``: an answer with less than half of the mass never counts in full


class Ramp(Protocol):
    """Weighs unlabelled images by how sure the teacher is. Nothing here has a gradient."""

    @abstractmethod
    def update(self, probs: Tensor, mask: Tensor) -> None:
        """Learn from a step, before ``factor`` is called with its probabilities.

        Args:
            probs: (U, C) of the weak views, without gradient.
            mask: (U,) in {0, 1}, which pseudo-labels are confident.
        """

    @abstractmethod
    def factor(self, probs: Tensor) -> Tensor:
        """(U,) float32 in [0, 1] for the probabilities (U, C)."""

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, value in self.state_dict().items():
            setattr(self, name, state[name].to(value.device))


class NoRamp(Ramp):
    """Every image counts in full."""

    def update(self, probs: Tensor, mask: Tensor) -> None:
        """Learn nothing."""

    def factor(self, probs: Tensor) -> Tensor:
        """See ``Ramp.factor``."""
        return torch.ones_like(probs[:, 0], dtype=torch.float32)


class ShareRamp(Ramp):
    """The running mean of the share of confident images, the same for all images.

    The published code multiplies the loss by this share of one batch; the mean over steps does not jump.

    Attributes:
        share: Scalar, starts at 0.
    """

    def __init__(self, device: torch.device, momentum: float) -> None:
        self.share = torch.zeros((), device=device)
        self._momentum = momentum

    def update(self, probs: Tensor, mask: Tensor) -> None:
        """Move the share towards that of this step."""
        self.share = self._momentum * self.share + (1 - self._momentum) * mask.float().mean()

    def factor(self, probs: Tensor) -> Tensor:
        """See ``Ramp.factor``."""
        return self.share.expand(len(probs))

    def state_dict(self) -> dict[str, Tensor]:
        """See ``Ramp.state_dict``."""
        return {"share": self.share}


class ClassRamp(Ramp):
    """The confidence q1 against a running threshold of its class: (q1 - 1 / C) / (T_c - 1 / C), at most 1.

    T_c is the running mean of q1 over the images of class c, at least one half. So the classes that the network finds
    hard join at a lower confidence. A uniform guess gets nothing.

    Attributes:
        thresholds: (C,), starts at ``start``.
    """

    def __init__(self, num_classes: int, device: torch.device, momentum: float, start: float) -> None:
        self.thresholds = torch.full((num_classes,), start, device=device)
        self._momentum = momentum

    def update(self, probs: Tensor, mask: Tensor) -> None:
        """Move the thresholds of the classes that occur in this step."""
        confidence, predicted = probs.float().max(1)
        count, total = (
            class_counts(predicted, len(self.thresholds), each) for each in (torch.ones_like(confidence), confidence)
        )
        mean = total / count.clamp_min(1)
        moved = self._momentum * self.thresholds + (1 - self._momentum) * mean
        self.thresholds = torch.where(count > 0, moved, self.thresholds)

    def factor(self, probs: Tensor) -> Tensor:
        """See ``Ramp.factor``."""
        confidence, predicted = probs.float().max(1)
        uniform = 1 / probs.shape[1]
        needed = self.thresholds.clamp_min(_LEAST)[predicted]
        return ((confidence - uniform) / (needed - uniform)).clamp(0, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """See ``Ramp.state_dict``."""
        return {"thresholds": self.thresholds}


class EntropyRamp(Ramp):
    """One minus the entropy of the probabilities over its maximum log C: 0 for a uniform guess, 1 for a certain one."""

    def update(self, probs: Tensor, mask: Tensor) -> None:
        """Learn nothing."""

    def factor(self, probs: Tensor) -> Tensor:
        """See ``Ramp.factor``."""
        entropy: Tensor = torch.special.entr(probs.float()).sum(1)
        return (1 - entropy / math.log(probs.shape[1])).clamp(0, 1)


RAMPS: dict[str, Callable[[Method, int, torch.device], Ramp]] = {
    "none": lambda method, num_classes, device: NoRamp(),
    "share": lambda method, num_classes, device: ShareRamp(device, method.ramp_momentum),
    "class": lambda method, num_classes, device: ClassRamp(num_classes, device, method.ramp_momentum, method.p_cutoff),
    "entropy": lambda method, num_classes, device: EntropyRamp(),
}


def build_ramp(method: Method, num_classes: int, device: torch.device) -> Ramp:
    """The ramp that ``method.ramp`` names."""
    return RAMPS[method.ramp](method, num_classes, device)
