"""The ONNX Runtime back end, on the CPU. The only module of leaf_rt that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from leaf_rt.backends.base import BackendConfig, Device, check_faces, check_graph, default_threads, empty_prediction
from leaf_rt.errors import BackendError, ModelError, first_line
from leaf_rt.models.spec import ModelSpec
from leaf_rt.text import counted
from leaf_rt.types import F32, U8, Prediction


class OnnxRuntimeBackend:
    """Runs an .onnx file on the CPU; see ``Backend``."""

    name = "onnxruntime"
    device: Device = "cpu"
    cropper = None

    def __init__(self, model: Path, spec: ModelSpec, config: BackendConfig) -> None:
        if config.precision not in ("", spec.precision):
            raise BackendError(
                f"--precision {config.precision}: ONNX Runtime computes in the precision of the model file "
                f"({spec.precision}); create a file of that precision with `leaf-rt export --precision`"
            )
        if spec.precision == "fp16":
            config.notify("an fp16 model is slower on the CPU than fp32; it is meant for TensorRT")
        self.spec = spec
        threads = config.threads or default_threads()
        self.reason = (
            f"ONNX Runtime {ort.__version__}, {spec.precision} on CPU, {counted(threads, 'thread')}: {config.reason}"
        )
        self._session = _open_session(model, threads)
        inputs = {i.name: list(i.shape) for i in self._session.get_inputs()}
        outputs = {o.name: list(o.shape) for o in self._session.get_outputs()}
        check_graph(model, spec, inputs, outputs)

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            return empty_prediction(self.spec)
        try:
            probs, features = self._session.run(["probs", "features"], {"faces": faces})
        except Exception as e:  # see above
            raise BackendError(f"ONNX Runtime failed on {len(faces)} faces ({first_line(e)})") from e
        return Prediction(np.asarray(probs), np.asarray(features))

    def close(self) -> None:
        """Nothing to do: the session is freed with this object."""


class OnnxRuntimeNetwork:
    """Runs an .onnx file with any outputs on the CPU; see ``networks.Network``."""

    device: Device = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        self._session = _open_session(path, threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: U8) -> list[F32]:
        """Run the network; see ``networks.Network``."""
        try:
            return [np.asarray(out, np.float32) for out in self._session.run(None, {self._input: images})]
        except Exception as e:  # see above
            raise BackendError(f"ONNX Runtime failed on {counted(len(images), 'image')} ({first_line(e)})") from e


def check_file(model: Path) -> None:
    """Check that a file is a complete graph. Other runtimes check less, and a damaged file can end the process there.

    Raises:
        ModelError: It is not.
    """
    _open_session(model, 1)


def _open_session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # the exceptions say what is wrong
    # Spinning workers take the cores that decode and detect. Under load a call takes 17 ms without, 21 to 33 with.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Its fallback to another provider prints to standard output, where records may go.
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as e:  # onnxruntime's errors have no public base class
        raise ModelError(f"{model}: ONNX Runtime cannot load it ({first_line(e)}); export the model again") from e
