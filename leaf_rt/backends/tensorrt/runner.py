"""Runs an engine on batches of any size, with fixed buffers, one stream and one CUDA graph per bucket of batch sizes.

Each bucket has its own execution context, because a graph must not be replayed after its context ran another shape.
Knows execution contexts and ``Cuda``; must not know files or builders.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from leaf_rt.backends.tensorrt.cuda import Cuda
from leaf_rt.backends.tensorrt.plan import LoadedPlan
from leaf_rt.errors import BackendError
from leaf_rt.types import F32, U8, Prediction

BUCKETS = (1, 2, 4, 8, 16, 32)


@dataclass(slots=True)
class _Tensor:
    """One input or output, with buffers for the largest batch on the GPU and on the host."""

    name: str
    row: tuple[int, ...]  # shape of one face
    itemsize: int
    device: int
    host: int
    array: U8

    def nbytes(self, batch: int) -> int:
        return batch * math.prod(self.row) * self.itemsize


class EngineRunner:
    """Runs face crops through a loaded plan; a context manager. Not thread-safe.

    Args:
        plan: See ``LoadedPlan``.
        cuda: See ``Cuda``.
        side: Side of the crops, px.
        labels: Number of classes C.
        features: Number of features D.
        largest: Largest batch of the engine's profile; larger batches are split.
        least: Smallest batch of the engine's profile; smaller batches are filled up.
    """

    def __init__(
        self, plan: LoadedPlan, cuda: Cuda, side: int, labels: int, features: int, largest: int, least: int = 1
    ) -> None:
        self._plan, self._cuda = plan, cuda
        self.largest = largest
        self.buckets = tuple(sorted({least, largest, *(b for b in BUCKETS if least < b < largest)}))
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}  # None where the engine cannot be recorded
        self._tensors: list[_Tensor] = []
        self._memory: int | None = None
        self._stream: int | None = None
        try:
            self._stream = cuda.stream()
            self._faces = self._tensor("faces", (side, side, 3), 1)
            self._probs = self._tensor("probs", (labels,), 4)
            self._features = self._tensor("features", (features,), 4)
            self._memory = cuda.device(max(plan.memory, 1))
            for bucket in self.buckets:
                self._contexts[bucket] = self._context(bucket, self._memory)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def infer(self, faces: U8) -> Prediction:
        """Classify face crops.

        Args:
            faces: (N, side, side, 3) uint8 BGR, N >= 1.

        Raises:
            BackendError: The engine refused the batch, or CUDA failed.
        """
        probs = np.empty((len(faces), *self._probs.row), np.float32)
        features = np.empty((len(faces), *self._features.row), np.float32)
        for start in range(0, len(faces), self.largest):
            part = faces[start : start + self.largest]
            self._run(part)
            rows = slice(start, start + len(part))
            probs[rows] = self._answer(self._probs, len(part))
            features[rows] = self._answer(self._features, len(part))
        return Prediction(probs, features)

    def close(self) -> None:
        """Free graphs, buffers and the stream. May be called twice.

        After an error of CUDA every further call fails too. The first one was raised where it happened, so this raises
        nothing, and frees what can be freed.
        """
        cuda = self._cuda
        graphs, self._graphs = self._graphs, {}
        tensors, self._tensors = self._tensors, []
        memory, self._memory = self._memory, None
        stream, self._stream = self._stream, None
        frees = [partial(cuda.free_graph, graph) for graph in graphs.values() if graph is not None]
        frees += [partial(cuda.free, tensor.device) for tensor in tensors]
        frees += [partial(cuda.free_pinned, tensor.host) for tensor in tensors]
        frees += [partial(cuda.free, memory)] if memory is not None else []
        frees += [partial(cuda.free_stream, stream)] if stream is not None else []
        self._contexts = {}  # before the memory in which they run
        for free in frees:
            with contextlib.suppress(BackendError):
                free()

    def _tensor(self, name: str, row: tuple[int, ...], itemsize: int) -> _Tensor:
        nbytes = self.largest * math.prod(row) * itemsize
        device = self._cuda.device(nbytes)
        try:
            host, array = self._cuda.pinned(nbytes)
        except BackendError:
            self._cuda.free(device)
            raise
        tensor = _Tensor(name, row, itemsize, device, host, array)
        self._tensors.append(tensor)
        return tensor

    def _context(self, bucket: int, memory: int) -> Any:
        """The execution context of a bucket, with its shape and the addresses of all tensors."""
        context = self._plan.context(memory)
        if context is None:
            raise BackendError("the engine cannot be started; free GPU memory, or delete it from the cache")
        for tensor in self._tensors:
            if not context.set_tensor_address(tensor.name, tensor.device):
                raise BackendError(f"the engine has no tensor {tensor.name!r}; delete it from the cache")
        if not context.set_input_shape("faces", (bucket, *self._faces.row)):
            raise BackendError(f"the engine refuses a batch of {bucket}; its profile ends before {self.largest}")
        return context

    def _run(self, faces: U8) -> None:
        """Run a part of a batch; afterwards the outputs are in the pinned buffers."""
        if self._stream is None:
            raise BackendError("the engine is closed")
        bucket = next(b for b in self.buckets if b >= len(faces))
        used = self._faces.nbytes(len(faces))
        self._faces.array[:used] = np.ascontiguousarray(faces).reshape(-1)
        self._faces.array[used : self._faces.nbytes(bucket)] = 0  # padding must not contain faces of earlier batches
        if bucket not in self._graphs:
            # Once without recording, or the graph would contain the initialization of the network.
            self._queue(bucket, self._stream)
            self._cuda.synchronize(self._stream)
            self._graphs[bucket] = self._record(bucket, self._stream)
        graph = self._graphs[bucket]
        if graph is None:
            self._queue(bucket, self._stream)
        else:
            self._cuda.launch(graph, self._stream)
        self._cuda.synchronize(self._stream)

    def _record(self, bucket: int, stream: int) -> Any:
        """The CUDA graph of a bucket: upload, network, download. None if the engine cannot be recorded."""
        if not self._plan.capturable(self._contexts[bucket], stream):
            return None
        self._cuda.begin_capture(stream)
        try:
            self._queue(bucket, stream)
            return self._cuda.end_capture(stream)
        except BackendError:  # the same work ran a moment ago, so it is the recording that is refused
            self._cuda.abort_capture(stream)  # a stream that is still recording cannot be used again
            return None

    def _queue(self, bucket: int, stream: int) -> None:
        faces = self._faces
        self._cuda.upload(faces.device, faces.host, faces.nbytes(bucket), stream)
        if not self._contexts[bucket].execute_async_v3(stream):
            raise BackendError(f"the engine refused to run a batch of {bucket}; see the log above")
        for tensor in (self._probs, self._features):
            self._cuda.download(tensor.host, tensor.device, tensor.nbytes(bucket), stream)

    def _answer(self, tensor: _Tensor, count: int) -> F32:
        values: F32 = tensor.array[: tensor.nbytes(count)].view(np.float32).reshape(count, *tensor.row)
        return values
