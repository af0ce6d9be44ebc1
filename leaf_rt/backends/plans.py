"""TensorRT engines for the rooms above: the GPU, the engines in the cache, and plan files for export.

The modules in ``tensorrt`` are internal to this room.
"""

from __future__ import annotations

from pathlib import Path

from leaf_rt.backends.base import BackendConfig, ProgressCallback
from leaf_rt.backends.registry import BackendEntry
from leaf_rt.backends.tensorrt import cuda, engine
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.backends.tensorrt.cuda import Gpu
from leaf_rt.backends.tensorrt.engine import EngineState
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import ModelSpec, load_spec, save_spec
from leaf_rt.system.files import write_whole


def find_gpu() -> Gpu:
    """The GPU that TensorRT would use.

    Raises:
        GpuUnavailable: There is no GPU that works.
    """
    return cuda.probe()


def engine_states(backend: BackendEntry, model: Path, spec: ModelSpec) -> list[EngineState]:
    """Whether the engines of a model are in the cache, in the order in which a run tries them. Builds nothing.

    Raises:
        BackendError: The back end cannot run here, or does not run this model.
    """
    return engine.engine_states(engine.environment(backend.modules[0]), model, spec)


def write_plan(
    backend: BackendEntry,
    onnx: Path,
    parent: Path,
    out: Path,
    batches: tuple[int, int, int],
    notify: ProgressCallback,
) -> None:
    """Build a plan for the GPU of this machine, check its answers, and write it with its description.

    Args:
        backend: A GPU back end.
        onnx: The fp32 or fp16 model.
        parent: Its fp32 model.
        out: The plan file.
        batches: The smallest, optimal and largest batch size.
        notify: Called with one sentence about each slow step.

    Raises:
        BackendError: The back end cannot run here, or the plan's answers are wrong.
        ModelError: TensorRT does not support the model, or the batch sizes are not in ascending order.
        NoPermission, OutputError: The files cannot be written.
    """
    profile = Profile(*batches)
    if (problem := backend.problem()) is not None:
        raise BackendError(f"--target {backend.name}: {problem}; a plan is built on the machine that runs it")
    env = engine.environment(backend.modules[0])
    spec = load_spec(onnx)
    config = BackendConfig(reason="exported", precision=spec.precision, notify=notify)
    parent_spec = load_spec(parent)
    engine.open_engine(env, parent, parent_spec, config, profile).close()  # raises an error if answers are wrong
    content, _ = engine.plan_bytes(env, onnx, spec.precision, profile, config)
    write_whole(out, content)
    save_spec(engine.describe_plan(env, onnx, spec, profile, out, env.reference(parent, parent_spec)), out)
