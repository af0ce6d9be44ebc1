"""The protocol of a back end, its configuration, and the checks that all back ends share.

Knows model specs and arrays; must not know any back end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np

from leaf_rt.errors import BackendError, LeafError, ModelError, first_line
from leaf_rt.models.spec import ModelSpec
from leaf_rt.system.cpu import cpu_count
from leaf_rt.types import F32, U8, Prediction

Device: TypeAlias = Literal["cpu", "cuda"]
ProgressCallback = Callable[[str], None]
_SUM_TOLERANCE = 1e-3
_SUM_TOLERANCE_BF16 = 8e-3  # bf16 has 8 bits, so each of the shares is rounded by up to 2^-9 of it
LOAD_ERRORS = (ImportError, OSError, RuntimeError)  # what a runtime raises on import if its native libraries do not fit


def silent(text: str) -> None:
    """A ``ProgressCallback`` that does nothing."""


class Cropper(Protocol):
    """Cuts all aligned faces of a frame at once, where a back end computes. May be called from several threads."""

    def __call__(self, image: U8, plans: F32, side: int) -> U8:
        """Cut crops out of a frame.

        Args:
            image: (H, W, 3) uint8 BGR.
            plans: (N, 11) float32, one row per crop: the affine matrix (2, 3) from its pixels to blocks of pixels of
                the frame, row by row, where centers are at integers; the side of the blocks, px; the first column and
                row of the blocks, px; the number of blocks per row and per column.
            side: Side of the crops, px.

        Returns:
            (N, side, side, 3) uint8: bilinear samples between the means of the blocks. Beyond them, those at the border
            are repeated.

        Raises:
            BackendError: The device failed.
        """
        ...


class Backend(Protocol):
    """A loaded model. Not thread-safe, apart from its ``cropper``.

    Attributes:
        name: Name of the back end, as for ``--backend``: "onnxruntime", "openvino", "tensorrt", ...
        device: Where it computes: "cpu" or "cuda".
        reason: One sentence for users: the runtime, its precision, and why it was chosen.
        spec: Description of the model.
    """

    name: str
    device: Device
    reason: str
    spec: ModelSpec

    @property
    def cropper(self) -> Cropper | None:
        """Cuts the faces of a frame on its device; None if the CPU has to do it."""
        ...

    def infer(self, faces: U8) -> Prediction:
        """Classify face crops.

        Args:
            faces: (N, side, side, 3) uint8 BGR. N may be 0; the result is then empty.

        Raises:
            ValueError: ``faces`` has the wrong shape or dtype.
            BackendError: The runtime failed.
        """
        ...

    def close(self) -> None:
        """Free the resources of the runtime. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """How to open a back end.

    Attributes:
        threads: CPU threads for inference; 0 means ``default_threads()``.
        reason: Why this back end was chosen. The back end adds the runtime and precision to it.
        precision: Precision to compute in, if the runtime has a choice; "" for that of the model file.
        notify: Called with one sentence about each slow step or problem.
        build: Whether a TensorRT engine may be built, which takes minutes. If False, only cached engines are used.
    """

    threads: int = 0
    reason: str = ""
    precision: str = ""
    notify: ProgressCallback = field(default=silent)
    build: bool = True


def default_threads() -> int:
    """Default number of inference threads: at most 8, and one core less than there are if there are more than two.

    The remaining core decodes video and detects faces.
    """
    cores = cpu_count()
    return cores if cores <= 2 else min(cores - 1, 8)


def threads_for_files() -> int:
    """Default number of inference threads where only files are processed: one core less than there are, at most 8.

    With two cores, a second thread makes a classification about a fifth shorter and costs a quarter more CPU, of the
    core that looks for faces in the next frames. A live frame has no next one that could be looked at.
    """
    return max(1, min(cpu_count() - 1, 8))


def check_faces(faces: U8, spec: ModelSpec) -> None:
    """Check the input of ``Backend.infer``.

    Raises:
        ValueError: The shape or dtype is wrong.
    """
    shape = (spec.side, spec.side, 3)
    if faces.ndim != 4 or faces.shape[1:] != shape or faces.dtype.name != "uint8":
        raise ValueError(f"faces: wanted uint8 (N, {spec.side}, {spec.side}, 3), got {faces.dtype} {faces.shape}")


def check_graph(
    model: Path, spec: ModelSpec, inputs: Mapping[str, Sequence[object]], outputs: Mapping[str, Sequence[object]]
) -> None:
    """Check that the tensors of a loaded graph match the model's description.

    Args:
        model: The model file, for the error message.
        spec: Its description.
        inputs: Shapes of the input tensors by name.
        outputs: Shapes of the output tensors by name.

    Raises:
        ModelError: They do not match.
    """
    face = list(inputs.get("faces", ()))[1:] == [spec.side, spec.side, 3]
    probs = list(outputs.get("probs", ()))[1:] == [len(spec.labels)]
    features = list(outputs.get("features", ()))[1:] == [spec.feature_dim]
    if not (face and probs and features and len(inputs) == 1):
        shapes = {name: list(shape) for name, shape in (*inputs.items(), *outputs.items())}
        raise ModelError(
            f"{model}: its graph does not match its description (graph: {shapes}; described: "
            f"faces of side {spec.side}, {len(spec.labels)} labels, {spec.feature_dim} features); "
            "export the model again"
        )


def check_answers(prediction: Prediction, model: Path, precision: str) -> Prediction:
    """Check what a model answered, and return it.

    Raises:
        ModelError: A value is not finite, or the shares of a face are negative or do not add up to 1.
    """
    probs, features = prediction.probs, prediction.features
    if len(probs) == 0:
        return prediction
    sums = probs.sum(axis=1)
    error = float(np.abs(sums - 1.0).max())  # not finite if a share is not
    tolerance = _SUM_TOLERANCE_BF16 if precision == "bf16" else _SUM_TOLERANCE
    if not (math.isfinite(error) and np.isfinite(features).all()):
        fault = "values that are not finite"
    elif probs.min() < 0:
        fault = f"a negative share ({probs.min():.3g})"
    elif error > tolerance:
        fault = f"shares that add up to {sums[np.abs(sums - 1.0).argmax()]:.4g}, not 1"
    else:
        return prediction
    raise ModelError(f"{model}: the model answers with {fault}; export it again, or use another --model or --backend")


class CheckedBackend:
    """A back end whose every answer is checked; see ``Backend`` and ``check_answers``.

    Args:
        backend: It is closed with this object.
        model: The model file, for messages.
        precision: What it computes in.
    """

    def __init__(self, backend: Backend, model: Path, precision: str) -> None:
        self.name, self.device, self.reason, self.spec = backend.name, backend.device, backend.reason, backend.spec
        self.cropper = backend.cropper
        self._backend, self._model, self._precision = backend, model, precision

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops.

        Raises:
            ValueError, BackendError: See ``Backend.infer``.
            ModelError: The answers are no shares.
        """
        return check_answers(self._backend.infer(faces), self._model, self._precision)

    def close(self) -> None:
        """Free the resources of the runtime."""
        self._backend.close()


def empty_prediction(spec: ModelSpec) -> Prediction:
    """The result for zero faces."""
    return Prediction(np.zeros((0, len(spec.labels)), np.float32), np.zeros((0, spec.feature_dim), np.float32))


@contextmanager
def load_errors(name: str) -> Iterator[None]:
    """Turn what a runtime raises while it is imported or opened into a ``BackendError``.

    That can be anything: an AttributeError for a name that another version has, a TypeError for an argument.

    Args:
        name: Name of the back end.
    """
    try:
        yield
    except LeafError:
        raise
    except Exception as e:
        raise BackendError(f"--backend {name}: cannot be loaded ({first_line(e)})") from e
