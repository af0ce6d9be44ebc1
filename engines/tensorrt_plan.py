"""A TensorRT plan for the GPU of this machine. Knows the TensorRT back end; must not know checkpoints."""

from __future__ import annotations

from pathlib import Path

from leaf_rt.backends.base import BackendConfig, ProgressCallback, candidate
from leaf_rt.backends.tensorrt import engine
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import load_spec, save_spec
from leaf_rt.system.files import write_whole


def require_tensorrt(target: str) -> None:
    """Check that a plan can be built on this machine.

    Args:
        target: "tensorrt" or "tensorrt-rtx".

    Raises:
        BackendError: The package or the GPU is missing.
    """
    ok, reason = candidate(target).available()
    if not ok:
        raise BackendError(f"--target {target}: {reason}; build the plan on the machine that will run it")


def export_plan(model: Path, file: Path, target: str, profile: Profile, notify: ProgressCallback) -> Path:
    """Build a plan and write it beside the model, if its outputs match those of the fp32 model.

    Args:
        model: The fp32 .onnx file.
        file: The .onnx file to build from: ``model`` or its fp16 variant.
        target: "tensorrt" or "tensorrt-rtx".
        profile: Batch sizes of the plan.
        notify: Called with one sentence about each slow step.

    Returns:
        The .plan file.

    Raises:
        BackendError: The plan cannot be built here, or its outputs differ.
    """
    require_tensorrt(target)
    spec = load_spec(file)
    parts = engine.parts_here(target.replace("-", "_"))
    config = BackendConfig(reason="exported", precision=spec.precision, say=notify)
    engine.open_with(parts, model, load_spec(model), config, profile).close()  # checks parity
    content, _ = engine.plan_bytes(parts, file, spec.precision, profile, config)
    out = file.with_name(f"{file.stem}-{target}.plan")
    write_whole(out, content)
    save_spec(engine.describe_plan(parts, file, spec, profile, out), out)
    return out
