"""The few CUDA calls that the engine runner makes, through cuda-bindings, and the look whether there is a GPU at all.

Without a driver TensorRT's own objects crash the process, so ``probe`` comes before any of them. Knows CUDA's runtime;
must not know TensorRT or models.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from leaf_rt.errors import BackendError
from leaf_rt.types import U8


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that will be used: what a plan depends on.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability, "9.0".
        multiprocessors: How many.
        memory: Bytes.
        driver: Version of the driver, or of the CUDA that it supports.
    """

    name: str
    capability: str
    multiprocessors: int
    memory: int
    driver: str


class Cuda(Protocol):
    """What the runner needs of a GPU. Pointers, streams and graphs are opaque handles."""

    def device(self, nbytes: int) -> int: ...  # noqa: D102
    def pinned(self, nbytes: int) -> tuple[int, U8]: ...  # noqa: D102
    def stream(self) -> int: ...  # noqa: D102
    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None: ...  # noqa: D102
    def download(self, host: int, device: int, nbytes: int, stream: int) -> None: ...  # noqa: D102
    def synchronize(self, stream: int) -> None: ...  # noqa: D102
    def begin_capture(self, stream: int) -> None: ...  # noqa: D102
    def end_capture(self, stream: int) -> Any: ...  # noqa: D102
    def launch(self, graph: Any, stream: int) -> None: ...  # noqa: D102
    def free_graph(self, graph: Any) -> None: ...  # noqa: D102
    def free(self, device: int) -> None: ...  # noqa: D102
    def free_pinned(self, host: int) -> None: ...  # noqa: D102
    def free_stream(self, stream: int) -> None: ...  # noqa: D102


def probe() -> Gpu | str:
    """The first GPU, or why there is none, for people. Never touches TensorRT; never raises."""
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError, RuntimeError, AttributeError) as e:  # missing, or unfit for this machine
        return f"cuda-bindings cannot be used ({e}); pip install 'leaf-rt[tensorrt]'"
    error, count = runtime.cudaGetDeviceCount()
    if int(error) != 0:
        kind = getattr(error, "name", str(error)).removeprefix("cudaError")
        return f"no NVIDIA driver that works here (CUDA says {kind}); install or update it, or use a CPU back end"
    if not count:
        return "no NVIDIA GPU is visible; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use a CPU back end"
    error, about = runtime.cudaGetDeviceProperties(0)
    if int(error) != 0:
        return f"the NVIDIA GPU does not answer ({error}); check nvidia-smi"
    name = about.name.decode() if isinstance(about.name, bytes) else str(about.name)
    return Gpu(
        name.rstrip("\0"), f"{about.major}.{about.minor}", about.multiProcessorCount, about.totalGlobalMem,
        _driver(runtime),
    )  # fmt: skip


def _driver(runtime: Any) -> str:
    version = Path("/proc/driver/nvidia/version")
    if version.is_file():
        return version.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    _, number = runtime.cudaDriverGetVersion()
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


class CudaRuntime:
    """``Cuda`` on the first GPU of this process.

    Raises:
        BackendError: By every method, where CUDA reports an error.
    """

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._rt = runtime

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *result = getattr(self._rt, name)(*arguments)
        if int(error) != 0:
            raise BackendError(f"{name} failed on the GPU ({error}); check nvidia-smi, free its memory or restart")
        return result[0] if result else None

    def device(self, nbytes: int) -> int:
        """Allocate GPU memory."""
        return int(self._call("cudaMalloc", nbytes))

    def pinned(self, nbytes: int) -> tuple[int, U8]:
        """Allocate page-locked memory of the host: its address, and an array over it."""
        address = int(self._call("cudaMallocHost", nbytes))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def stream(self) -> int:
        """A stream of its own that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Copy from host to GPU, queued."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, nbytes, kind, stream)

    def download(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Copy from GPU to host, queued."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Record what is queued from here on, instead of doing it."""
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: int) -> Any:
        """The record as a graph that ``launch`` takes."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Queue a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def free_graph(self, graph: Any) -> None:
        """Free a graph."""
        self._call("cudaGraphExecDestroy", graph)

    def free(self, device: int) -> None:
        """Free GPU memory."""
        self._call("cudaFree", device)

    def free_pinned(self, host: int) -> None:
        """Free page-locked memory; its array must not be used any more."""
        self._call("cudaFreeHost", host)

    def free_stream(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", stream)
