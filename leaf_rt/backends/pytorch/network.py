"""Networks that are no classifiers, such as those of the face detector, in PyTorch: on a GPU, or for proof on the CPU.

Knows .onnx files and arrays; must not know what the outputs mean.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import torch

from leaf_rt.backends.base import Device
from leaf_rt.backends.pytorch.graph import OnnxGraph
from leaf_rt.backends.pytorch.runner import CpuRunner, CudaGpu, Gpu, GpuRunner, Runner
from leaf_rt.errors import BackendError, ModelError, first_line
from leaf_rt.text import counted
from leaf_rt.types import F32, U8

BUCKETS = (1, 2, 4, 8)  # images of a frame; larger batches are split


class TorchNetwork:
    """Runs an .onnx file with any outputs; see ``networks.Network``. On a GPU its callers take turns.

    Args:
        path: The file.
        gpu: See ``Gpu``; None takes the first GPU of this process, or the CPU if there is none.

    Raises:
        ModelError: The file is damaged, or contains an operator that is missing in ``OnnxGraph``.
    """

    def __init__(self, path: Path, gpu: Gpu | None = None) -> None:
        try:
            graph = onnx.load(path, load_external_data=False).graph
            side = graph.input[0].type.tensor_type.shape.dim[1].dim_value
            rows = {one.name: tuple(d.dim_value for d in one.type.tensor_type.shape.dim[1:]) for one in graph.output}
        except Exception as e:  # protobuf's errors have no public base class
            raise ModelError(f"{path}: PyTorch cannot load it ({first_line(e)})") from e
        network = OnnxGraph(path, outputs=tuple(rows)).eval()
        self.device: Device = "cpu"
        self._runner: Runner = CpuRunner(network)
        self._lock = threading.Lock()
        if gpu is None and torch.cuda.is_available():
            self.device, network, gpu = "cuda", network.to("cuda"), CudaGpu()
        if gpu is not None:
            self._runner = GpuRunner(network, gpu, side, tuple(rows.values()), BUCKETS)
            for bucket in BUCKETS:  # recorded now, while nothing else uses the GPU
                self._runner(np.zeros((bucket, side, side, 3), np.uint8))

    def __call__(self, images: U8) -> list[F32]:
        """Run the network; see ``networks.Network``."""
        try:
            with self._lock:
                return self._runner(images)
        except RuntimeError as e:
            raise BackendError(f"PyTorch failed on {counted(len(images), 'image')} ({first_line(e)})") from e
