"""The part of ``device_check`` about TensorRT's runner, with PyTorch in the place of TensorRT."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.pytorch.graph import OnnxGraph
from leaf_rt.backends.reference import fp32_answers
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, variant_path


class Memory:
    """Memory of the runner, as PyTorch sees it."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": kind, "data": (address, False), "version": 3}


class TorchContext:
    """What ``EngineRunner`` wants of TensorRT's IExecutionContext, computed by PyTorch on the runner's own stream."""

    def __init__(self, graph: OnnxGraph, rows: dict[str, int], pool: object) -> None:
        self.graph, self.rows, self.pool = graph, rows, pool
        self.at: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.views: dict[str, torch.Tensor] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.at[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def view(self, name: str, shape: tuple[int, ...], kind: str) -> torch.Tensor:
        """Made in the run before the recording, because the recording must not ask CUDA for anything."""
        if name not in self.views:
            self.views[name] = torch.as_tensor(Memory(self.at[name], shape, kind), device="cuda")
        return self.views[name]

    @torch.no_grad()
    def execute_async_v3(self, stream: int) -> bool:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)), torch.cuda.use_mem_pool(self.pool):  # type: ignore[arg-type]
            answer = self.graph(self.view("faces", self.shape, "|u1"))
            for (name, columns), value in zip(self.rows.items(), answer, strict=True):
                self.view(name, (self.shape[0], columns), "<f4").copy_(value)
        return True


class TorchPlan:
    """A ``LoadedPlan`` of such contexts."""

    memory = 0

    def __init__(self, graph: OnnxGraph, rows: dict[str, int]) -> None:
        self.graph, self.rows, self.pool = graph, rows, torch.cuda.MemPool()

    def context(self, address: int) -> TorchContext:
        return TorchContext(self.graph, self.rows, self.pool)

    def capturable(self, context: TorchContext, stream: int) -> bool:
        return True


def engine_runner() -> dict[str, Any]:
    """TensorRT's runner with its real streams, pinned memory and graphs, and PyTorch in the place of TensorRT."""
    from leaf_rt.backends.tensorrt.cuda import CudaRuntime
    from leaf_rt.backends.tensorrt.runner import EngineRunner

    spec = load_spec(DEFAULT_MODEL)
    faces, wanted = golden_faces(spec.side), fp32_answers(DEFAULT_MODEL, spec)
    graph = OnnxGraph(variant_path(DEFAULT_MODEL, "fp16")).eval().to("cuda")
    rows = {"probs": len(spec.labels), "features": spec.feature_dim}

    def make(largest: int) -> EngineRunner:
        return EngineRunner(
            TorchPlan(graph, rows), CudaRuntime(), spec.side, len(spec.labels), spec.feature_dim, largest
        )

    worst, graphs = 0.0, 0
    with make(64) as engine:
        for count in (1, 3, 32, 5, 64, 9, 1, 100, 2, 32, 17, 256, 50, 4):
            for shift in (0, 7):
                crops = np.roll(faces, shift, 0)[:count]
                difference = np.abs(engine.infer(crops).probs - np.roll(wanted.probs, shift, 0)[:count])
                worst = max(worst, float(difference.max()))
        graphs = sum(graph is not None for graph in engine._graphs.values())
        speed = {batch: faces_per_s(engine.infer, faces, batch) for batch in (1, 8, 32, 64)}
    free = torch.cuda.mem_get_info()[0]
    for _ in range(10):
        with make(8) as engine:
            engine.infer(faces[:5])
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    lost = (free - torch.cuda.mem_get_info()[0]) / 2**20
    assert worst < 0.02, worst
    return {
        "largest_difference": worst,
        "recorded": graphs,
        "faces_per_s": speed,
        "lost_MiB_in_10_opens": round(lost, 1),
    }


def faces_per_s(infer: Callable[[Any], object], faces: np.ndarray, batch: int, calls: int = 30) -> int:
    crops = np.ascontiguousarray(np.resize(faces, (batch, *faces.shape[1:])))
    took = []
    for _ in range(calls):
        begin = time.perf_counter()
        infer(crops)
        took.append(time.perf_counter() - begin)
        if sum(took) > 3:
            break
    return round(batch / float(np.median(took)))
