"""One joint batch over several processes, started by torchrun.

Every process gathers the outputs of all processes and computes the loss of the joint batch, so that no loss function
has to know about processes. Knows torch.distributed; must not know models or losses.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leaf_rt.errors import BackendError, LeafError

STEP_TIMEOUT = timedelta(minutes=10)
SYNC_TIMEOUT = timedelta(days=1)  # of ``synchronized``: one process may fill the crop cache while the others wait


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process and its place among the processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Where this process computes.
        control_group: Process group that ``synchronized`` uses; None for a single process.
    """

    rank: int
    size: int
    device: torch.device
    control_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def local_rows(self, n: int) -> slice:
        """The rows of a joint batch of ``n`` that this process computes.

        Raises:
            ValueError: ``n`` is not a multiple of the number of processes.
        """
        if n % self.size:
            raise ValueError(f"a joint batch of {n} cannot be divided among {self.size} processes")
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, x: Tensor) -> Tensor:
        """Concatenate the rows (B, ...) of all processes to the joint batch (size * B, ...), with gradients."""
        if self.size == 1:
            return x
        out: Tensor = _Gather.apply(x, self.rank, self.size)  # type: ignore[no-untyped-call]
        return out

    def gather_views(self, outputs: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """Split each output (sum(sizes), ...) by view, and join the rows of all processes, in one exchange.

        Args:
            outputs: float32, with the same rows.
            sizes: Number of rows of each view in this process.

        Returns:
            For each output its views, of ``size`` times as many rows, with gradients.
        """
        if self.size == 1:
            return [torch.split(x, list(sizes)) for x in outputs]
        flat = [x.flatten(1) for x in outputs]
        widths = [x.shape[1] for x in flat]
        joint = self.gather(torch.cat(flat, 1)).view(self.size, sum(sizes), sum(widths))
        views = [torch.split(view.reshape(-1, sum(widths)), widths, 1) for view in torch.split(joint, list(sizes), 1)]
        return [
            tuple(view[i].reshape(len(view[i]), *x.shape[1:]) for view in views)  # (size * n, ...)
            for i, x in enumerate(outputs)
        ]

    def distribute(self, network: nn.Module, *, static: bool) -> DistributedDataParallel:
        """Wrap a network so that its backward pass averages the gradients over processes.

        The caller keeps the buffers equal, see ``average``.

        Args:
            network: The student.
            static: Whether every backward pass uses the same parameters and exchanges gradients. ``no_sync`` cannot be
                used with it: torch then fails an assertion of its own.
        """
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # in older torch
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True, "static_graph": static}
        on_gpu = self.device.type == "cuda"
        return DistributedDataParallel(network, device_ids=[self.device.index] if on_gpu else None, **options)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        if self.size == 1:
            return flag
        shared = torch.tensor(int(flag))  # on the CPU, between the hosts, so that no GPU is waited for
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control_group)
        return bool(shared.item())

    @torch.no_grad()
    def average(self, values: Iterable[Tensor]) -> None:
        """Replace each float tensor by its mean over all processes, in place. Other tensors stay as they are."""
        floats = [v for v in values if v.is_floating_point()]
        if self.size == 1 or not floats:
            return
        joined = torch.cat([v.flatten().float() for v in floats])
        dist.all_reduce(joined)
        joined /= self.size
        for v, mean in zip(floats, torch.split(joined, [v.numel() for v in floats]), strict=True):
            v.copy_(mean.view_as(v))

    @contextmanager
    def synchronized(self) -> Iterator[None]:
        """Wait at the end of the block for all processes. A LeafError in one process ends all of them.

        Raises:
            LeafError: The error of this process, unless a lower rank raises the same one.
            SystemExit: Another process raises the error.
        """
        if self.control_group is None:
            yield
            return
        error: LeafError | None = None
        try:
            yield
        except LeafError as e:
            error = e
        mine = None if error is None else (error.exit_code, str(error))
        failures: list[tuple[int, str] | None] = [None] * self.size
        dist.all_gather_object(failures, mine, group=self.control_group)
        if error is not None and failures.index(mine) == self.rank:
            raise error
        for failure in failures:
            if failure is not None:
                raise SystemExit(failure[0])


@contextmanager
def raise_on_rank_zero() -> Iterator[None]:
    """Report an error that every process finds by itself, before the processes are connected, once.

    Raises:
        LeafError: In the process of rank 0.
        SystemExit: In the other processes, with the exit code of the error.
    """
    try:
        yield
    except LeafError as e:
        if int(os.environ.get("RANK", "0")) > 0:
            raise SystemExit(e.exit_code) from e
        raise


class _Gather(torch.autograd.Function):
    """Forward: the rows of all processes. Backward: the sum over processes of the gradients of this process's rows.

    Every process computes the same joint loss, so the sum is ``size`` times the gradient. DistributedDataParallel
    averages over processes, which divides it by ``size`` again.
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
    """Make the batch norms of a model on CUDA use the statistics of the joint batch, in place.

    Returns:
        The number of batch norms that still see the rows of this process only: all of them on a CPU, where torch has
        no synchronised batch norm, and subclasses of torch's batch norms.
    """
    unsynchronized = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d and child.weight.is_cuda:
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                unsynchronized += 1
    return unsynchronized


def pick_device(choice: str, local_rank: int = 0) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        BackendError: "cuda" is required and PyTorch finds no CUDA device.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise BackendError("--run.device cuda: PyTorch finds no CUDA device here; install a CUDA build or use cpu")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def distributed_context(choice: str) -> Iterator[DistributedContext]:
    """Connect the processes that torchrun started. Without torchrun the context holds this process only.

    Args:
        choice: See ``pick_device``.

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
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=STEP_TIMEOUT)
    try:
        control_group = dist.new_group(backend="gloo", timeout=SYNC_TIMEOUT)
        yield DistributedContext(dist.get_rank(), size, device, control_group)
    finally:
        dist.destroy_process_group()
