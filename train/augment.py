"""Augmentation of a whole batch at once, on the device the batch lies on.

Knows images as tensors; must not know labels, files or models.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def _uniform(n: int, low: float, high: float, rng: Generator) -> Tensor:
    return torch.rand(n, generator=rng) * (high - low) + low


def supervised_view(images: Tensor, side: int, rng: Generator) -> Tensor:
    """A random view for supervised training: flip, rotation, scale, shift, light, blur, cutout.

    Args:
        images: (B, 1, H, W) uint8, grey.
        side: Side of the views, px.
        rng: CPU generator; the same state gives the same views.

    Returns:
        (B, 1, side, side) float32 in [0, 1].
    """
    n = len(images)
    x = images.float() / 255
    # Geometry: one affine grid does rotation, scale, shift, flip and the change of size in one interpolation.
    angle = _uniform(n, -15, 15, rng) * math.pi / 180
    scale = torch.exp(_uniform(n, math.log(0.88), math.log(1.14), rng))
    stretch = torch.exp(_uniform(n, math.log(0.93), math.log(1.07), rng))
    shear = _uniform(n, -0.08, 0.08, rng)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin + shear, _uniform(n, -0.12, 0.12, rng)], 1),
            torch.stack([sin * flip, cos / stretch, _uniform(n, -0.12, 0.12, rng)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # Light: contrast about the mean, brightness, gamma.
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = torch.exp(_uniform(n, math.log(0.6), math.log(1.6), rng))[:, None, None, None]
    light = _uniform(n, -0.2, 0.2, rng)[:, None, None, None]
    gamma = torch.exp(_uniform(n, math.log(0.7), math.log(1.4), rng))[:, None, None, None]
    x = (((x - mean) * contrast + mean + light).clamp(1e-4, 1)) ** gamma
    # Sharpness: from blurred (0) over unchanged (1) to sharpened (2).
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    sharp = _uniform(n, 0.2, 2.0, rng)[:, None, None, None]
    x = (blurred + (x - blurred) * sharp).clamp(0, 1)
    # Cutout: one grey rectangle in half of the pictures.
    size = _uniform(2 * n, 0.1, 0.45, rng).view(2, n) * side
    centre = _uniform(2 * n, 0, 1, rng).view(2, n) * side
    use = torch.rand(n, generator=rng) < 0.5
    at = torch.arange(side) + 0.5
    rows = (at[None] - centre[0][:, None]).abs() < size[0][:, None] / 2  # (B, side)
    cols = (at[None] - centre[1][:, None]).abs() < size[1][:, None] / 2
    hole = rows[:, None, :, None] & cols[:, None, None, :] & use[:, None, None, None]
    return torch.where(hole, torch.rand(n, generator=rng)[:, None, None, None], x)
