"""A model repository for the Triton Inference Server: NAME/config.pbtxt and NAME/1/model.onnx.

Knows Triton's model configuration (the message ModelConfig of its model_config.proto); must not know runtimes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from leaf_rt.errors import ModelError, NoPermission, OutputError
from leaf_rt.models.spec import ModelSpec, spec_path

# Suffix of a model file: Triton's backend, the file's name there.
KINDS = {".onnx": ("onnxruntime", "model.onnx"), ".plan": ("tensorrt", "model.plan"), ".xml": ("openvino", "model.xml")}


def config(name: str, spec: ModelSpec, suffix: str, most: int = 32, wait_us: int = 2000) -> str:
    """The text of config.pbtxt.

    Args:
        name: Of the model; Triton wants its folder to have the same.
        spec: Of the model file.
        suffix: ".onnx", ".plan" or ".xml".
        most: Largest batch.
        wait_us: How long Triton may hold a face back to fill a batch, microseconds.

    Raises:
        ModelError: Triton runs no such files.
    """
    if suffix not in KINDS:
        raise ModelError(f"--target triton: runs {', '.join(KINDS)} files, not {suffix}")
    backend, file = KINDS[suffix]
    gpu = "KIND_GPU" if suffix == ".plan" else "KIND_AUTO" if suffix == ".onnx" else "KIND_CPU"
    # Shapes leave out the batch, which max_batch_size brings.
    return f"""name: "{name}"
backend: "{backend}"
default_model_filename: "{file}"
max_batch_size: {most}
input [
  {{ name: "faces" data_type: TYPE_UINT8 dims: [ {spec.side}, {spec.side}, 3 ] }}
]
output [
  {{ name: "probs" data_type: TYPE_FP32 dims: [ {len(spec.labels)} ] label_filename: "labels.txt" }},
  {{ name: "features" data_type: TYPE_FP32 dims: [ {spec.feature_dim} ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {wait_us} }}
instance_group [ {{ count: 1 kind: {gpu} }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
"""


def write_repository(model: Path, spec: ModelSpec, out: Path, name: str) -> Path:
    """Write the repository.

    Args:
        model: The file that Triton shall run.
        spec: Its description.
        out: Where NAME/ is put.
        name: Of the model.

    Returns:
        The folder of the model.

    Raises:
        ModelError: See ``config``.
        NoPermission, OutputError: It cannot be written.
    """
    text = config(name, spec, model.suffix)
    folder = out / name
    version = folder / "1"
    try:
        version.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, version / KINDS[model.suffix][1])
        if model.suffix == ".xml":
            shutil.copyfile(model.with_suffix(".bin"), version / "model.bin")
        shutil.copyfile(spec_path(model), folder / "leaf-rt.json")
        (folder / "labels.txt").write_text("\n".join(spec.labels) + "\n", encoding="utf-8")
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    except PermissionError as e:
        raise NoPermission(f"--out {out}: may not be written; choose another folder") from e
    except OSError as e:
        raise OutputError(f"--out {out}: could not be written ({e.strerror or e})") from e
    return folder
