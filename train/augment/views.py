"""The views of a recipe: draws their random numbers for the joint batch, and makes them from crops.

Knows recipes and augmentation; must not know labels or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from train.augment.degrade import DEGRADE_NUMBERS, degrade
from train.augment.randaugment import StrongNumbers, strong_numbers, strong_view
from train.augment.transforms import (
    MEAN,
    STD,
    SUPERVISED_NUMBERS,
    WEAK_NUMBERS,
    draw_numbers,
    normalise,
    supervised_view,
    to_float,
    weak_view,
)
from train.recipes.schema import Augment


@dataclass(frozen=True, slots=True, eq=False)
class ViewNumbers:
    """The random numbers of a joint micro-batch of B labelled and U unlabelled images.

    Attributes:
        labelled: (B, ...).
        weak: V tensors (U, ...).
        strong: (U, ...).
        mix_share: Weight of an image against its mixup partner; 1 without mixup.
        partner: (B,) int64, rows of the mixup partners.
    """

    labelled: Tensor
    weak: tuple[Tensor, ...]
    strong: Tensor
    mix_share: float
    partner: Tensor


def labelled_numbers(options: Augment) -> int:
    """How many random numbers the view of a labelled image takes."""
    view = SUPERVISED_NUMBERS if options.labelled == "supervised" else WEAK_NUMBERS
    return view + (DEGRADE_NUMBERS if options.degrade > 0 else 0)


def draw_view_numbers(
    labelled: int, unlabelled: int, weak_views: int, options: Augment, seed: list[int]
) -> ViewNumbers:
    """Draw all random numbers of a micro-batch. They depend on the arguments only."""
    source = np.random.default_rng(seed)
    rng = Generator().manual_seed(int(source.integers(2**62)))
    share = 1.0
    if options.mixup > 0 and source.random() < options.mixup:
        share = float(source.beta(options.mixup_alpha, options.mixup_alpha))
    return ViewNumbers(
        draw_numbers(labelled, labelled_numbers(options), rng),
        tuple(draw_numbers(unlabelled, WEAK_NUMBERS, rng) for _ in range(weak_views)),
        draw_numbers(unlabelled, strong_numbers(options.strong_operations), rng),
        share,
        torch.randperm(labelled, generator=rng),
    )


class Views:
    """Makes views on one device.

    Args:
        options: Section of the recipe.
        device: Of the crops.
        channels_last: Memory format of the views.
    """

    def __init__(self, options: Augment, device: torch.device, *, channels_last: bool = False) -> None:
        self.options, self.device = options, device
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self._mean, self._std = (torch.tensor(v, device=device) for v in (MEAN, STD))

    def finish(self, images: Tensor) -> Tensor:
        """Normalise views (B, 1 or 3, S, S) in [0, 1] to the network's input (B, 3, S, S)."""
        return normalise(images, self._mean, self._std).contiguous(memory_format=self.format)

    def labelled(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """Views (B, C, side, side) in [0, 1] of labelled uint8 crops."""
        x, u = to_float(crops), u.to(self.device)
        if self.options.degrade > 0:
            x, u = degrade(x, u[:, -DEGRADE_NUMBERS:], self.options.degrade), u[:, :-DEGRADE_NUMBERS]
        if self.options.labelled == "supervised":
            return supervised_view(x, u, side, self.options.strength)
        return weak_view(x, u, side, self.options.crop_padding)

    def weak(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """Weak views (U, C, side, side) in [0, 1] of uint8 crops."""
        return weak_view(to_float(crops), u.to(self.device), side, self.options.crop_padding)

    def strong(self, crops: Tensor, numbers: StrongNumbers, side: int) -> Tensor:
        """Strong views (U, C, side, side) in [0, 1] of uint8 crops, with numbers on the same device."""
        return strong_view(to_float(crops), numbers, side, self.options.cutout, self.options.crop_padding)
