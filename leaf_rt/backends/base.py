"""What a back end is, and the choice of one.

Knows the protocol and the candidates' names; a candidate's runtime is imported only once it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from leaf_rt.artifact import ModelSpec, load_spec
from leaf_rt.errors import BackendError
from leaf_rt.types import U8, Prediction


class Backend(Protocol):
    """A loaded model. Not safe for use from two threads at once.

    Attributes:
        name: "onnxruntime", "openvino", "tensorrt", ...
        reason: One sentence for people: what runs, at which precision, and why.
        spec: The model's description.
    """

    name: str
    reason: str
    spec: ModelSpec

    def infer(self, faces: U8) -> Prediction:
        """Classify crops.

        Args:
            faces: (N, side, side, 3) uint8 BGR, any N; 0 gives empty arrays.

        Raises:
            ValueError: Shape or dtype is wrong.
            BackendError: The runtime failed.
        """
        ...

    def close(self) -> None:
        """Free the runtime's resources; may be called twice."""
        ...


def check_faces(faces: U8, spec: ModelSpec) -> None:
    """Raise ValueError unless ``faces`` is what the model takes."""
    wanted = (spec.side, spec.side, 3)
    if faces.ndim != 4 or faces.shape[1:] != wanted or faces.dtype.name != "uint8":
        raise ValueError(f"faces: wanted uint8 (N, {spec.side}, {spec.side}, 3), got {faces.dtype} {faces.shape}")


def _onnxruntime(model: Path, spec: ModelSpec, threads: int, reason: str) -> Backend:
    from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, spec, threads, reason)


_CANDIDATES: dict[str, Callable[[Path, ModelSpec, int, str], Backend]] = {"onnxruntime": _onnxruntime}
NAMES = ("auto", *_CANDIDATES)


def open_backend(model: Path, name: str = "auto", threads: int = 0) -> Backend:
    """Load a model with the back end asked for, or with the best one here.

    Args:
        model: The model file; its JSON lies beside it.
        name: One of ``NAMES``. An explicit choice fails loudly; only "auto" falls back.
        threads: CPU threads for inference; 0 leaves the choice to the back end.

    Raises:
        BackendError: Unknown name, or it cannot run here.
        ModelError, NotFound: See ``load_spec``.
    """
    if name not in NAMES:
        raise BackendError(f"--backend {name}: unknown; choose one of {', '.join(NAMES)}")
    spec = load_spec(model)
    if name == "auto":
        return _onnxruntime(model, spec, threads, "ONNX Runtime on CPU: the one back end of this installation")
    return _CANDIDATES[name](model, spec, threads, f"{name}: asked for with --backend")
