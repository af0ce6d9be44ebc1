"""Many processes, one joint batch: PyTorch's own engine, started by torchrun.

Every process computes the loss of the joint batch from gathered outputs, so no loss needs to know of the others.
Knows torch.distributed; must not know what a model computes, or losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leaf_rt.errors import BackendError, LeafError

TIMEOUT = timedelta(minutes=10)  # of a step
PATIENCE = timedelta(
    days=1
)  # of ``DistributedContext.together``, as where one process finds the faces of a data set for all


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among its fellows; ``words`` is their group for ``together``, None where it is alone."""

    rank: int
    size: int
    device: torch.device
    words: dist.ProcessGroup | None = None

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

    @torch.no_grad()
    def average(self, values: Iterable[Tensor]) -> None:
        """Give every process the mean over processes of these tensors, in place; what is no float is left alone."""
        floats = [v for v in values if v.is_floating_point()]
        if self.size == 1 or not floats:
            return
        joined = torch.cat([v.flatten().float() for v in floats])
        dist.all_reduce(joined)
        joined /= self.size
        for v, mean in zip(floats, torch.split(joined, [v.numel() for v in floats]), strict=True):
            v.copy_(mean.view_as(v))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for everybody at the end; what a person can act on ends all processes, and is said once.

        Raises:
            LeafError: This process's problem, where no process before it has the same.
            SystemExit: Another process says what is wrong.
        """
        if self.words is None:
            yield
            return
        problem: LeafError | None = None
        try:
            yield
        except LeafError as e:
            problem = e
        mine = None if problem is None else (problem.exit_code, str(problem))
        all_said: list[tuple[int, str] | None] = [None] * self.size
        dist.all_gather_object(all_said, mine, group=self.words)
        if problem is not None and all_said.index(mine) == self.rank:
            raise problem
        for said in all_said:
            if said is not None:
                raise SystemExit(said[0])


@contextmanager
def said_once() -> Iterator[None]:
    """What every process finds wrong by itself, before it knows the others, is said by the first alone.

    Raises:
        LeafError: In the first process.
        SystemExit: In the others.
    """
    try:
        yield
    except LeafError as e:
        if int(os.environ.get("RANK", "0")) > 0:
            raise SystemExit(e.exit_code) from e
        raise


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


def sync_batch_norms(model: nn.Module) -> int:
    """Let the batch norms of a model on CUDA see the joint batch, in place.

    Returns:
        How many see this process's share alone: all on a CPU, where torch has none that sees more, and kinds that
        are not torch's own.
    """
    left = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d and child.weight.is_cuda:
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                left += 1
    return left


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
def world(choice: str) -> Iterator[DistributedContext]:
    """Join the processes that torchrun started, or be alone.

    Raises:
        BackendError: See ``pick_device``.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(choice, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield DistributedContext(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        words = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield DistributedContext(dist.get_rank(), size, device, words)
    finally:
        dist.destroy_process_group()
