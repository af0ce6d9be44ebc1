"""Detects the GPU, and wraps the few CUDA calls of the engine runner.

TensorRT's objects crash a process on a machine without a driver, so call ``probe`` before creating any of them. Knows
the CUDA runtime (cuda-bindings); must not know TensorRT or models.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from leaf_rt.errors import BackendError, GpuProblem, GpuUnavailable, install_hint
from leaf_rt.types import U8

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_INSUFFICIENT_DRIVER, _NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice


@dataclass(frozen=True, slots=True)
class Gpu:
    """Everything about a GPU that an engine depends on.

    Attributes:
        name: Product name.
        capability: Compute capability, as "9.0".
        multiprocessors: Number of streaming multiprocessors.
        memory: Bytes.
        driver: Version of the driver, or of the CUDA that it supports.
    """

    name: str
    capability: str
    multiprocessors: int
    memory: int
    driver: str


class Cuda(Protocol):
    """The CUDA calls that the runner needs. Pointers, streams and graphs are opaque handles."""

    def device(self, nbytes: int) -> int: ...  # noqa: D102
    def pinned(self, nbytes: int) -> tuple[int, U8]: ...  # noqa: D102
    def stream(self) -> int: ...  # noqa: D102
    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None: ...  # noqa: D102
    def download(self, host: int, device: int, nbytes: int, stream: int) -> None: ...  # noqa: D102
    def synchronize(self, stream: int) -> None: ...  # noqa: D102
    def begin_capture(self, stream: int) -> None: ...  # noqa: D102
    def end_capture(self, stream: int) -> Any: ...  # noqa: D102
    def abort_capture(self, stream: int) -> None: ...  # noqa: D102
    def launch(self, graph: Any, stream: int) -> None: ...  # noqa: D102
    def free_graph(self, graph: Any) -> None: ...  # noqa: D102
    def free(self, device: int) -> None: ...  # noqa: D102
    def free_pinned(self, host: int) -> None: ...  # noqa: D102
    def free_stream(self, stream: int) -> None: ...  # noqa: D102


def probe() -> Gpu:
    """The first GPU of this process. Does not use TensorRT.

    Raises:
        GpuUnavailable: There is no GPU that works.
    """
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError, RuntimeError, AttributeError) as e:  # missing, or not for this machine
        problem = f"cuda-bindings cannot be used ({e})"
        raise GpuUnavailable(GpuProblem.NO_BINDINGS, problem, install_hint("tensorrt")) from e
    error, count = runtime.cudaGetDeviceCount()
    if int(error) == _NO_DEVICE or (int(error) == 0 and not count):
        raise GpuUnavailable(
            GpuProblem.NO_GPU,
            "no NVIDIA GPU is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use a CPU back end",
        )
    if int(error) != 0:
        name = getattr(error, "name", str(error)).removeprefix("cudaError")
        supported = _cuda_of_driver(runtime) if int(error) == _INSUFFICIENT_DRIVER else ""
        if supported:
            raise GpuUnavailable(
                GpuProblem.DRIVER_TOO_OLD,
                f"the NVIDIA driver is too old: it supports CUDA {supported}, the installed packages need a newer one",
                f"update the driver (CUDA 13 needs 580 or newer), or for CUDA 12 {install_hint('tensorrt-cu12')}",
            )
        raise GpuUnavailable(
            GpuProblem.NO_DRIVER,
            f"no NVIDIA driver that works (CUDA: {name})",
            "install or update the driver, or use a CPU back end",
        )
    error, properties = runtime.cudaGetDeviceProperties(0)
    if int(error) != 0:
        raise GpuUnavailable(
            GpuProblem.NOT_RESPONDING, f"the NVIDIA GPU does not respond ({error})", "check nvidia-smi"
        )
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(
        name=name.rstrip("\0"),
        capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multiProcessorCount,
        memory=properties.totalGlobalMem,
        driver=_driver(runtime),
    )


def driver_problem() -> GpuUnavailable | None:
    """Why no NVIDIA GPU can be used, asked of the driver alone: needs no package, and milliseconds without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return GpuUnavailable(
            GpuProblem.NO_DRIVER, "no NVIDIA driver that works", "install the driver, or use a CPU back end"
        )
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return GpuUnavailable(
            GpuProblem.NO_GPU,
            "no NVIDIA GPU is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use a CPU back end",
        )
    return None


def _driver(runtime: Any) -> str:
    if DRIVER_VERSION.is_file():
        return DRIVER_VERSION.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    return f"CUDA {_cuda_of_driver(runtime)}"


def _cuda_of_driver(runtime: Any) -> str:
    """The newest CUDA that the driver supports, as "12.4"; "" if there is no driver."""
    error, number = runtime.cudaDriverGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}" if int(error) == 0 and number else ""


class CudaRuntime:
    """``Cuda`` on the first GPU of this process.

    Raises:
        BackendError: Every method, if CUDA reports an error.
    """

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._rt = runtime

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *result = getattr(self._rt, name)(*arguments)
        if int(error) != 0:
            raise BackendError(f"{name} failed on the GPU ({error}); check nvidia-smi, and free GPU memory or restart")
        return result[0] if result else None

    def device(self, nbytes: int) -> int:
        """Allocate GPU memory."""
        return int(self._call("cudaMalloc", nbytes))

    def pinned(self, nbytes: int) -> tuple[int, U8]:
        """Allocate page-locked host memory. Returns its address, and an array that views it."""
        address = int(self._call("cudaMallocHost", nbytes))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def stream(self) -> int:
        """Create a stream that does not synchronize with the default stream."""
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Queue a copy from host to GPU."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, nbytes, kind, stream)

    def download(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Queue a copy from GPU to host."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all queued work is done."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Start to record queued work instead of executing it."""
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: int) -> Any:
        """Stop recording. Returns a graph for ``launch``."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def abort_capture(self, stream: int) -> None:
        """Stop recording and drop what was recorded; reports no error, because the recording has failed already."""
        error, graph = self._rt.cudaStreamEndCapture(stream)
        if int(error) == 0 and int(graph):
            self._rt.cudaGraphDestroy(graph)

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
        """Free page-locked memory. Its array must not be used afterwards."""
        self._call("cudaFreeHost", host)

    def free_stream(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", stream)
