"""Runs an engine on batches of any size, with fixed buffers, one stream and one CUDA graph per bucket of batch sizes.

Knows an execution context and ``Cuda``; must not know files or builders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaf_rt.backends.tensorrt.cuda import Cuda
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
    """Runs face crops through an execution context; a context manager. Not thread-safe.

    Args:
        context: TensorRT's IExecutionContext.
        cuda: See ``Cuda``.
        side: Side of the crops, px.
        labels: Number of classes C.
        features: Number of features D.
        largest: Largest batch of the engine's profile; larger batches are split.
    """

    def __init__(self, context: Any, cuda: Cuda, side: int, labels: int, features: int, largest: int) -> None:
        self._context, self._cuda = context, cuda
        self.largest = largest
        self.buckets = (*(b for b in BUCKETS if b < largest), largest)
        self._graphs: dict[int, Any] = {}
        self._tensors: list[_Tensor] = []
        self._stream: int | None = None
        try:
            self._stream = cuda.stream()
            self._faces = self._tensor("faces", (side, side, 3), 1)
            self._probs = self._tensor("probs", (labels,), 4)
            self._features = self._tensor("features", (features,), 4)
        except BackendError:
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
        """Free graphs, buffers and the stream. May be called twice."""
        cuda = self._cuda
        graphs, self._graphs = self._graphs, {}
        tensors, self._tensors = self._tensors, []
        stream, self._stream = self._stream, None
        for graph in graphs.values():
            cuda.free_graph(graph)
        for tensor in tensors:
            cuda.free(tensor.device)
            cuda.free_pinned(tensor.host)
        if stream is not None:
            cuda.free_stream(stream)
        self._context = None

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
        if not self._context.set_tensor_address(name, device):
            raise BackendError(f"the engine has no tensor {name!r}; delete it from the cache")
        return tensor

    def _run(self, faces: U8) -> None:
        """Run a part of a batch; afterwards the outputs are in the pinned buffers."""
        if self._stream is None:
            raise BackendError("the engine is closed")
        bucket = next(b for b in self.buckets if b >= len(faces))
        used = self._faces.nbytes(len(faces))
        self._faces.array[:used] = np.ascontiguousarray(faces).reshape(-1)
        self._faces.array[used : self._faces.nbytes(bucket)] = 0  # padding must not contain faces of earlier batches
        if bucket not in self._graphs:
            self._record(bucket)
        self._cuda.launch(self._graphs[bucket], self._stream)
        self._cuda.synchronize(self._stream)

    def _record(self, bucket: int) -> None:
        """Record the CUDA graph of a bucket: upload, network, download.

        The network must run once with this shape first, or the graph would contain its initialization.
        """
        cuda, stream = self._cuda, self._stream
        assert stream is not None  # checked in _run
        if not self._context.set_input_shape("faces", (bucket, *self._faces.row)):
            raise BackendError(f"the engine refuses a batch of {bucket}; its profile ends at {self.largest}")
        self._queue(bucket, stream)
        cuda.synchronize(stream)
        cuda.begin_capture(stream)
        try:
            self._queue(bucket, stream)
        except BackendError:
            cuda.end_capture(stream)  # a stream that is still recording cannot be used again
            raise
        self._graphs[bucket] = cuda.end_capture(stream)

    def _queue(self, bucket: int, stream: int) -> None:
        faces = self._faces
        self._cuda.upload(faces.device, faces.host, faces.nbytes(bucket), stream)
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"the engine refused to run a batch of {bucket}; see the log above")
        for tensor in (self._probs, self._features):
            self._cuda.download(tensor.host, tensor.device, tensor.nbytes(bucket), stream)

    def _answer(self, tensor: _Tensor, count: int) -> F32:
        values: F32 = tensor.array[: tensor.nbytes(count)].view(np.float32).reshape(count, *tensor.row)
        return values
