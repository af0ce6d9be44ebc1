"""The OpenVINO back end, on the CPU. The only module of leaf_rt that imports openvino."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import numpy as np
import openvino as ov

from leaf_rt.backends.base import BackendConfig, Device, check_faces, check_graph, default_threads, empty_prediction
from leaf_rt.backends.onnxruntime import check_file
from leaf_rt.errors import BackendError, ModelError, first_line
from leaf_rt.models.spec import MODELS, ModelSpec
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.text import counted
from leaf_rt.types import F32, U8, Prediction


class OpenVinoBackend:
    """Runs an .onnx or .xml file on the CPU; see ``Backend``."""

    name = "openvino"
    device: Device = "cpu"
    cropper = None

    def __init__(self, model: Path, spec: ModelSpec, config: BackendConfig) -> None:
        core = _core()
        if config.precision not in ("", "bf16", spec.precision):
            raise BackendError(
                f"--precision {config.precision}: OpenVINO runs this {spec.precision} model in {spec.precision} or bf16"
            )
        bf16 = config.precision == "bf16"
        if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("--precision bf16: this processor does not support bf16; use fp32 or int8")
        if spec.precision == "int8" and model.suffix == ".onnx":
            # OpenVINO 2026.4 computes wrong features for ONNX Runtime's quantized graphs with batches above 1.
            raise BackendError(
                f"{model.name}: OpenVINO runs only int8 models in its own format; create one with `leaf-rt export "
                "--precision int8 --target openvino`, or use --backend onnxruntime"
            )
        self.spec = spec
        threads = config.threads or default_threads()
        version = ov.__version__.split("-")[0]
        precision = config.precision or spec.precision
        self.reason = f"OpenVINO {version}, {precision} on CPU, {counted(threads, 'thread')}: {config.reason}"
        if model.suffix == ".onnx" and model.parent != MODELS:
            check_file(model)  # a damaged file can be a segmentation fault of OpenVINO 2026.4
        graph, self._compiled = _compile(core, model, threads, "bf16" if bf16 else "f32")
        check_graph(model, spec, _shapes(graph.inputs), _shapes(graph.outputs))
        self._request = self._compiled.create_infer_request()

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            return empty_prediction(self.spec)
        try:
            out = self._request.infer({"faces": np.ascontiguousarray(faces)}, share_inputs=True)
        except RuntimeError as e:
            raise BackendError(f"OpenVINO failed on {len(faces)} faces ({first_line(e)})") from e
        return Prediction(np.array(out["probs"]), np.array(out["features"]))  # copied: OpenVINO reuses them

    def close(self) -> None:
        """Nothing to do: the request is freed with this object."""


class OpenVinoNetwork:
    """Runs an .onnx file with any outputs on the CPU; see ``networks.Network``."""

    device: Device = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        _, self._compiled = _compile(_core(), path, threads, "f32")
        self._local = threading.local()  # a request serves one thread

    def __call__(self, images: U8) -> list[F32]:
        """Run the network; see ``networks.Network``."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        try:
            out = request.infer([np.ascontiguousarray(images)], share_inputs=True)
        except RuntimeError as e:
            raise BackendError(f"OpenVINO failed on {counted(len(images), 'image')} ({first_line(e)})") from e
        return [np.array(out[port], np.float32) for port in self._compiled.outputs]  # copied: OpenVINO reuses them


def _compile(core: ov.Core, model: Path, threads: int, precision: str) -> tuple[ov.Model, ov.CompiledModel]:
    """Read and compile a model file; ``precision`` is "f32" or "bf16"."""
    options = {
        # Without this hint OpenVINO uses bf16 on processors that support it, and answers differ between machines.
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # the same cores decode and detect
    }
    try:
        with suppress_native_stderr():  # if the file is damaged, every reader of OpenVINO writes to stderr
            graph = core.read_model(str(model))
        return graph, core.compile_model(graph, "CPU", options)
    except RuntimeError as e:
        reason = next((line for line in reversed(str(e).splitlines()) if line.strip()), type(e).__name__)
        raise ModelError(f"{model}: OpenVINO cannot load it ({reason}); export the model again") from e


@functools.cache
def _core() -> ov.Core:
    """The only core of this process. It is never freed.

    On processors with AMX, OpenVINO 2026.4 replaces the signal stack of the thread that creates a core, and restores
    the previous one when the core is freed. If two cores are freed in the order of their creation, the thread is left
    with a signal stack that no longer exists, and the next signal (such as Ctrl-C) is a segmentation fault.
    """
    return ov.Core()


def _shapes(ports: list[ov.Output]) -> dict[str, list[object]]:
    """Shapes by name, with -1 for a dynamic dimension; unnamed tensors are named by their index."""
    return {
        (min(port.names) if port.names else f"#{i}"): [
            d.get_length() if d.is_static else -1 for d in port.partial_shape
        ]
        for i, port in enumerate(ports)
    }
