"""TensorRT and TensorRT-RTX on an NVIDIA GPU: a plan from the cache or built now, proven on stored crops, then run.

Every step that can fail has a safer next one, fp16 then fp32, and each fall is said. ``cuda`` looks whether there is a
GPU, ``build`` makes plans, ``runner`` runs them; this file ties them to models and the cache.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leaf_rt.backends.base import Backend, BackendConfig, BackendEntry, candidate, check_faces, empty, first_line, load
from leaf_rt.backends.parity import Parity, compare, golden_faces
from leaf_rt.backends.plan_cache import cache_folder, get_or_build, read_entry, usable
from leaf_rt.backends.tensorrt.build import BUILD, Profile, build_plan, check_module
from leaf_rt.backends.tensorrt.cuda import Cuda, CudaRuntime, Gpu, probe
from leaf_rt.backends.tensorrt.runner import EngineRunner
from leaf_rt.errors import BackendError, LeafError, ModelError
from leaf_rt.models.spec import ModelSpec, load_spec, sha256_of, variant_path
from leaf_rt.system.files import write_whole
from leaf_rt.types import U8, Prediction

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the way from a model to a running engine needs of the outside; tests give their own.

    Attributes:
        trt: The module.
        gpu: From ``probe``.
        cuda: Makes the CUDA calls.
        context: Plan to (execution context, what must outlive it); None where the plan is refused.
        reference: fp32 predictions of a model on faces.
        folder: Of the cache; None takes the user's.
    """

    trt: Any
    gpu: Gpu
    cuda: Callable[[], Cuda]
    context: Callable[[Any, bytes], tuple[Any, Any] | None]
    reference: Callable[[Path, ModelSpec, U8], Prediction]
    folder: Path | None = None


class TensorRtBackend:
    """A proven engine; see ``Backend``."""

    def __init__(self, module: str, spec: ModelSpec, runner: EngineRunner, owner: Any, reason: str) -> None:
        self.name = module.replace("_", "-")
        self.spec = spec
        self.reason = reason
        self._runner = runner
        self._owner = owner

    def infer(self, faces: U8) -> Prediction:
        """Classify (N, side, side, 3) uint8 BGR crops; see ``Backend.infer``."""
        check_faces(faces, self.spec)
        return self._runner.infer(faces) if len(faces) else empty(self.spec)

    def close(self) -> None:
        """Free the GPU; may be called twice."""
        self._runner.close()
        self._owner = None


def open_engine(module: str, model: Path, spec: ModelSpec, wanted: BackendConfig) -> Backend:
    """Bring a model onto the GPU.

    Args:
        module: "tensorrt" or "tensorrt_rtx".
        model: An .onnx file, fp32, with NAME-fp16.onnx beside it if there is one; or a .plan built here.
        spec: Its description.
        wanted: Threads are of no use here; ``precision`` "fp32" or "fp16" is taken alone.

    Raises:
        BackendError: No driver, no module, or no precision gave an engine that answers rightly.
        ModelError: A .plan for another machine.
    """
    return open_with(parts_here(module), model, spec, wanted)


def parts_here(module: str) -> Parts:
    """The real outside.

    Raises:
        BackendError: No driver, or the module is unfit.
    """
    gpu = probe()  # first: without a driver the module's own objects crash the process
    if isinstance(gpu, str):
        raise BackendError(gpu)
    trt = importlib.import_module(module)
    check_module(trt)
    return Parts(trt, gpu, CudaRuntime, deserialize, _onnxruntime)


def open_with(
    parts: Parts,
    model: Path,
    spec: ModelSpec,
    wanted: BackendConfig,
    profile: Profile = Profile(),  # noqa: B008
) -> Backend:
    """``open_engine`` with the outside given."""
    if model.suffix == ".plan":
        key = plan_key(parts, spec.tensorrt.get("onnx_sha256", ""), spec.precision, _profile_of(spec))
        if spec.tensorrt.get("key") != key:
            raise ModelError(f"{model}: built for another GPU, driver or TensorRT than {parts.gpu.name}; build it here "
                             "from the .onnx file (--model NAME.onnx), foreign plans are never run")  # fmt: skip
        return _start(parts, model.read_bytes(), spec, _profile_of(spec), f"the plan {model.name}", wanted.reason)
    reference = _stored_answers(parts, model, spec)
    fallen: list[str] = []
    for path, own in _precisions(model, spec, wanted):
        try:
            return _prove(parts, path, own, wanted, profile, reference, fallen)
        except LeafError as e:
            text = f"{own.precision} engine: {e}"
            wanted.say(f"{text}; trying the next safer precision" if own.precision == "fp16" else text)
            fallen.append(text)
    raise BackendError(f"{TITLES[parts.trt.__name__]}: no engine that answers rightly ({'; '.join(fallen)})")


def plan_key(parts: Parts, onnx_sha256: str, precision: str, profile: Profile) -> dict[str, Any]:
    """All that a plan depends on."""
    return {
        "module": parts.trt.__name__, "version": str(parts.trt.__version__), "gpu": asdict(parts.gpu),
        "onnx_sha256": onnx_sha256, "precision": precision, "profile": asdict(profile), "tf32": False, "build": BUILD,
    }  # fmt: skip


def plan_bytes(parts: Parts, onnx: Path, precision: str, profile: Profile, wanted: BackendConfig) -> tuple[bytes, str]:
    """A plan for this machine, from the cache or built now, and where it comes from."""
    key = plan_key(parts, sha256_of(onnx), precision, profile)
    title = TITLES[parts.trt.__name__]
    if not wanted.build:
        content, wrong = _cached(parts, key)
        if content is None:
            raise BackendError(wrong or "not built yet")
        return content, "from the cache"

    def build() -> bytes:
        wanted.say(f"building the {title} engine ({precision}) for {parts.gpu.name}: once, up to some minutes")
        folder = parts.folder or cache_folder()
        store = folder / f"timings-{parts.trt.__name__}-{parts.trt.__version__}.bin"
        keep = usable(folder) is None
        known = store.read_bytes() if keep and store.is_file() else b""
        built = build_plan(parts.trt, onnx.read_bytes(), profile, timings=known)
        if keep and built.timings:
            write_whole(store, built.timings)
        return built.plan

    return get_or_build(key, build, wanted.say, parts.folder)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that a run may want.

    Attributes:
        precision: "fp16" or "fp32".
        cached: Whether it is there; otherwise a run that wants it builds it first.
        wrong: What is wrong with the one in the cache, "" where there is none.
    """

    precision: str
    cached: bool
    wrong: str


def engines(parts: Parts, model: Path, spec: ModelSpec, profile: Profile = Profile()) -> list[Engine]:  # noqa: B008
    """The engines of a model that a run would try, in this order. Builds nothing and starts none of them.

    Raises:
        BackendError: The model is not for TensorRT.
    """
    found: list[Engine] = []
    for path, own in _precisions(model, spec, BackendConfig()):
        content, wrong = _cached(parts, plan_key(parts, sha256_of(path), own.precision, profile))
        found.append(Engine(own.precision, content is not None, wrong))
    return found


def _cached(parts: Parts, key: dict[str, Any]) -> tuple[bytes | None, str]:
    """The plan in the cache, or None and what is wrong with it or with the folder; plans hold code, see ``usable``."""
    folder = parts.folder or cache_folder()
    wrong = usable(folder)
    return (None, wrong) if wrong is not None else read_entry(folder, key)


def deserialize(trt: Any, plan: bytes) -> tuple[Any, Any] | None:
    """An execution context and its engine; None where TensorRT refuses the plan. Needs a driver, see ``probe``."""
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    context = engine.create_execution_context()
    return None if context is None else (context, (logger, runtime, engine))


def _prove(
    parts: Parts, path: Path, spec: ModelSpec, wanted: BackendConfig, profile: Profile, reference: Prediction,
    fallen: list[str],
) -> Backend:  # fmt: skip
    """An engine from ``path`` that answers as the reference does, or a LeafError."""
    plan, origin = plan_bytes(parts, path, spec.precision, profile, wanted)
    why = f"{wanted.reason}; after {' and '.join(fallen)}" if fallen else wanted.reason
    backend = _start(parts, plan, spec, profile, origin, why)
    try:
        parity: Parity = compare(reference, backend.infer(golden_faces(spec.side)))
    except LeafError:
        backend.close()
        raise
    if not parity.ok:
        backend.close()
        raise BackendError(f"parity failed ({parity})")
    return backend


def _start(parts: Parts, plan: bytes, spec: ModelSpec, profile: Profile, origin: str, why: str) -> TensorRtBackend:
    opened = parts.context(parts.trt, plan)
    if opened is None:
        raise BackendError(f"TensorRT refuses the plan ({origin}); delete it from the cache")
    context, owner = opened
    runner = EngineRunner(context, parts.cuda(), spec.side, len(spec.labels), spec.feature_dim, profile.most)
    module = parts.trt.__name__
    reason = f"{TITLES[module]} {parts.trt.__version__}, {spec.precision} on {parts.gpu.name}, {origin}: {why}"
    return TensorRtBackend(module, spec, runner, owner, reason)


def _precisions(model: Path, spec: ModelSpec, wanted: BackendConfig) -> list[tuple[Path, ModelSpec]]:
    """The files to try, the quickest first."""
    if wanted.precision not in ("", "fp32", "fp16"):
        raise BackendError(f"--precision {wanted.precision}: TensorRT runs fp16 and fp32 models")
    if spec.precision == "int8":
        raise BackendError(f"{model}: int8 models are for the CPU; give the fp32 file")
    files: list[tuple[Path, ModelSpec]] = []
    half = variant_path(model, "fp16")
    if spec.precision == "fp32" and wanted.precision != "fp32":
        if half.is_file():
            own = load_spec(half)
            if own.parent == spec.sha256:
                files.append((half, own))
            else:
                wanted.say(f"{half.name} was not made from {model.name}: passed over; export it again")
        elif wanted.precision == "fp16":
            raise BackendError(f"--precision fp16: {half.name} is missing; `leaf-rt export --precision fp16` writes it")
    if wanted.precision != "fp16" or spec.precision == "fp16":
        files.append((model, spec))
    return files


def _stored_answers(parts: Parts, model: Path, spec: ModelSpec) -> Prediction:
    return parts.reference(model, spec, golden_faces(spec.side))


def _onnxruntime(model: Path, spec: ModelSpec, faces: U8) -> Prediction:
    """What the fp32 model says, on the CPU."""
    one: BackendEntry = candidate("onnxruntime")
    backend = load(one, model, spec, BackendConfig())
    try:
        return backend.infer(faces)
    finally:
        backend.close()


def _profile_of(spec: ModelSpec) -> Profile:
    try:
        return Profile(**spec.tensorrt["profile"])
    except (KeyError, TypeError) as e:
        raise ModelError(f"the description of the plan lacks its profile ({first_line(e)}); build it again") from e


def describe_plan(parts: Parts, onnx: Path, spec: ModelSpec, profile: Profile, plan: Path) -> ModelSpec:
    """The description of a plan built here from ``onnx``, for the JSON beside it."""
    digest = sha256_of(onnx)
    facts = {
        "key": json.loads(json.dumps(plan_key(parts, digest, spec.precision, profile))),
        "onnx_sha256": digest, "profile": asdict(profile),
    }  # fmt: skip
    return replace(spec, opset=0, sha256=sha256_of(plan), tensorrt=facts, parent=spec.parent or digest)
