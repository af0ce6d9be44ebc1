"""The strong view: RandAugment (Cubuk et al., 2020, arXiv 1909.13719), then cutout, then the weak view.

Fourteen operations with the ranges of FixMatch, drawn per image. Images with the same operation are processed together:
the host, which draws the numbers, sorts the images by operation, so that the device never has to be asked.
Knows images as tensors; must not know labels, files or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.augment.transforms import WEAK_NUMBERS, cutout, warp, weak_view

LUMA = (0.299, 0.587, 0.114)  # of R, G, B


def strong_numbers(operations: int) -> int:
    """How many random numbers ``strong_view`` takes per image."""
    return 2 * operations + 3 + WEAK_NUMBERS


class StrongNumbers(NamedTuple):
    """The random numbers of the strong views of B images, with R operations each.

    Attributes:
        gather: (R + 1, B) int64. Row i sorts the images by their operation number i, from the order of row i - 1;
            the last row restores the first order.
        magnitudes: (R, B), of the operations, in the sorted order.
        rest: (B, 3 + WEAK_NUMBERS), for the cutout and the weak view.
        counts: R tuples with the number of images per operation.
    """

    gather: Tensor
    magnitudes: Tensor
    rest: Tensor
    counts: tuple[tuple[int, ...], ...]


def arrange(u: Tensor, operations: int = 3) -> StrongNumbers:
    """Sort images by their operations.

    Args:
        u: (B, strong_numbers(operations)) from ``draw_numbers``, on the CPU.
        operations: Number of operations per image.
    """
    which = (u[:, : 2 * operations : 2] * len(OPERATIONS)).long().numpy()  # (B, R)
    place = np.arange(len(u))  # of each image in the present order
    gather, magnitudes, counts = [], [], []
    for i in range(operations):
        order = np.argsort(which[:, i], kind="stable")
        gather.append(place[order])
        magnitudes.append(u[:, 2 * i + 1][torch.from_numpy(order)])
        counts.append(tuple(np.bincount(which[:, i], minlength=len(OPERATIONS)).tolist()))
        place = np.argsort(order)
    gather.append(place)
    return StrongNumbers(
        torch.from_numpy(np.stack(gather)),
        torch.stack(magnitudes) if magnitudes else u.new_zeros(0, len(u)),
        u[:, 2 * operations :],
        tuple(counts),
    )


def strong_view(
    images: Tensor, numbers: StrongNumbers, side: int, max_cutout: float = 0.5, crop_padding: float = 8 / 224
) -> Tensor:
    """The strong view.

    Args:
        images: (B, C, H, W) float in [0, 1].
        numbers: From ``arrange``, on the same device.
        side: Of the views, px.
        max_cutout: Largest side of the grey square, as a share of the side.
        crop_padding: See ``weak_view``.

    Returns:
        (B, C, side, side) float32 in [0, 1].
    """
    x = images
    for gather, magnitudes, counts in zip(numbers.gather[:-1], numbers.magnitudes, numbers.counts, strict=True):
        images_of, numbers_of = (torch.split(t, list(counts)) for t in (x.index_select(0, gather), magnitudes))
        parts = zip(OPERATIONS, images_of, numbers_of, strict=True)
        x = torch.cat([operation(part, m) for operation, part, m in parts if len(part)] or [x])
    x, rest = x.index_select(0, numbers.gather[-1]), numbers.rest
    size = rest[:, :1].expand(-1, 2) * max_cutout
    x = cutout(x, size, rest[:, 1:3], torch.full_like(rest[:, 0], 0.5))
    return weak_view(x, rest[:, 3:], side, crop_padding)


# Kept per device: to make a tensor from numbers there is a copy that waits for the device.
@lru_cache(maxsize=8)
def _luma(device: torch.device) -> Tensor:
    return torch.tensor(LUMA, device=device)


@lru_cache(maxsize=8)
def _smoothing(device: torch.device) -> Tensor:
    return torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=device) / 13


def _per_image(v: Tensor) -> Tensor:
    return v[:, None, None, None]


def _blend(other: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Interpolate between ``other`` (factor 0) and x (factor 1)."""
    return (other + (x - other) * _per_image(factor)).clamp(0, 1)


def _enhance(m: Tensor) -> Tensor:
    return 0.05 + 0.9 * m


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    weights = _luma(x.device).to(x.dtype)
    return torch.einsum("bchw,c->bhw", x, weights)[:, None]


def identity(x: Tensor, m: Tensor) -> Tensor:
    """Return the images unchanged."""
    return x


def autocontrast(x: Tensor, m: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / span.clamp_min(1e-6), x)


def brightness(x: Tensor, m: Tensor) -> Tensor:
    """Interpolate towards black."""
    return _blend(torch.zeros_like(x), x, _enhance(m))


def color(x: Tensor, m: Tensor) -> Tensor:
    """Interpolate towards grey."""
    return _blend(_grey(x).expand_as(x), x, _enhance(m))


def contrast(x: Tensor, m: Tensor) -> Tensor:
    """Interpolate towards the mean of the image."""
    return _blend(_grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, _enhance(m))


def equalize(x: Tensor, m: Tensor) -> Tensor:
    """Equalise the histogram of each channel, as Pillow does."""
    b, c, h, w = x.shape
    values = (x * 255).round().long().view(b * c, h * w)
    counts = torch.zeros(b * c, 256, device=x.device).scatter_add_(1, values, torch.ones_like(values, dtype=x.dtype))
    present = counts > 0
    last = (present * torch.arange(256, device=x.device)).amax(1)  # (b * c,) largest value
    step = ((h * w - counts.gather(1, last[:, None])[:, 0]) / 255).floor()[:, None]
    table = ((counts.cumsum(1) - counts + (step / 2).floor()) / step.clamp_min(1)).floor().clamp(0, 255)
    out = (table.gather(1, values) / 255).view_as(x)
    flat = ((step[:, 0] == 0) | (present.sum(1) <= 1)).view(b, c, 1, 1)
    return torch.where(flat, x, out)


def posterize(x: Tensor, m: Tensor) -> Tensor:
    """Keep the 4 to 8 highest bits of each value."""
    step = 2.0 ** (8 - torch.floor(4 + m * 5).clamp(max=8))
    values = (x * 255).round()
    return torch.floor(values / _per_image(step)) * _per_image(step) / 255


def rotate(x: Tensor, m: Tensor) -> Tensor:
    """Rotate by up to 30 degrees in either direction."""
    angle = (2 * m - 1) * math.radians(30)
    return _affine(x, torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle))


def sharpness(x: Tensor, m: Tensor) -> Tensor:
    """Interpolate towards a smoothed image, as Pillow does: 3x3 kernel, border pixels unchanged."""
    channels, kernel = x.shape[1], _smoothing(x.device)
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, kernel.expand(channels, 1, 3, 3), groups=channels)
    return _blend(smooth, x, _enhance(m))


def shear_x(x: Tensor, m: Tensor) -> Tensor:
    """Shear horizontally by up to 0.3 in either direction."""
    one = torch.ones_like(m)
    return _affine(x, one, (2 * m - 1) * 0.3, torch.zeros_like(m), one)


def shear_y(x: Tensor, m: Tensor) -> Tensor:
    """Shear vertically by up to 0.3 in either direction."""
    one = torch.ones_like(m)
    return _affine(x, one, torch.zeros_like(m), (2 * m - 1) * 0.3, one)


def solarize(x: Tensor, m: Tensor) -> Tensor:
    """Invert the values above a threshold."""
    return torch.where(x < _per_image(m), x, 1 - x)


def translate_x(x: Tensor, m: Tensor) -> Tensor:
    """Shift horizontally by up to 0.3 of the side in either direction."""
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _affine(x, one, zero, zero, one, x_shift=(2 * m - 1) * 0.6)


def translate_y(x: Tensor, m: Tensor) -> Tensor:
    """Shift vertically by up to 0.3 of the side in either direction."""
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return _affine(x, one, zero, zero, one, y_shift=(2 * m - 1) * 0.6)


def _affine(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, x_shift: Tensor | None = None, y_shift: Tensor | None = None
) -> Tensor:
    """Resample by the linear map [[a, b], [c, d]] and shifts in half sides, (B,) each; black beyond the image."""
    zero = torch.zeros_like(a)
    rows = [
        torch.stack([a, b, zero if x_shift is None else x_shift], 1),
        torch.stack([c, d, zero if y_shift is None else y_shift], 1),
    ]
    return warp(x, torch.stack(rows, 1), x.shape[-1], "zeros")


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    autocontrast, brightness, color, contrast, equalize, identity, posterize, rotate, sharpness, shear_x, shear_y,
    solarize, translate_x, translate_y,
)  # fmt: skip
