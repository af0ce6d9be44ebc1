"""What a back end is, and the choice of one.

Knows the protocol and the candidates' names; a candidate's runtime is imported only once it is looked at or chosen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from leaf_rt.errors import BackendError, LeafError, ModelError
from leaf_rt.models.spec import ModelSpec, load_spec, variant_path
from leaf_rt.types import U8, Prediction

ProgressCallback = Callable[[str], None]


def silent(text: str) -> None:
    """A ``ProgressCallback`` for those who do not want to hear."""


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


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """How a back end shall be opened.

    Attributes:
        threads: CPU threads for inference; 0 takes ``default_threads()``.
        reason: Why it was chosen; the back end adds what runs.
        precision: Of the arithmetic where the runtime has a choice: "" for the model's own; "bf16" in OpenVINO.
        say: Told what takes long or went wrong, a sentence at a time.
        build: Whether an engine may be built, which takes minutes; otherwise one from the cache or none.
    """

    threads: int = 0
    reason: str = ""
    precision: str = ""
    say: ProgressCallback = field(default=silent)
    build: bool = True


def default_threads() -> int:
    """Threads where none are asked for: every core but one for decoding and detection, at most 8; both of two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores <= 2 else min(cores - 1, 8)


def check_faces(faces: U8, spec: ModelSpec) -> None:
    """Raise ValueError unless ``faces`` is what the model takes."""
    wanted = (spec.side, spec.side, 3)
    if faces.ndim != 4 or faces.shape[1:] != wanted or faces.dtype.name != "uint8":
        raise ValueError(f"faces: wanted uint8 (N, {spec.side}, {spec.side}, 3), got {faces.dtype} {faces.shape}")


def check_graph(
    model: Path, spec: ModelSpec, inputs: Mapping[str, Sequence[object]], outputs: Mapping[str, Sequence[object]]
) -> None:
    """Raise ModelError unless a graph's tensors (name to shape) are those that its description promises."""
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


def empty(spec: ModelSpec) -> Prediction:
    """The answer to no faces."""
    return Prediction(np.zeros((0, len(spec.labels)), np.float32), np.zeros((0, spec.feature_dim), np.float32))


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A back end that could run a model.

    Attributes:
        name: As given to --backend.
        packages: Distributions, one of which must be installed.
        modules: The modules they bring, in the same order.
        extra: The extra of this project that installs it.
        formats: Suffixes of the files it runs.
        load: Opens it; imports its runtime.
    """

    name: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    extra: str
    formats: tuple[str, ...]
    load: Callable[[Path, ModelSpec, BackendConfig], Backend]

    def version(self) -> str | None:
        """Name and version of what is installed, None where nothing is. Imports nothing."""
        for package in self.packages:
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                continue
        # A runtime that came by other ways than pip, as on NVIDIA's Jetson.
        return next((module for module in self.modules if find_spec(module) is not None), None)

    def available(self) -> tuple[bool, str]:
        """Whether it could run here, and what is installed or missing. Builds no object of a runtime."""
        version = self.version()
        if version is None:
            return False, f"{self.name} is not installed; pip install 'leaf-rt[{self.extra}]'"
        if self.name.startswith("tensorrt"):
            from leaf_rt.backends.tensorrt.cuda import probe

            gpu = probe()
            if isinstance(gpu, str):
                return False, gpu
            return True, f"{version} on {gpu.name}"
        return True, version


def _onnxruntime(model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, spec, wanted)


def _openvino(model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    from leaf_rt.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(model, spec, wanted)


def _tensorrt(model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    from leaf_rt.backends.tensorrt.engine import open_engine

    return open_engine("tensorrt", model, spec, wanted)


def _tensorrt_rtx(model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    from leaf_rt.backends.tensorrt.engine import open_engine

    return open_engine("tensorrt_rtx", model, spec, wanted)


_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
# In the order in which "auto" prefers them; the CPU back ends among them are measured.
BACKENDS: tuple[BackendEntry, ...] = (
    BackendEntry("tensorrt", _TENSORRT, ("tensorrt",), "tensorrt", (".onnx", ".plan"), _tensorrt),
    BackendEntry(
        "tensorrt-rtx", ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"), ("tensorrt_rtx",), "tensorrt-rtx",
        (".onnx", ".plan"), _tensorrt_rtx,
    ),
    BackendEntry("openvino", ("openvino",), ("openvino",), "openvino", (".onnx", ".xml"), _openvino),
    BackendEntry("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), ("onnxruntime",), "", (".onnx",), _onnxruntime),
)  # fmt: skip
ARITHMETIC = ("fp32", "fp16", "bf16", "int8")
NAMES = ("auto", *(candidate.name for candidate in reversed(BACKENDS)))


def candidate(name: str) -> BackendEntry:
    """The candidate of that name.

    Raises:
        BackendError: There is none.
    """
    for one in BACKENDS:
        if one.name == name:
            return one
    raise BackendError(f"--backend {name}: unknown; choose one of {', '.join(NAMES)}")


def open_backend(
    model: Path,
    name: str = "auto",
    threads: int = 0,
    *,
    precision: str = "",
    say: ProgressCallback = silent,
    build: bool = True,
) -> Backend:
    """Load a model with the back end asked for, or with the best one here.

    Args:
        model: The model file; its JSON lies beside it.
        name: One of ``NAMES``. An explicit choice fails loudly; only "auto" falls back.
        threads: CPU threads for inference; 0 leaves the choice to the back end.
        precision: "" leaves it to "auto", which takes the quickest file that comes with the model, and is the file's
            own with an explicit back end. "int8" takes the quantised files beside an fp32 model, which keep its
            accuracy within half a point but not its every answer. Others as ``BackendConfig`` says.
        say: Told what takes long or went wrong, a sentence at a time.
        build: See ``BackendConfig``.

    Raises:
        BackendError: Unknown name, or it cannot run here.
        ModelError, NotFound: See ``load_spec``.
    """
    if name not in NAMES:
        raise BackendError(f"--backend {name}: unknown; choose one of {', '.join(NAMES)}")
    if precision and precision not in ARITHMETIC:
        raise BackendError(f"--precision {precision}: unknown; choose one of {', '.join(ARITHMETIC)}")
    if threads < 0:
        raise BackendError(f"--threads {threads}: wanted 0 (leave the choice) or more")
    spec = load_spec(model)
    if name == "auto":
        from leaf_rt.backends.selection import choose

        return choose(model, spec, threads, say, precision, build=build)
    one = candidate(name)
    if precision == "int8" and spec.precision == "fp32":
        model, spec = int8_file(model, spec, one)
    if model.suffix not in one.formats:
        raise BackendError(f"--backend {name}: runs {' and '.join(one.formats)} files, not {model.name}")
    ok, why = one.available()
    if not ok:
        raise BackendError(f"--backend {name}: {why}")
    wanted = BackendConfig(threads, "asked for with --backend", precision, say, build)
    return load(one, model, spec, wanted)


def int8_path(model: Path, one: BackendEntry) -> Path:
    """Where the quantised form of a model for one back end lies, if there is one."""
    return variant_path(model, "int8", ".xml" if one.name == "openvino" else ".onnx")


def int8_file(model: Path, spec: ModelSpec, one: BackendEntry) -> tuple[Path, ModelSpec]:
    """The quantised form of an fp32 model for one back end, and its description.

    Raises:
        BackendError: There is none, or it was made from another model.
    """
    if one.name.startswith("tensorrt"):
        raise BackendError(f"--precision int8: is for the CPU; {one.name} runs fp16 and fp32")
    path = int8_path(model, one)
    if not path.is_file():
        target = " --target openvino" if one.name == "openvino" else ""
        raise BackendError(
            f"--precision int8: {path.name} is missing beside {model.name}; `leaf-rt export --precision int8{target}` "
            "makes it"
        )
    own = load_spec(path)
    if own.parent != spec.sha256:
        raise BackendError(f"--precision int8: {path.name} was not made from {model.name}; export it again")
    return path, own


def load(one: BackendEntry, model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    """Open a candidate.

    Raises:
        BackendError: Its runtime cannot be imported.
        LeafError: As it says.
    """
    try:
        return one.load(model, spec, wanted)
    except LeafError:
        raise
    except (ImportError, OSError, RuntimeError) as e:  # what vendors' modules raise on import on the wrong machine
        raise BackendError(f"--backend {one.name}: cannot be loaded ({first_line(e)})") from e


def first_line(e: BaseException) -> str:
    """What an exception says, on one line."""
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__
