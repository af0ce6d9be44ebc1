"""All aligned faces of a frame in one pass on a GPU.

The frame goes up once, through page-locked memory. An integral image gives the mean of any block of pixels with four
reads, so that faces of every size share one set of kernels. On a CPU the same code runs for proof.

Knows images and plans (see ``Cropper``); must not know faces.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from leaf_rt.errors import BackendError, first_line
from leaf_rt.text import counted
from leaf_rt.types import F32, U8


class TorchCropper:
    """Cuts crops out of frames; see ``Cropper``.

    Each thread that calls it has its own stream and buffer, so that sources do not wait for each other, and so that
    the frames of one overlap with the network and the crops of others. On a GPU a thread needs about 40 bytes per pixel
    of its largest frame.

    Args:
        device: "cuda", the first GPU of this process, or "cpu".
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._own = threading.local()

    @torch.inference_mode()
    def __call__(self, image: U8, plans: F32, side: int) -> U8:
        """Cut crops out of a frame; see ``Cropper``."""
        try:
            with self._work():
                host = self._room(image.size).view(image.shape)
                host.numpy()[:] = image
                frame = host.to(self._device, non_blocking=True)
                crops = sample(frame, torch.from_numpy(plans).to(self._device), side)
                return np.asarray(crops.cpu().numpy(), np.uint8)  # waits for everything on this stream
        except RuntimeError as e:
            raise BackendError(f"PyTorch failed on the crops of {counted(len(plans), 'face')} ({first_line(e)})") from e

    def _work(self) -> AbstractContextManager[object]:
        """What is called inside runs on the stream of this thread."""
        if self._device.type == "cpu":
            return contextlib.nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)

    def _room(self, count: int) -> Tensor:
        """(count,) uint8 on the host, the memory of this thread; page-locked for a GPU."""
        if not hasattr(self._own, "host") or len(self._own.host) < count:
            self._own.host = torch.empty(count, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        room: Tensor = self._own.host[:count]
        return room


def checked_cropper(device: str) -> TorchCropper:
    """A cropper that cuts a test picture like the CPU.

    Args:
        device: "cuda", the first GPU of this process, or "cpu".

    Raises:
        BackendError: It does not, or the device failed.
    """
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    plans = np.array([
        [0.9, 0.3, 20.4, -0.3, 0.9, 30.7, 1, 0, 0, 120, 90],  # between pixels
        [0.5, 0.0, -2.0, 0.0, 0.5, 7.3, 5, 11, 3, 20, 15],  # of blocks, and beyond their border
    ], np.float32)  # fmt: skip
    cropper = TorchCropper(device)
    difference = cropper(frame, plans, 32).astype(np.int16) - TorchCropper("cpu")(frame, plans, 32)
    if np.abs(difference).max() > 1:
        raise BackendError("PyTorch cuts other crops on this GPU than on the CPU")
    return cropper


def gpu_cropper() -> TorchCropper | None:
    """A checked cropper on the first GPU of this process; None if PyTorch finds none.

    Raises:
        BackendError: See ``checked_cropper``.
    """
    return checked_cropper("cuda") if torch.cuda.is_available() else None


def sample(image: Tensor, plans: Tensor, side: int) -> Tensor:
    """Cut crops out of an image, all on its device; arguments and result as in ``Cropper``."""
    # sums[r, c] is the sum of all pixels above row r and left of column c; int32 may wrap around, differences do not.
    sums = image.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    sums = torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))
    width = sums.shape[1]
    sums = sums.flatten(0, 1)
    matrix = plans[:, :6].T[..., None, None]  # (6, N, 1, 1)
    factor, left, top, columns, rows = plans[:, 6:].long().T[..., None, None]  # (N, 1, 1) each
    x = torch.arange(side, device=image.device, dtype=torch.float32)
    y = x[:, None]
    u = matrix[0] * x + matrix[1] * y + matrix[2]  # (N, side, side), in blocks
    v = matrix[3] * x + matrix[4] * y + matrix[5]
    u0, v0 = u.floor(), v.floor()
    right, down = (u - u0)[..., None], (v - v0)[..., None]
    # The four blocks around a sample, (4, N, side, side): upper left, upper right, lower left, lower right.
    c = torch.stack((u0, u0 + 1, u0, u0 + 1)).long().clamp_min(0).minimum(columns - 1) * factor + left
    r = torch.stack((v0, v0, v0 + 1, v0 + 1)).long().clamp_min(0).minimum(rows - 1) * factor + top
    first = r * width + c
    below = first + factor * width
    total = sums[below + factor] - sums[below] - sums[first + factor] + sums[first]
    means = (total / (factor * factor)[..., None]).round()
    upper, lower = means[0].lerp(means[1], right), means[2].lerp(means[3], right)
    crops: Tensor = upper.lerp(lower, down).round().to(torch.uint8)
    return crops
