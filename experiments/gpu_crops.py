"""All aligned crops of a frame in one pass on a GPU: an experiment that ``python -m experiments gpu`` measures.

``leaf_rt.faces.alignment.crop_faces`` cuts one face after the other on the CPU. Here the frame goes up once, and an
integral image gives the mean of any block of pixels with four reads, so that faces of every size share one set of
kernels. The result differs from ``crop_faces`` by at most one step of 255. The pipeline does not use it: whether the
copy of the frame costs less than it saves has to be measured first.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leaf_rt.faces.alignment import ALIGN_POINTS, crop_faces, shrink_by_area, similarity, template


def time_crops(device: str, faces: int, height: int, width: int, calls: int = 50) -> dict[str, float]:
    """Median times for the crops of a frame, in ms: on the CPU, and on the device with both copies."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    centers = rng.uniform((0, 0), (width, height), (faces, 1, 2))
    keypoints = (centers + rng.normal(0, height / 16, (faces, 6, 2))).astype(np.float32)
    pinned = torch.from_numpy(frame.copy())
    pinned = pinned.pin_memory() if device == "cuda" else pinned

    def at_once() -> object:
        return crop_faces_at_once(pinned.to(device, non_blocking=True), keypoints, 64, 0.05).cpu()

    times: dict[str, float] = {}
    for name, run in (("cpu_ms", lambda: crop_faces(frame, keypoints, 64, 0.05)), (f"{device}_at_once_ms", at_once)):
        took = []
        for _ in range(calls + 3):
            begin = time.perf_counter()
            run()
            took.append((time.perf_counter() - begin) * 1e3)
        times[name] = round(statistics.median(took[3:]), 3)
    return times


@torch.inference_mode()
def crop_faces_at_once(image: Tensor, keypoints: NDArray[np.float32], side: int, margin: float) -> Tensor:
    """Cut aligned faces out of an image; see ``crop_faces``.

    Args:
        image: (H, W, 3) uint8, on any device.
        keypoints: (N, 6, 2) float32, px.
        side: Side of the square crops, px.
        margin: See ``leaf_rt.faces.alignment.template``.

    Returns:
        (N, side, side, 3) uint8 on the same device. A face whose points coincide gives zeros.
    """
    height, width = image.shape[:2]
    matrices = similarity(np.ascontiguousarray(keypoints[:, ALIGN_POINTS]), template(side, margin)).astype(np.float64)
    finite = np.isfinite(matrices).all((1, 2))
    # Per face: matrix from crop to blocks of pixels (6), side of a block (1), first pixel (2), number of blocks (2).
    plans = np.ones((len(matrices), 11))
    for plan, matrix in zip(plans, matrices, strict=True):
        if np.isfinite(matrix).all():
            blocks, factor, low, size = shrink_by_area(matrix, side, height, width)
            linear = np.linalg.inv(blocks[:, :2])
            # Pixel centers are at half integers in these matrices, and at integers in the rows of a tensor.
            shift = linear @ (0.5 - blocks[:, 2]) - 0.5
            plan[:] = (*np.column_stack([linear, shift]).reshape(-1), factor, *low, *size)
    crops = _sample(image, torch.from_numpy(plans.astype(np.float32)).to(image.device), side)
    crops[torch.from_numpy(~finite).to(image.device)] = 0
    return crops


def _sample(image: Tensor, plans: Tensor, side: int) -> Tensor:
    """Bilinear samples between blocks of pixels, (N, side, side, 3) uint8; see ``plans`` above."""
    a = plans[:, :6, None, None]  # (N, 6, 1, 1)
    factor, left, top, columns, rows = (plans[:, k, None, None].long() for k in range(6, 11))
    ticks = torch.arange(side, device=image.device, dtype=torch.float32)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    u, v = a[:, 0] * x + a[:, 1] * y + a[:, 2], a[:, 3] * x + a[:, 4] * y + a[:, 5]  # (N, side, side), in blocks
    u0, v0 = u.floor(), v.floor()
    right, down = (u - u0)[..., None], (v - v0)[..., None]
    # sums[r, c] is the sum of all pixels above row r and left of column c; int32 may wrap around, differences do not.
    sums = image.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    sums = torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))

    def block(u: Tensor, v: Tensor) -> Tensor:
        """Means (N, side, side, 3) of the blocks at column u and row v; outside, the border is repeated."""
        c = left + torch.minimum(u.long().clamp_min(0), columns - 1) * factor
        r = top + torch.minimum(v.long().clamp_min(0), rows - 1) * factor
        total = sums[r + factor, c + factor] - sums[r, c + factor] - sums[r + factor, c] + sums[r, c]
        return (total / (factor * factor)[..., None]).round()

    upper = torch.lerp(block(u0, v0), block(u0 + 1, v0), right)
    lower = torch.lerp(block(u0, v0 + 1), block(u0 + 1, v0 + 1), right)
    return torch.lerp(upper, lower, down).round().clamp(0, 255).to(torch.uint8)
