"""Many processes, one joint batch: PyTorch's own engine, started by torchrun.

Every process computes the loss of the joint batch from gathered outputs, so no loss needs to know of the others.
Knows torch.distributed; must not know models or losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from leaf_rt.errors import BackendError

TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class World:
    """This process among its fellows."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's rows of a joint batch of n.

        Raises:
            ValueError: n cannot be divided evenly.
        """
        if n % self.size:
            raise ValueError(f"a joint batch of {n} cannot be divided among {self.size} processes")
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, x: Tensor) -> Tensor:
        """The joint batch (size * B, ...) of everybody's rows (B, ...), with gradients."""
        if self.size == 1:
            return x
        out: Tensor = _Gather.apply(x, self.rank, self.size)  # type: ignore[no-untyped-call]
        return out

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        shared = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared.item())

    def barrier(self) -> None:
        """Wait for everybody."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, the sum of everybody's gradient for this process's rows.

    Every process computes the same joint loss, so that sum is ``size`` times the gradient; DistributedDataParallel's
    averaging over processes divides it again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(x)
        parts = [torch.empty_like(x) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None, None


def pick_device(choice: str, local_rank: int = 0) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        BackendError: CUDA was asked for and is not there.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise BackendError("--run.device cuda: PyTorch finds no CUDA device here; install a CUDA build or use cpu")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def world(choice: str) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone.

    Raises:
        BackendError: See ``pick_device``.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(choice, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
