"""Conversion of an ONNX file to OpenVINO's format. Knows OpenVINO; must not know checkpoints."""

from __future__ import annotations

from pathlib import Path

from engines.descriptions import describe_variant
from leaf_rt.errors import BackendError, install_hint
from leaf_rt.models.spec import load_spec


def export_openvino(model: Path) -> Path:
    """Write NAME-openvino.xml and NAME-openvino.bin beside a model, with the same weights and a description.

    Args:
        model: NAME.onnx. NAME.json is its description, so the .xml file needs a name of its own.

    Returns:
        The .xml file.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    try:
        import openvino as ov
    except ImportError as e:
        raise BackendError(f"--target openvino: openvino is not installed; {install_hint('openvino')}") from e
    out = model.with_name(f"{model.stem}-openvino.xml")
    ov.save_model(ov.Core().read_model(str(model)), str(out), compress_to_fp16=False)
    describe_variant(out, model, load_spec(model).precision)
    return out
