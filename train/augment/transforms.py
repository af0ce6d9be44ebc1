"""Augmentation of a whole batch at once, on the device the batch lies on.

Each view has two halves: uniform random numbers, a fixed number per picture, and a function of pictures and numbers.
So every process of a distributed run draws the same numbers for the joint batch and uses its own rows.
Knows images as tensors; must not know labels, files or models.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet
STD = (0.229, 0.224, 0.225)
SUPERVISED_DRAWS = 17
WEAK_DRAWS = 4


def draw(n: int, numbers: int, rng: Generator) -> Tensor:
    """(n, numbers) float32, uniform in [0, 1), on the CPU: the random half of a view."""
    return torch.rand(n, numbers, generator=rng)


def to_float(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 to float32 in [0, 1]."""
    return images.float() / 255


def resize(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) float to (B, C, side, side), bilinear; what evaluation and the exported graph do."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 1 or 3, S, S) in [0, 1] to (B, 3, S, S), by (3,) mean and deviation."""
    return (images - mean[:, None, None]) / std[:, None, None]


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return u * (high - low) + low


def _log_between(u: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(_between(u, math.log(low), math.log(high)))


def warp(images: Tensor, theta: Tensor, side: int, padding: str) -> Tensor:
    """Resample (B, C, H, W) by affine maps (B, 2, 3) of the output square [-1, 1]^2 into the picture's."""
    grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def hole(images: Tensor, size: Tensor, centre: Tensor, fill: Tensor) -> Tensor:
    """Cover one rectangle in each of (B, C, S, S) pictures.

    Args:
        images: float.
        size: (B, 2), height and width as shares of the side; 0 leaves a picture alone.
        centre: (B, 2), as shares of the side.
        fill: (B,), the value put there.
    """
    side = images.shape[-1]
    at = (torch.arange(side, device=images.device) + 0.5) / side
    inside = (at[None, None] - centre[..., None]).abs() < size[..., None] / 2  # (B, 2, S)
    covered = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(covered[:, None], fill[:, None, None, None], images)


def weak_view(images: Tensor, u: Tensor, side: int, crop_padding: float = 8 / 224) -> Tensor:
    """Resize; in half of the pictures a shift by up to ``crop_padding`` of the side, black beyond; flip half of them.

    Args:
        images: (B, C, H, W) float in [0, 1].
        u: (B, WEAK_DRAWS) from ``draw``, on the same device.
        side: Of the views, px.
        crop_padding: Largest shift, as a share of the side; shifts are whole pixels.
    """
    most = round(crop_padding * side)
    shift = torch.floor(u[:, :2] * (2 * most + 1)) - most  # px
    shift = torch.where(u[:, 2:3] < 0.5, shift, 0.0) * (2.0 / side)
    flip = torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    zero, one = torch.zeros_like(flip), torch.ones_like(flip)
    theta = torch.stack(
        [torch.stack([flip, zero, shift[:, 0]], 1), torch.stack([zero, one, shift[:, 1]], 1)], 1
    )  # fmt: skip
    return warp(images, theta, side, "zeros")


def supervised_view(images: Tensor, u: Tensor, side: int, strength: float = 1.0) -> Tensor:
    """A view for supervised training: flip, rotation, scale, shift, light, sharpness, one hole.

    Args:
        images: (B, C, H, W) float in [0, 1].
        u: (B, SUPERVISED_DRAWS) from ``draw``, on the same device.
        side: Of the views, px.
        strength: Scales the ranges, and the share of pictures with a hole; 1 is the full range.

    Returns:
        (B, C, side, side) float32 in [0, 1].
    """
    column = iter(u.unbind(1))
    k = strength
    # Geometry: one affine grid does rotation, scale, shift, flip and the change of size in one interpolation.
    angle = _between(next(column), -15 * k, 15 * k) * math.pi / 180
    scale = _log_between(next(column), 0.88**k, 1.14**k)
    stretch = _log_between(next(column), 0.93**k, 1.07**k)
    shear = _between(next(column), -0.08 * k, 0.08 * k)
    flip = torch.where(next(column) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (_between(next(column), -0.12 * k, 0.12 * k) for _ in range(2))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin + shear, shift_x], 1),
            torch.stack([sin * flip, cos / stretch, shift_y], 1),
        ],
        1,
    )
    x = warp(images, theta, side, "border")
    # Light: contrast about the mean, brightness, gamma.
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = _log_between(next(column), 0.6**k, 1.6**k)[:, None, None, None]
    light = _between(next(column), -0.2 * k, 0.2 * k)[:, None, None, None]
    gamma = _log_between(next(column), 0.7**k, 1.4**k)[:, None, None, None]
    x = (((x - mean) * contrast + mean + light).clamp(1e-4, 1)) ** gamma
    # Sharpness: from blurred (0) over unchanged (1) to sharpened (2).
    sharp = _between(next(column), 1 - 0.8 * k, 1 + k)[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = (blurred + (x - blurred) * sharp).clamp(0, 1)
    size = _between(torch.stack([next(column), next(column)], 1), 0.1, 0.45)
    centre = torch.stack([next(column), next(column)], 1)
    size = torch.where(next(column)[:, None] < 0.5 * k, size, 0.0)
    return hole(x, size, centre, next(column))


def mix(images: Tensor, targets: Tensor, share: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018, arXiv 1710.09412): ``share`` of each picture and target, the rest of its partner's.

    Args:
        images: (B, C, S, S).
        targets: (B, C) distributions.
        share: In [0, 1].
        order: (B,) int64, the partners.
    """
    return share * images + (1 - share) * images[order], share * targets + (1 - share) * targets[order]
