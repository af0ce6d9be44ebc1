"""The damage that cameras do to small faces: darkness, blur, few pixels, noise, JPEG and covered parts.

The whole batch is degraded at once. Blur, shrinking and enlarging are products with matrices (S, S), so that every
image has its own strength. Knows images as tensors; must not know labels, files or models.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

DEGRADE_NUMBERS = 20  # random numbers per image
_MIN_SIDE = 0.2  # smallest side of a shrunk image, as a share of the crop's side
_MAX_SIGMA = 0.065  # largest blur, as a share of the crop's side
_CHANCE = 0.08  # of a second kind of damage, each
_NOISE_SIDE = 256  # px, side of the noise that images take their part of

# Quantization of luminance at quality 50: ITU-T T.81, table K.1.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def degrade(images: Tensor, u: Tensor, share: float) -> Tensor:
    """Degrade a share of the images. Each of them gets one kind of damage, or several at once.

    Args:
        images: (B, C, S, S) float in [0, 1].
        u: (B, DEGRADE_NUMBERS) from ``draw_numbers``, on the same device.
        share: Share of the images that are degraded.

    Returns:
        (B, C, S, S) float32 in [0, 1]. The other images are unchanged.
    """
    if share <= 0:
        return images
    side = images.shape[-1]
    (pick, kind, *chance), rest = u[:, :8].unbind(1), u[:, 8:]
    # One of six kinds for every image; each of the others with probability _CHANCE.
    kind = (kind * 6).floor()
    on = [(kind == number) | (chance[number] < _CHANCE) for number in range(6)]
    amount = [torch.where(on[number], rest[:, number], torch.zeros_like(pick)) for number in range(6)]

    x = torch.where(on[5][:, None, None, None], cover(images, rest[:, 5:12]), images)
    # Half of the dark images are very dark: the logarithm of the gain is uniform.
    gain = torch.where(on[0], torch.exp(amount[0] * math.log(0.08)), torch.ones_like(pick))
    x = _quantize(x * gain[:, None, None, None])
    # Blur and shrink, in the optics; then noise and JPEG on the pixels of the sensor; then enlarge.
    blur = _gaussian(side, amount[1] * _MAX_SIGMA * side)
    # The crops of small pictures have been enlarged: noise and JPEG meet fewer pixels than the crop has.
    sensor = torch.where(on[3] | on[4], 0.5 + 0.5 * rest[:, 6], torch.ones_like(pick))
    fewer = torch.where(on[2], _MIN_SIDE + (0.6 - _MIN_SIDE) * amount[2], sensor)
    sides = (fewer * side).round().long().clamp(1, side)
    down, up = (matrices[sides - 1] for matrices in _resampling_on(side, images.device))
    x = _separable(down @ blur, x)
    sigma = torch.where(on[3], 0.01 + 0.14 * amount[3], torch.zeros_like(pick))
    x = x + sigma[:, None, None, None] * _noise(rest[:, 7:9], side)[:, None]
    quality = 4 + 46 * amount[4]
    x = torch.where(on[4][:, None, None, None], jpeg(x, quality), x).clamp(0, 1)
    x = _quantize(_separable(up, x).clamp(0, 1))
    return torch.where((pick < share)[:, None, None, None], x, images)


def cover(images: Tensor, u: Tensor) -> Tensor:
    """Cover a part of each image (B, C, S, S) by a bar across it, a rectangle or an ellipse of one grey.

    Args:
        images: float in [0, 1].
        u: (B, 7) uniform random numbers.
    """
    side = images.shape[-1]
    position = (torch.arange(side, device=images.device) + 0.5) / side
    shape, x0, y0, width, height, angle, grey = (column[:, None, None] for column in u.unbind(1))
    bar, ellipse = shape < 0.5, shape > 0.8
    y0 = torch.where(bar, 0.15 + 0.8 * y0, y0)
    angle = (angle - 0.5) * torch.where(bar, 0.5, math.pi)
    dx, dy = position[None, None, :] - x0, position[None, :, None] - y0
    across = dx * torch.cos(angle) + dy * torch.sin(angle)
    along = dy * torch.cos(angle) - dx * torch.sin(angle)
    half_width = torch.where(bar, 2.0, 0.1 + 0.25 * width)
    half_height = torch.where(bar, 0.06 + 0.12 * height, 0.1 + 0.25 * height)
    rx, ry = across / half_width, along / half_height
    inside = torch.where(ellipse, rx.square() + ry.square() < 1, (rx.abs() < 1) & (ry.abs() < 1))
    return torch.where(inside[:, None], grey[:, None], images)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Code and decode the luminance of each image (B, C, S, S) as baseline JPEG does (ITU-T T.81), in blocks of 8 px.

    Args:
        images: float in [0, 1].
        quality: (B,), 1 to 100, with the scale of the IJG's library.
    """
    side = images.shape[-1]
    padded = -(-side // 8) * 8
    x = torch.nn.functional.pad(images, (0, padded - side, 0, padded - side), mode="replicate")
    dct = _dct_on(padded, images.device)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # (B,)
    table = _luminance_on(images.device)
    steps = (scale[:, None, None] * table).round().clamp(1, 255)  # (B, 8, 8)
    steps = steps.repeat(1, padded // 8, padded // 8)[:, None]
    coefficients = dct @ (x * 255 - 128) @ dct.T
    decoded = dct.T @ ((coefficients / steps).round() * steps) @ dct
    return ((decoded + 128) / 255).clamp(0, 1)[..., :side, :side]


def _quantize(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


def _separable(matrix: Tensor, images: Tensor) -> Tensor:
    """Apply a linear map (B, S, S) to the rows and the columns of each image (B, C, S, S)."""
    return matrix[:, None] @ images @ matrix[:, None].transpose(2, 3)


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """Blur of each sigma (B,), px, as matrices (B, side, side) whose rows sum to 1; the identity where sigma is 0."""
    position = torch.arange(side, device=sigma.device, dtype=torch.float32)
    distance = (position[:, None] - position[None]).square()
    weights = torch.exp(-distance[None] / (2 * sigma[:, None, None].square()).clamp_min(1e-3))
    return weights / weights.sum(2, keepdim=True)


@lru_cache(maxsize=4)
def _resampling(side: int) -> tuple[Tensor, Tensor]:
    """Matrices (side, side, side) that shrink ``side`` to n px by area and enlarge n px to ``side``, at index n - 1.

    A shrunk image lies in the first n rows and columns. The rest repeats its last row and column, so that a block of
    JPEG that crosses the edge holds no false edge.
    """
    down, up = torch.zeros(side, side, side), torch.zeros(side, side, side)
    edges = torch.arange(side, dtype=torch.float32)
    for n in range(1, side + 1):
        step = side / n
        start = torch.arange(n, dtype=torch.float32)[:, None] * step
        overlap = torch.minimum(edges + 1, start + step) - torch.maximum(edges, start)
        down[n - 1, :n] = overlap.clamp_min(0) / step
        down[n - 1, n:] = down[n - 1, n - 1]
        centre = ((edges + 0.5) / step - 0.5).clamp(0, n - 1)  # of each pixel, in the shrunk image
        low = centre.floor().long()
        high, part = (low + 1).clamp_max(n - 1), centre - low
        rows = torch.arange(side)
        up[n - 1].index_put_((rows, low), 1 - part, accumulate=True)
        up[n - 1].index_put_((rows, high), part, accumulate=True)
    return down, up


@lru_cache(maxsize=4)
def _dct(side: int) -> Tensor:
    """The orthonormal discrete cosine transform of blocks of 8, as a matrix (side, side)."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    block = torch.cos(math.pi * (2 * n + 1) * k / 16) * math.sqrt(2 / 8)
    block[0] /= math.sqrt(2)
    transform = torch.zeros(side, side)
    for start in range(0, side, 8):
        transform[start : start + 8, start : start + 8] = block
    return transform


@lru_cache(maxsize=1)
def _noise_field() -> Tensor:
    return torch.randn(_NOISE_SIDE, _NOISE_SIDE, generator=torch.Generator().manual_seed(0))


# Kept per device: a copy from the host in every step waits for the device.
@lru_cache(maxsize=4)
def _resampling_on(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    down, up = _resampling(side)
    return down.to(device), up.to(device)


@lru_cache(maxsize=4)
def _dct_on(side: int, device: torch.device) -> Tensor:
    return _dct(side).to(device)


@lru_cache(maxsize=4)
def _luminance_on(device: torch.device) -> Tensor:
    return torch.tensor(_LUMINANCE, device=device).float()


@lru_cache(maxsize=4)
def _noise_field_on(device: torch.device) -> Tensor:
    return _noise_field().to(device)


def _noise(u: Tensor, side: int) -> Tensor:
    """Normal noise (B, side, side): a part of one fixed field for each image, at the place that u (B, 2) names."""
    place = (u * (_NOISE_SIDE - side)).long()
    rows = torch.arange(side, device=u.device)
    field = _noise_field_on(u.device)
    return field[(place[:, :1] + rows)[:, :, None], (place[:, 1:] + rows)[:, None, :]]
