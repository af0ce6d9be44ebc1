"""From crops to normalised views: which views a method wants, drawn for the joint batch, made for a process's rows.

Knows recipes and augmentation; must not know labels or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from train.augment.randaugment import strong_draws, strong_view
from train.augment.transforms import (
    MEAN,
    STD,
    SUPERVISED_DRAWS,
    WEAK_DRAWS,
    draw,
    mix,
    normalise,
    supervised_view,
    to_float,
    weak_view,
)
from train.recipes.schema import Augment


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The random numbers of one joint micro-batch of B labelled and U unlabelled pictures.

    Attributes:
        labelled: (B, ...).
        weak: V tensors (U, ...).
        strong: (U, ...); (0, ...) without unlabelled pictures.
        mix_share: Weight of a picture against its partner; 1 mixes nothing.
        partner: (B,) int64.
    """

    labelled: Tensor
    weak: tuple[Tensor, ...]
    strong: Tensor
    mix_share: float
    partner: Tensor


def draw_views(labelled: int, unlabelled: int, weak_views: int, options: Augment, seed: list[int]) -> Draws:
    """All random numbers of a micro-batch, a pure function of ``seed``."""
    source = np.random.default_rng(seed)
    rng = Generator().manual_seed(int(source.integers(2**62)))
    share = 1.0
    if options.mixup > 0 and source.random() < options.mixup:
        share = float(source.beta(options.mixup_alpha, options.mixup_alpha))
    numbers = SUPERVISED_DRAWS if options.labelled == "supervised" else WEAK_DRAWS
    return Draws(
        draw(labelled, numbers, rng),
        tuple(draw(unlabelled, WEAK_DRAWS, rng) for _ in range(weak_views)),
        draw(unlabelled, strong_draws(options.strong_operations), rng),
        share,
        torch.randperm(labelled, generator=rng),
    )


class Views:
    """Makes views on one device.

    Args:
        options: Of the recipe.
        device: Where the crops lie.
        channels_last: Memory format of the views.
    """

    def __init__(self, options: Augment, device: torch.device, *, channels_last: bool = False) -> None:
        self.options, self.device = options, device
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self._mean, self._std = (torch.tensor(v, device=device) for v in (MEAN, STD))

    def finish(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, S, S) in [0, 1] to the network's input (B, 3, S, S)."""
        return normalise(images, self._mean, self._std).contiguous(memory_format=self.format)

    def labelled(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """Views (B, C, side, side) in [0, 1] of labelled uint8 crops."""
        x, u = to_float(crops), u.to(self.device)
        if self.options.labelled == "supervised":
            return supervised_view(x, u, side, self.options.strength)
        return weak_view(x, u, side, self.options.crop_padding)

    def weak(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """Weak views (U, C, side, side) in [0, 1] of uint8 crops."""
        return weak_view(to_float(crops), u.to(self.device), side, self.options.crop_padding)

    def strong(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """Strong views (U, C, side, side) in [0, 1] of uint8 crops."""
        options = self.options
        return strong_view(
            to_float(crops), u.to(self.device), side, options.strong_operations, options.cutout, options.crop_padding
        )

    def mixed(self, images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mixup of a labelled joint batch, where this step has it."""
        if draws.mix_share == 1.0:
            return images, targets
        return mix(images, targets, draws.mix_share, draws.partner.to(self.device))
