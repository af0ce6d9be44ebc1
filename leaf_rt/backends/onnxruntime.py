"""ONNX Runtime on CPU. The only module of the runtime that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from leaf_rt.backends.base import BackendConfig, check_faces, check_graph, default_threads, empty, first_line
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.text import counted
from leaf_rt.types import U8, Prediction


class OnnxRuntimeBackend:
    """Runs an .onnx file on the CPU; see ``Backend``."""

    name = "onnxruntime"

    def __init__(self, model: Path, spec: ModelSpec, wanted: BackendConfig) -> None:
        if wanted.precision not in ("", spec.precision):
            raise BackendError(
                f"--precision {wanted.precision}: ONNX Runtime computes as the model file says ({spec.precision}); "
                f"give a file of that precision, as `leaf-rt export --precision` writes it"
            )
        if spec.precision == "fp16":
            wanted.say("an fp16 model on CPU is slower than fp32 and no more exact; it is meant for TensorRT")
        self.spec = spec
        threads = wanted.threads or default_threads()
        self.reason = (
            f"ONNX Runtime {ort.__version__}, {spec.precision} on CPU, {counted(threads, 'thread')}: {wanted.reason}"
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning workers take the cores that decoding and detection need: 17 ms a call against 21 to 33 under load.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors share no base class with a name of their own
            raise ModelError(f"{model}: ONNX Runtime cannot load it ({first_line(e)}); export the model again") from e
        inputs = {i.name: list(i.shape) for i in self._session.get_inputs()}
        outputs = {o.name: list(o.shape) for o in self._session.get_outputs()}
        check_graph(model, spec, inputs, outputs)

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            return empty(self.spec)
        try:
            probs, features = self._session.run(["probs", "features"], {"faces": faces})
        except Exception as e:  # see above
            raise BackendError(f"ONNX Runtime failed on {len(faces)} faces ({first_line(e)})") from e
        return Prediction(np.asarray(probs), np.asarray(features))

    def close(self) -> None:
        """Nothing to free by hand: the session goes with the object."""
