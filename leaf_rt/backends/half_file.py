"""NAME-fp16.onnx beside NAME.onnx: the file that a GPU prefers. Knows descriptions; must not know runtimes."""

from __future__ import annotations

from pathlib import Path

from leaf_rt.backends.base import ProgressCallback
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import ModelSpec, load_spec, variant_path


def find_half_file(
    model: Path, spec: ModelSpec, notify: ProgressCallback, requested: str = ""
) -> tuple[Path, ModelSpec] | None:
    """The float16 file of an fp32 model.

    Args:
        model: The fp32 model.
        spec: Its description.
        notify: Called with one sentence if there is a file that was not made from this model.
        requested: The precision that the user named, if it needs this file.

    Returns:
        The file and its description; None if there is none.

    Raises:
        BackendError: There is none, and it was requested.
        ModelError: It is damaged.
    """
    half = variant_path(model, "fp16")
    if half.is_file():
        half_spec = load_spec(half)
        if half_spec.parent == spec.sha256:
            return half, half_spec
        notify(f"{half.name} is not used: it was not made from {model.name}; export it again")
    if requested:
        raise BackendError(
            f"--precision {requested}: {half.name} is missing; create it with `leaf-rt export --precision fp16`"
        )
    return None
