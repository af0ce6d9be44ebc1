"""Runs a module on batches of any size.

On a GPU it has pinned buffers, one stream, and one CUDA graph per bucket of batch sizes.

Knows modules and arrays; must not know files or precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from leaf_rt.types import F32, U8

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CPU_BATCH = 32  # the batch in which a CPU is checked; it has no buckets
Answer: TypeAlias = tuple[Tensor, ...]  # (N, ...) float32 each; of a classifier (N, C) and (N, D)
Run: TypeAlias = Callable[[], Answer]


class Runner(Protocol):
    """Runs images through a network. Not thread-safe.

    Attributes:
        buckets: Batch sizes that it treats differently.
    """

    buckets: tuple[int, ...]

    def __call__(self, faces: U8) -> list[F32]:
        """Return what the network answers for (N, S, S, 3) uint8 BGR images, N >= 1: arrays of its own, (N, ...)."""
        ...

    def close(self) -> None:
        """Free what was recorded."""
        ...


class CpuRunner:
    """``Runner`` on the CPU: a plain call."""

    buckets: tuple[int, ...] = (CPU_BATCH,)

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.inference_mode()
    def __call__(self, faces: U8) -> list[F32]:
        """Run the network; see ``Runner``."""
        batch = torch.empty(faces.shape, dtype=torch.uint8)
        batch.numpy()[:] = faces  # also copies arrays that are read-only or mirrored
        return [part.numpy() for part in self._network(batch)]

    def close(self) -> None:
        """Nothing to do: the network is freed with this object."""


class Gpu(Protocol):
    """The few calls of ``torch.cuda`` that ``GpuRunner`` needs."""

    def host(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A page-locked tensor on the host."""
        ...

    def device(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor on the GPU."""
        ...

    def work(self) -> AbstractContextManager[object]:
        """What is called inside runs in the order of its calls."""
        ...

    def record(self, run: Run) -> tuple[Callable[[], None], Answer] | None:
        """Record what a function does; returns its replay and its results, or None if it cannot be recorded."""
        ...

    def wait(self) -> None:
        """Wait until all work is done."""
        ...


class CudaGpu:
    """``Gpu`` on the first GPU of this process."""

    def __init__(self) -> None:
        torch.cuda.synchronize()  # the weights went up on another stream
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # graphs never run at once, so they may share their memory

    def host(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """See ``Gpu``."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def device(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """See ``Gpu``."""
        return torch.empty(shape, dtype=dtype, device="cuda")

    def work(self) -> AbstractContextManager[object]:
        """See ``Gpu``."""
        return torch.cuda.stream(self._stream)

    def record(self, run: Run) -> tuple[Callable[[], None], Answer] | None:
        """See ``Gpu``. Other threads may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        self.wait()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                answer = run()
        except RuntimeError:  # the same work ran a moment ago, so it is the recording that is refused
            return None
        return graph.replay, answer

    def wait(self) -> None:
        """See ``Gpu``."""
        self._stream.synchronize()


class GpuRunner:
    """``Runner`` on a GPU.

    Args:
        network: On that GPU, in eval mode.
        gpu: See ``Gpu``.
        side: Side of the images, px.
        rows: Shape of each output for one image; of a classifier (C,) and (D,).
        buckets: Batch sizes, ascending; larger batches are split.
    """

    def __init__(
        self, network: nn.Module, gpu: Gpu, side: int, rows: Sequence[tuple[int, ...]],
        buckets: tuple[int, ...] = BUCKETS,
    ) -> None:  # fmt: skip
        self.buckets = buckets
        self._network, self._gpu = network, gpu
        largest = buckets[-1]
        self._host_faces = gpu.host(largest, side, side, 3, dtype=torch.uint8)
        self._faces = gpu.device(largest, side, side, 3, dtype=torch.uint8)
        self._host_answer = [gpu.host(largest, *row, dtype=torch.float32) for row in rows]
        self._runs: dict[int, Run] = {}

    @torch.inference_mode()
    def __call__(self, faces: U8) -> list[F32]:
        """Run the network; see ``Runner``."""
        largest = self.buckets[-1]
        parts = [self._part(faces[start : start + largest]) for start in range(0, len(faces), largest)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(one) for one in zip(*parts, strict=True)]

    def close(self) -> None:
        """Free the graphs. They refer to this object, which would keep their memory until Python looks for cycles."""
        self._runs.clear()

    def _part(self, faces: U8) -> list[F32]:
        count = len(faces)
        bucket = next(b for b in self.buckets if b >= count)
        host = self._host_faces.numpy()
        host[:count] = faces
        host[count:bucket] = 0  # padding must not contain faces of earlier batches
        with self._gpu.work():
            self._faces[:bucket].copy_(self._host_faces[:bucket], non_blocking=True)
            if bucket not in self._runs:
                self._runs[bucket] = self._prepare(bucket)
            answer = self._runs[bucket]()
            for there, here in zip(answer, self._host_answer, strict=True):
                here[:count].copy_(there[:count], non_blocking=True)
        self._gpu.wait()
        return [here[:count].numpy().copy() for here in self._host_answer]

    def _prepare(self, bucket: int) -> Run:
        """The network for a bucket: the replay of its CUDA graph, or a plain call where it cannot be recorded."""

        def plain() -> Answer:
            # Without TF32: an fp32 model must answer like on a CPU.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                return tuple(self._network(self._faces[:bucket]))

        for _ in range(3):  # cuDNN and cuBLAS set themselves up, which cannot be recorded
            plain()
        recorded = self._gpu.record(plain)
        if recorded is None:
            return plain
        replay, answer = recorded

        def run() -> Answer:
            replay()
            return answer

        return run
