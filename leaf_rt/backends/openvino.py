"""OpenVINO on CPU. The only module of the runtime that imports openvino."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import openvino as ov

from leaf_rt.backends.base import BackendConfig, check_faces, check_graph, default_threads, empty, first_line
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.text import counted
from leaf_rt.types import U8, Prediction

# Left to itself OpenVINO computes in bf16 wherever the processor can: other answers on other machines.
_HINTS = {"": "f32", "fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Runs an .onnx or .xml file on the CPU; see ``Backend``."""

    name = "openvino"

    def __init__(self, model: Path, spec: ModelSpec, wanted: BackendConfig) -> None:
        core = _core()
        hint = _HINTS.get(wanted.precision)
        if hint is None or wanted.precision not in ("", "bf16", spec.precision):
            raise BackendError(
                f"--precision {wanted.precision}: OpenVINO runs this {spec.precision} model in {spec.precision} or bf16"
            )
        if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("--precision bf16: this processor has no bf16 arithmetic; use fp32 or an int8 model")
        if spec.precision == "int8" and model.suffix == ".onnx":
            # OpenVINO 2026.4 gives wrong features on ONNX Runtime's quantised graphs for batches above 1.
            raise BackendError(
                f"{model.name}: OpenVINO runs int8 models of its own tool alone; `leaf-rt export --precision int8 "
                "--target openvino` makes one, or take --backend onnxruntime"
            )
        self.spec = spec
        threads = wanted.threads or default_threads()
        version = ov.__version__.split("-")[0]
        precision = wanted.precision or spec.precision
        self.reason = f"OpenVINO {version}, {precision} on CPU, {counted(threads, 'thread')}: {wanted.reason}"
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the cores also decode and detect
        }
        try:
            with suppress_native_stderr():  # of what is no ONNX, every reader that OpenVINO tries complains on stderr
                graph = core.read_model(str(model))
            check_graph(model, spec, _shapes(graph.inputs), _shapes(graph.outputs))
            self._compiled = core.compile_model(graph, "CPU", config)
        except RuntimeError as e:
            reason = next((line for line in reversed(str(e).splitlines()) if line.strip()), type(e).__name__)
            raise ModelError(f"{model}: OpenVINO cannot load it ({reason}); export the model again") from e
        self._request = self._compiled.create_infer_request()

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            return empty(self.spec)
        try:
            out = self._request.infer({"faces": np.ascontiguousarray(faces)}, share_inputs=True)
        except RuntimeError as e:
            raise BackendError(f"OpenVINO failed on {len(faces)} faces ({first_line(e)})") from e
        return Prediction(np.array(out["probs"]), np.array(out["features"]))  # copies: its buffers are used again

    def close(self) -> None:
        """Nothing to free by hand: the request goes with the object."""


@functools.cache
def _core() -> ov.Core:
    """The one core of the process, never freed.

    On processors with AMX every core gives the thread that makes it a signal stack of its own, and takes it away again
    when it goes. Of two that go in the order in which they came, the second leaves the thread with the stack of the
    first, which is gone: the next signal, Ctrl-C for one, is then a segmentation fault (OpenVINO 2026.4).
    """
    return ov.Core()


def _shapes(ports: list[ov.Output]) -> dict[str, list[object]]:
    """Name to shape, -1 for a free length; an unnamed tensor of a foreign graph is called by its place."""
    return {
        (min(port.names) if port.names else f"#{i}"): [
            d.get_length() if d.is_static else -1 for d in port.partial_shape
        ]
        for i, port in enumerate(ports)
    }
