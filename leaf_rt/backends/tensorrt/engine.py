"""The TensorRT and TensorRT-RTX back ends: from a model to a checked engine on an NVIDIA GPU.

An engine comes from the cache or is built now, and must answer the stored crops like the fp32 model, in batches of
every size for which it has a CUDA graph. If the fp16 engine fails, fp32 is tried. ``cuda`` detects the GPU, ``build``
makes plans, ``plan`` and ``runner`` run them; this file connects them with models and the cache.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leaf_rt.backends.base import (
    Backend,
    BackendConfig,
    Cropper,
    Device,
    ProgressCallback,
    check_faces,
    empty_prediction,
    load_errors,
)
from leaf_rt.backends.half_file import find_half_file
from leaf_rt.backends.parity import answers_to_store, check_batches, check_stored_answers, golden_faces
from leaf_rt.backends.plan_cache import cache_folder, folder_problem, get_or_build, hashed_name, read_entry
from leaf_rt.backends.reference import fp32_answers
from leaf_rt.backends.tensorrt.build import BUILD, Profile, build_plan, check_module
from leaf_rt.backends.tensorrt.crops import find_cropper
from leaf_rt.backends.tensorrt.cuda import Cuda, CudaRuntime, Gpu, probe
from leaf_rt.backends.tensorrt.plan import LoadedPlan, load_plan
from leaf_rt.backends.tensorrt.runner import EngineRunner
from leaf_rt.errors import BackendError, LeafError, ModelError, first_line
from leaf_rt.models.spec import ModelSpec, sha256_of
from leaf_rt.system.files import write_whole
from leaf_rt.types import U8, Prediction


@dataclass(frozen=True, slots=True)
class Environment:
    """The GPU software of this machine. Tests replace its parts.

    Attributes:
        trt: The TensorRT module.
        gpu: From ``probe``.
        cuda: Creates the object that makes the CUDA calls.
        load: Loads a plan; None if TensorRT refuses it.
        reference: The predictions of the fp32 model for the stored crops.
        folder: Cache folder; None means the user's.
        cropper: Looks for what cuts crops on this GPU; see ``find_cropper``.
    """

    trt: Any
    gpu: Gpu
    cuda: Callable[[], Cuda]
    load: Callable[[Any, bytes], LoadedPlan | None]
    reference: Callable[[Path, ModelSpec], Prediction]
    folder: Path | None = None
    cropper: Callable[[ProgressCallback], Cropper | None] = find_cropper

    @property
    def title(self) -> str:
        """Name of the runtime for users."""
        return "TensorRT-RTX" if self.trt.__name__ == "tensorrt_rtx" else "TensorRT"


class TensorRtBackend:
    """Runs a checked engine; see ``Backend``."""

    device: Device = "cuda"
    cropper: Cropper | None = None

    def __init__(self, module: str, spec: ModelSpec, runner: EngineRunner, reason: str) -> None:
        self.name = module.replace("_", "-")
        self.spec = spec
        self.reason = reason
        self._runner = runner
        self.buckets = runner.buckets

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        return self._runner.infer(faces) if len(faces) else empty_prediction(self.spec)

    def close(self) -> None:
        """Free the GPU memory. May be called twice."""
        self._runner.close()


def environment(module: str) -> Environment:
    """The environment of this machine.

    Args:
        module: "tensorrt" or "tensorrt_rtx".

    Raises:
        GpuUnavailable: There is no GPU that works.
        BackendError: The module cannot be used.
    """
    gpu = probe()  # first, because the module's objects crash the process if there is no driver
    trt = importlib.import_module(module)
    check_module(trt)
    return Environment(trt, gpu, CudaRuntime, load_plan, fp32_answers)


def open_engine(
    env: Environment,
    model: Path,
    spec: ModelSpec,
    config: BackendConfig,
    profile: Profile = Profile(),  # noqa: B008
) -> Backend:
    """Load a model onto the GPU.

    Args:
        env: Where to run it.
        model: An .onnx file, for which NAME-fp16.onnx is used if it exists; or a .plan file built on this machine.
        spec: Its description.
        config: A ``precision`` of "fp32" or "fp16" is the only one tried. Threads are not used.
        profile: Batch sizes; a .plan file has its own.

    Raises:
        BackendError: No precision gave an engine with correct answers.
        ModelError: A .plan file was built on another machine, or its description has no answers to check it.
    """
    backend = _open(env, model, spec, config, profile)
    backend.cropper = env.cropper(config.notify)
    if backend.cropper is not None:
        backend.reason += "; PyTorch cuts many or large faces on the GPU"
    return backend


def _open(env: Environment, model: Path, spec: ModelSpec, config: BackendConfig, profile: Profile) -> TensorRtBackend:
    """The engine of a model, checked; see ``open_engine``."""
    if model.suffix == ".plan":
        key = plan_key(env, spec.tensorrt.get("onnx_sha256", ""), spec.precision, _profile_of(spec))
        if spec.tensorrt.get("key") != key:
            raise ModelError(
                f"{model}: built for another GPU, driver or TensorRT version than those of this machine "
                f"({env.gpu.name}); use the .onnx file instead (--model NAME.onnx)"
            )
        backend = _start(env, model.read_bytes(), spec, _profile_of(spec), f"the plan {model.name}", config.reason)
        with _closed_on_error(backend):
            check_stored_answers(model, spec, backend.infer, backend.buckets)
        return backend
    reference = env.reference(model, spec)
    failures: list[str] = []
    for path, file_spec in _files_to_try(model, spec, config):
        try:
            with load_errors(env.trt.__name__.replace("_", "-")):
                return _checked(env, path, file_spec, config, profile, reference, failures)
        except LeafError as e:
            failure = f"{file_spec.precision} engine: {e}"
            config.notify(f"{failure}; trying fp32" if file_spec.precision == "fp16" else failure)
            failures.append(failure)
    raise BackendError(f"{env.title}: no engine with correct answers ({'; '.join(failures)})")


def plan_key(env: Environment, onnx_sha256: str, precision: str, profile: Profile) -> dict[str, Any]:
    """Everything that a plan depends on."""
    return {
        **_machine(env), "onnx_sha256": onnx_sha256, "precision": precision, "profile": asdict(profile), "tf32": False,
        "build": BUILD,
    }  # fmt: skip


def _machine(env: Environment) -> dict[str, Any]:
    """What the times of kernels depend on, and with them every plan."""
    return {"module": env.trt.__name__, "version": str(env.trt.__version__), "gpu": asdict(env.gpu)}


def plan_bytes(
    env: Environment, onnx: Path, precision: str, profile: Profile, config: BackendConfig
) -> tuple[bytes, str]:
    """A plan for this machine, from the cache or built now.

    Returns:
        The plan, and a phrase for users that says where it comes from.

    Raises:
        BackendError: It is not in the cache and must not be built, or the build failed.
        ModelError: TensorRT does not support the model.
    """
    key = plan_key(env, sha256_of(onnx), precision, profile)
    if not config.build:
        content, problem = _cached(env, key)
        if content is None:
            raise BackendError(problem or "not built yet")
        return content, "from the cache"

    def build() -> bytes:
        config.notify(
            f"building the {env.title} engine ({precision}) for {env.gpu.name}; this is done once and can take minutes"
        )
        folder = env.folder or cache_folder()
        store = folder / f"timings-{hashed_name(_machine(env))}.bin"
        can_store = folder_problem(folder) is None
        timings = store.read_bytes() if can_store and store.is_file() else b""
        built = build_plan(env.trt, onnx.read_bytes(), profile, timings=timings)
        if can_store and built.timings:
            write_whole(store, built.timings)
        return built.plan

    return get_or_build(key, build, config.notify, env.folder)


@dataclass(frozen=True, slots=True)
class EngineState:
    """Whether an engine of a model is in the cache.

    Attributes:
        precision: "fp16" or "fp32".
        cached: Whether it is in the cache. If not, the run that needs it builds it.
        problem: Why the cached engine cannot be used; "" if there is none.
    """

    precision: str
    cached: bool
    problem: str


def engine_states(
    env: Environment,
    model: Path,
    spec: ModelSpec,
    profile: Profile = Profile(),  # noqa: B008
) -> list[EngineState]:
    """The engines of a model in the order in which a run tries them. Builds and starts nothing.

    Raises:
        BackendError: TensorRT does not run this model.
    """
    states: list[EngineState] = []
    for path, file_spec in _files_to_try(model, spec, BackendConfig()):
        content, problem = _cached(env, plan_key(env, sha256_of(path), file_spec.precision, profile))
        states.append(EngineState(file_spec.precision, content is not None, problem))
    return states


def _cached(env: Environment, key: dict[str, Any]) -> tuple[bytes | None, str]:
    """The cached plan, or None and what is wrong with it or with the folder; see ``folder_problem``."""
    folder = env.folder or cache_folder()
    problem = folder_problem(folder)
    return (None, problem) if problem is not None else read_entry(folder, key)


def _checked(
    env: Environment, path: Path, spec: ModelSpec, config: BackendConfig, profile: Profile, reference: Prediction,
    failures: list[str],
) -> TensorRtBackend:  # fmt: skip
    """An engine for ``path`` whose answers match the reference.

    Raises:
        LeafError: There is none.
    """
    plan, origin = plan_bytes(env, path, spec.precision, profile, config)
    why = f"{config.reason}; after {' and '.join(failures)}" if failures else config.reason
    backend = _start(env, plan, spec, profile, origin, why)
    with _closed_on_error(backend):
        check_batches(reference, backend.infer, golden_faces(spec.side), backend.buckets)
    return backend


@contextmanager
def _closed_on_error(backend: Backend) -> Iterator[None]:
    try:
        yield
    except BaseException:
        backend.close()
        raise


def _start(env: Environment, plan: bytes, spec: ModelSpec, profile: Profile, origin: str, why: str) -> TensorRtBackend:
    loaded = env.load(env.trt, plan)
    if loaded is None:
        raise BackendError(f"TensorRT refuses the plan ({origin}); delete it from the cache")
    runner = EngineRunner(
        loaded, env.cuda(), spec.side, len(spec.labels), spec.feature_dim, profile.most, profile.least
    )
    reason = f"{env.title} {env.trt.__version__}, {spec.precision} on {env.gpu.name}, {origin}: {why}"
    return TensorRtBackend(env.trt.__name__, spec, runner, reason)


def _files_to_try(model: Path, spec: ModelSpec, config: BackendConfig) -> list[tuple[Path, ModelSpec]]:
    """The files of a model and their descriptions, fastest first.

    Raises:
        BackendError: TensorRT does not run the requested precision, or its file is missing.
    """
    if config.precision not in ("", "fp32", "fp16"):
        raise BackendError(f"--precision {config.precision}: TensorRT runs fp16 and fp32 models")
    if spec.precision == "int8":
        raise BackendError(f"{model}: int8 models are for the CPU; give the fp32 file")
    files: list[tuple[Path, ModelSpec]] = []
    if spec.precision == "fp32" and config.precision != "fp32":
        half = find_half_file(model, spec, config.notify, config.precision)
        files += [half] if half is not None else []
    if config.precision != "fp16" or spec.precision == "fp16":
        files.append((model, spec))
    return files


def _profile_of(spec: ModelSpec) -> Profile:
    try:
        return Profile(**spec.tensorrt["profile"])
    except (KeyError, TypeError) as e:
        raise ModelError(f"the description of the plan has no profile ({first_line(e)}); build the plan again") from e


def describe_plan(
    env: Environment, onnx: Path, spec: ModelSpec, profile: Profile, plan: Path, reference: Prediction
) -> ModelSpec:
    """The description of a plan, for the JSON file beside it.

    Args:
        env: Where it was built.
        onnx: What it was built from.
        spec: The description of ``onnx``.
        profile: Its batch sizes.
        plan: The file.
        reference: The predictions of the fp32 model for the stored crops.
    """
    digest = sha256_of(onnx)
    facts = {
        "key": json.loads(json.dumps(plan_key(env, digest, spec.precision, profile))),
        "onnx_sha256": digest, "profile": asdict(profile),
    }  # fmt: skip
    return replace(
        spec, opset=0, sha256=sha256_of(plan), tensorrt=facts, parent=spec.parent or digest,
        answers=answers_to_store(reference),
    )  # fmt: skip
