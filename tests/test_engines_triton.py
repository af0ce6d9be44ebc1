"""The Triton model repository, checked with Triton's schema (message ModelConfig)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engines_fakes import CLASSES, DIM, SIDE, run_engines, tiny_onnx
from google.protobuf import text_format

from engines.triton import config
from leaf_rt.errors import ModelError, OutputError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import load_spec


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's schema from its client package, loaded without gRPC."""
    found = importlib.util.find_spec("tritonclient")  # in the dev extra of pyproject.toml
    assert found is not None
    assert found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_config_pb2"] = module
    spec.loader.exec_module(module)
    return module


def test_the_repository_matches_the_schema(schema: Any, tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    tiny_onnx(model)
    assert run_engines("export", model, "--out", tmp_path / "out", "--name", "leaf", "--target", "triton") == 0
    folder = tmp_path / "out" / "triton" / "leaf"
    parsed = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert parsed.name == folder.name  # required by Triton
    assert parsed.backend == "onnxruntime"
    assert parsed.max_batch_size == 32
    assert (folder / "1" / parsed.default_model_filename).read_bytes() == model.read_bytes()
    (faces,) = parsed.input
    assert (faces.name, faces.data_type, list(faces.dims)) == ("faces", schema.TYPE_UINT8, [SIDE, SIDE, 3])
    outputs = {o.name: (o.data_type, list(o.dims)) for o in parsed.output}
    assert outputs == {"probs": (schema.TYPE_FP32, [CLASSES]), "features": (schema.TYPE_FP32, [DIM])}
    labels = folder / parsed.output[0].label_filename
    assert labels.read_text().split() == list(FERPLUS8)
    assert parsed.dynamic_batching.max_queue_delay_microseconds == 2000


def test_the_tensors_match_the_graph(tmp_path: Path) -> None:
    import onnx

    model = tmp_path / "tiny.onnx"
    spec = tiny_onnx(model)
    text = config("leaf", spec, ".onnx")
    for tensor in (*onnx.load(model).graph.input, *onnx.load(model).graph.output):
        assert f'name: "{tensor.name}"' in text


@pytest.mark.parametrize(("suffix", "backend"), [(".plan", "tensorrt"), (".xml", "openvino")])
def test_other_formats_use_their_backend(schema: Any, tmp_path: Path, suffix: str, backend: str) -> None:
    tiny_onnx(tmp_path / "tiny.onnx")
    spec = load_spec(tmp_path / "tiny.onnx")
    assert text_format.Parse(config("x", spec, suffix), schema.ModelConfig()).backend == backend
    with pytest.raises(ModelError, match=r"not \.pt"):
        config("x", spec, ".pt")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    from engines.triton import write_repository

    tiny_onnx(tmp_path / "tiny.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_repository(tmp_path / "tiny.onnx", load_spec(tmp_path / "tiny.onnx"), tmp_path / "file", "m")
