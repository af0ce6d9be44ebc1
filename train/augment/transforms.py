"""Augmentation of a whole batch at once, on the device of the batch.

A view is a function of images and of uniform random numbers, a fixed number of them per image. Every process of a
distributed run draws the numbers of the joint batch and uses its own rows.
Knows images as tensors; must not know labels, files or models.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet
STD = (0.229, 0.224, 0.225)
SUPERVISED_NUMBERS = 17  # random numbers per image
WEAK_NUMBERS = 4


def draw_numbers(n: int, numbers: int, rng: Generator) -> Tensor:
    """Uniform random numbers (n, numbers) float32 in [0, 1), on the CPU."""
    return torch.rand(n, numbers, generator=rng)


def to_float(images: Tensor) -> Tensor:
    """Convert (B, C, H, W) uint8 to float32 in [0, 1]."""
    return images.float() / 255


def resize(images: Tensor, side: int) -> Tensor:
    """Resize (B, C, H, W) float to (B, C, side, side), bilinear, as evaluation and the exported model do."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise (B, 1 or 3, S, S) in [0, 1] to (B, 3, S, S) by mean and standard deviation (3,)."""
    return (images - mean[:, None, None]) / std[:, None, None]


def _uniform(u: Tensor, low: float, high: float) -> Tensor:
    return u * (high - low) + low


def _log_uniform(u: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(_uniform(u, math.log(low), math.log(high)))


def warp(images: Tensor, theta: Tensor, side: int, padding: str) -> Tensor:
    """Resample (B, C, H, W) by affine maps.

    Args:
        images: float.
        theta: (B, 2, 3), maps the output square [-1, 1]^2 to that of the image.
        side: Of the output, px.
        padding: "zeros" or "border", what lies beyond the image.
    """
    grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def cutout(images: Tensor, size: Tensor, centre: Tensor, fill: Tensor) -> Tensor:
    """Cover one rectangle in each image (B, C, S, S).

    Args:
        images: float.
        size: (B, 2), height and width as shares of the side; 0 covers nothing.
        centre: (B, 2), as shares of the side.
        fill: (B,), value of the covered pixels.
    """
    side = images.shape[-1]
    position = (torch.arange(side, device=images.device) + 0.5) / side
    inside = (position[None, None] - centre[..., None]).abs() < size[..., None] / 2  # (B, 2, S)
    covered = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(covered[:, None], fill[:, None, None, None], images)


def weak_view(images: Tensor, u: Tensor, side: int, crop_padding: float = 8 / 224) -> Tensor:
    """The weak view: resize, shift half of the images by up to ``crop_padding`` of the side, flip half of them.

    Args:
        images: (B, C, H, W) float in [0, 1].
        u: (B, WEAK_NUMBERS) from ``draw_numbers``, on the same device.
        side: Of the views, px.
        crop_padding: Largest shift, as a share of the side. Shifts are whole pixels; beyond the image it is black.
    """
    max_shift = round(crop_padding * side)
    shift = torch.floor(u[:, :2] * (2 * max_shift + 1)) - max_shift  # px
    shift = torch.where(u[:, 2:3] < 0.5, shift, 0.0) * (2.0 / side)
    flip = torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    zero, one = torch.zeros_like(flip), torch.ones_like(flip)
    theta = torch.stack(
        [torch.stack([flip, zero, shift[:, 0]], 1), torch.stack([zero, one, shift[:, 1]], 1)], 1
    )  # fmt: skip
    return warp(images, theta, side, "zeros")


def supervised_view(images: Tensor, u: Tensor, side: int, strength: float = 1.0) -> Tensor:
    """The view for supervised training: flip, rotation, scale, shift, light, sharpness and cutout.

    Args:
        images: (B, C, H, W) float in [0, 1].
        u: (B, SUPERVISED_NUMBERS) from ``draw_numbers``, on the same device.
        side: Of the views, px.
        strength: Scales the ranges and the share of images with a cutout; 1 is the full range.

    Returns:
        (B, C, side, side) float32 in [0, 1].
    """
    column = iter(u.unbind(1))
    k = strength
    # Geometry: rotation, scale, shift, flip and resize in one interpolation.
    angle = _uniform(next(column), -15 * k, 15 * k) * math.pi / 180
    scale = _log_uniform(next(column), 0.88**k, 1.14**k)
    stretch = _log_uniform(next(column), 0.93**k, 1.07**k)
    shear = _uniform(next(column), -0.08 * k, 0.08 * k)
    flip = torch.where(next(column) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (_uniform(next(column), -0.12 * k, 0.12 * k) for _ in range(2))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin + shear, shift_x], 1),
            torch.stack([sin * flip, cos / stretch, shift_y], 1),
        ],
        1,
    )
    x = warp(images, theta, side, "border")
    # Light: contrast around the mean, brightness, gamma.
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = _log_uniform(next(column), 0.6**k, 1.6**k)[:, None, None, None]
    light = _uniform(next(column), -0.2 * k, 0.2 * k)[:, None, None, None]
    gamma = _log_uniform(next(column), 0.7**k, 1.4**k)[:, None, None, None]
    x = (((x - mean) * contrast + mean + light).clamp(1e-4, 1)) ** gamma
    # Sharpness: from blurred (0) over unchanged (1) to sharpened (2).
    sharp = _uniform(next(column), 1 - 0.8 * k, 1 + k)[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = (blurred + (x - blurred) * sharp).clamp(0, 1)
    size = _uniform(torch.stack([next(column), next(column)], 1), 0.1, 0.45)
    centre = torch.stack([next(column), next(column)], 1)
    size = torch.where(next(column)[:, None] < 0.5 * k, size, 0.0)
    return cutout(x, size, centre, next(column))


def mixup(images: Tensor, targets: Tensor, share: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018, arXiv 1710.09412) of each image and target with those of a partner.

    Args:
        images: (B, C, S, S).
        targets: (B, C) distributions.
        share: Weight of an image against its partner, in [0, 1].
        partner: (B,) int64, rows of the partners.
    """
    return share * images + (1 - share) * images[partner], share * targets + (1 - share) * targets[partner]
