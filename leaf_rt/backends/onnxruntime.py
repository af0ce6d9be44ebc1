"""ONNX Runtime on CPU. The only module that imports onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from leaf_rt.artifact import ModelSpec
from leaf_rt.backends.base import check_faces
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.types import U8, Prediction


class OnnxRuntimeBackend:
    """Runs an .onnx file on the CPU; see ``Backend``."""

    name = "onnxruntime"

    def __init__(self, model: Path, spec: ModelSpec, threads: int, reason: str) -> None:
        self.spec = spec
        self.reason = f"{reason} ({spec.precision}, {threads or os.cpu_count()} threads)"
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning workers take the cores that decoding and detection need: 17 ms a call against 21 to 33 under load.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors share no base class with a name of their own
            raise ModelError(f"{model}: ONNX Runtime cannot load it ({str(e).splitlines()[0]})") from e
        inputs = {i.name: list(i.shape) for i in self._session.get_inputs()}
        outputs = {o.name: list(o.shape) for o in self._session.get_outputs()}
        wanted = (inputs.get("faces") or [None])[1:] == [spec.side, spec.side, 3]
        if not wanted or (outputs.get("probs") or [None])[-1] != len(spec.labels) or "features" not in outputs:
            raise ModelError(
                f"{model}: its graph does not match its description (inputs {inputs}, outputs {outputs}, described: "
                f"faces of side {spec.side}, {len(spec.labels)} labels); export the model again"
            )

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        if len(faces) == 0:
            c, d = len(self.spec.labels), self.spec.feature_dim
            return Prediction(np.zeros((0, c), np.float32), np.zeros((0, d), np.float32))
        try:
            probs, features = self._session.run(["probs", "features"], {"faces": faces})
        except Exception as e:
            raise BackendError(f"ONNX Runtime failed on {len(faces)} faces ({str(e).splitlines()[0]})") from e
        return Prediction(np.asarray(probs), np.asarray(features))

    def close(self) -> None:
        """Nothing to free by hand: the session goes with the object."""
