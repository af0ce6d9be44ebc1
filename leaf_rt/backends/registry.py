"""The back ends that exist, and which of them can run here.

Knows names and packages. A runtime is imported only when its back end is opened, and a GPU is looked for only when a
GPU back end is checked. No back end may import this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from leaf_rt.backends.base import Backend, BackendConfig, CheckedBackend, Device, load_errors
from leaf_rt.errors import BackendError, BackendUnavailable, GpuProblem, GpuUnavailable, NotInstalled, install_hint
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import U8


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A back end that leaf-rt supports.

    Attributes:
        name: As for ``--backend``.
        title: Name for users.
        device: Where it computes. "cuda" with ``cpu_too``: on a GPU if there is one, else on the CPU, for proof.
        precisions: What it can compute an fp32 model in, given the other files of that model.
        formats: Suffixes of the model files that it runs.
        packages: Distributions; one of them must be installed.
        modules: The modules that these install; the first one is imported.
        extra: The extra of leaf-rt that installs it; "" if leaf-rt always installs it.
        load: Opens a model; imports the runtime. Use ``open``, which converts import errors.
        capabilities: Compute capabilities of the GPUs that it supports; empty means all.
        cpu_too: Whether a GPU back end also runs on a CPU if it is named; "auto" takes it on a GPU only.
    """

    name: str
    title: str
    device: Device
    precisions: tuple[str, ...]
    formats: tuple[str, ...]
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    extra: str
    load: Callable[[Path, ModelSpec, BackendConfig], Backend]
    capabilities: tuple[str, ...] = ()
    cpu_too: bool = False

    @property
    def builds(self) -> bool:
        """Whether it builds an engine for each GPU and keeps it in the cache."""
        return ".plan" in self.formats

    def version(self) -> str | None:
        """Package and version that is installed, or None. Imports nothing."""
        for package in self.packages:
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                continue
        # A runtime that was not installed by pip, as on NVIDIA Jetson.
        return next((module for module in self.modules if find_spec(module) is not None), None)

    def problem(self) -> BackendUnavailable | None:
        """Why the back end cannot run here, or None if it can. Creates no object of a runtime."""
        if self.device == "cuda" and not self.cpu_too:
            return self.gpu_problem()
        return NotInstalled("not installed", install_hint(self.extra)) if self.version() is None else None

    def gpu_problem(self) -> BackendUnavailable | None:
        """Why it cannot use a GPU here, or None if it can. Creates no object of a runtime."""
        version = self.version()
        if version is None:
            return NotInstalled("not installed", install_hint(self.extra))
        from leaf_rt.backends.tensorrt import cuda

        if self.cpu_too:  # its package brings all it needs of CUDA, so the driver alone is asked
            if version.endswith("+cpu"):
                return NotInstalled(f"{version} is a build for the CPU", "install a build of PyTorch for CUDA")
            return cuda.driver_problem()
        try:
            gpu = cuda.probe()
        except GpuUnavailable as e:
            return e
        if self.capabilities and gpu.capability not in self.capabilities:
            return GpuUnavailable(
                GpuProblem.NOT_SUPPORTED,
                f"{self.title} does not support the {gpu.name} (compute capability {gpu.capability}; it needs "
                f"{', '.join(self.capabilities[:-1])} or {self.capabilities[-1]})",
                "use another back end",
            )
        return None

    def open(self, model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
        """Load a model file.

        Raises:
            BackendError: The runtime cannot be imported or cannot run the model.
            ModelError: The model file is broken, or answers a probe with nonsense.
        """
        with load_errors(self.name):
            backend = CheckedBackend(self.load(model, spec, config), model, config.precision)
            try:
                backend.infer(_probe(spec.side))
            except BaseException:
                backend.close()
                raise
        return backend


def _probe(side: int) -> U8:
    """Two crops, (2, side, side, 3), a slope and its mirror image, to see whether a model answers with shares."""
    slope = np.linspace(0, 255, side).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(np.stack([slope, slope[::-1]])[:, :, None, None], (2, side, side, 3)))


def _onnxruntime(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, spec, config)


def _openvino(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    from leaf_rt.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(model, spec, config)


def _tensorrt(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    from leaf_rt.backends.tensorrt import engine

    return engine.open_engine(engine.environment("tensorrt"), model, spec, config)


def _tensorrt_rtx(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    from leaf_rt.backends.tensorrt import engine

    return engine.open_engine(engine.environment("tensorrt_rtx"), model, spec, config)


def _torch(model: Path, spec: ModelSpec, config: BackendConfig) -> Backend:
    from leaf_rt.backends.pytorch.engine import open_torch

    return open_torch(model, spec, config)


# In the order in which "auto" tries them; CPU back ends are timed instead. Stored choices depend on this order.
BACKENDS: tuple[BackendEntry, ...] = (
    BackendEntry(
        name="tensorrt", title="TensorRT", device="cuda", precisions=("fp32", "fp16"), formats=(".onnx", ".plan"),
        packages=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), modules=("tensorrt",),
        extra="tensorrt", load=_tensorrt,
    ),
    BackendEntry(
        name="tensorrt-rtx", title="TensorRT-RTX", device="cuda", precisions=("fp32", "fp16"),
        formats=(".onnx", ".plan"),
        packages=("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"), modules=("tensorrt_rtx",),
        extra="tensorrt-rtx", load=_tensorrt_rtx, capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    ),
    BackendEntry(
        name="torch", title="PyTorch", device="cuda", precisions=("fp32", "fp16", "bf16"), formats=(".onnx", ".pt2"),
        packages=("torch",), modules=("torch",), extra="train", load=_torch, cpu_too=True,
    ),
    BackendEntry(
        name="openvino", title="OpenVINO", device="cpu", precisions=("fp32", "bf16", "int8"),
        formats=(".onnx", ".xml"), packages=("openvino",), modules=("openvino",), extra="openvino", load=_openvino,
    ),
    BackendEntry(
        name="onnxruntime", title="ONNX Runtime", device="cpu", precisions=("fp32", "int8"), formats=(".onnx",),
        packages=("onnxruntime", "onnxruntime-gpu"), modules=("onnxruntime",), extra="", load=_onnxruntime,
    ),
)  # fmt: skip
GPU_BACKENDS = tuple(backend.name for backend in BACKENDS if backend.device == "cuda")
PLAN_BACKENDS = tuple(backend.name for backend in BACKENDS if backend.builds)
NAMES = ("auto", *(backend.name for backend in reversed(BACKENDS)))
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def find_backend(name: str) -> BackendEntry:
    """The back end of a name.

    Raises:
        BackendError: There is none.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise BackendError(f"--backend {name}: unknown; choose one of {', '.join(NAMES)}")
