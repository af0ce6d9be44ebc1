"""Model repository for the Triton Inference Server: NAME/config.pbtxt and NAME/1/model.onnx.

Knows Triton's model configuration (message ModelConfig of model_config.proto); must not know runtimes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from leaf_rt.errors import ModelError, NoPermission, OutputError
from leaf_rt.models.spec import ModelSpec, spec_path

# Suffix of a model file to Triton's backend and the file's name in the repository.
FORMATS = {
    ".onnx": ("onnxruntime", "model.onnx"),
    ".plan": ("tensorrt", "model.plan"),
    ".xml": ("openvino", "model.xml"),
}


def config(name: str, spec: ModelSpec, suffix: str, max_batch: int = 32, max_delay_us: int = 2000) -> str:
    """The text of config.pbtxt.

    Args:
        name: Name of the model; its folder must have the same name.
        spec: Description of the model file.
        suffix: ".onnx", ".plan" or ".xml".
        max_batch: Largest batch.
        max_delay_us: How long Triton may delay a face to fill a batch, microseconds.

    Raises:
        ModelError: Triton cannot run such files.
    """
    if suffix not in FORMATS:
        raise ModelError(f"--target triton: Triton runs {', '.join(FORMATS)} files, not {suffix}")
    backend, file = FORMATS[suffix]
    device = "KIND_GPU" if suffix == ".plan" else "KIND_AUTO" if suffix == ".onnx" else "KIND_CPU"
    # The shapes do not contain the batch: max_batch_size adds it.
    return f"""name: "{name}"
backend: "{backend}"
default_model_filename: "{file}"
max_batch_size: {max_batch}
input [
  {{ name: "faces" data_type: TYPE_UINT8 dims: [ {spec.side}, {spec.side}, 3 ] }}
]
output [
  {{ name: "probs" data_type: TYPE_FP32 dims: [ {len(spec.labels)} ] label_filename: "labels.txt" }},
  {{ name: "features" data_type: TYPE_FP32 dims: [ {spec.feature_dim} ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {max_delay_us} }}
instance_group [ {{ count: 1 kind: {device} }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
"""


def write_repository(model: Path, spec: ModelSpec, out: Path, name: str) -> Path:
    """Write a repository with one model.

    Args:
        model: The file that Triton will run.
        spec: Its description.
        out: Folder of the repository.
        name: Name of the model.

    Returns:
        The folder of the model, NAME/.

    Raises:
        ModelError: See ``config``.
        NoPermission, OutputError: It cannot be written.
    """
    text = config(name, spec, model.suffix)
    folder = out / name
    version = folder / "1"
    try:
        version.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, version / FORMATS[model.suffix][1])
        if model.suffix == ".xml":
            shutil.copyfile(model.with_suffix(".bin"), version / "model.bin")
        shutil.copyfile(spec_path(model), folder / "leaf-rt.json")
        (folder / "labels.txt").write_text("\n".join(spec.labels) + "\n", encoding="utf-8")
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    except PermissionError as e:
        raise NoPermission(f"--out {out}: no permission to write there; choose another folder") from e
    except OSError as e:
        raise OutputError(f"--out {out}: could not be written ({e.strerror or e})") from e
    return folder
