"""The description of a model: saving, loading, and a message for every error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engines_fakes import describe, tiny_onnx

from leaf_rt.errors import ModelError, NotFound
from leaf_rt.models.spec import load_spec, save_spec, sha256_of, spec_path, variant_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_onnx(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def edit(model: Path, **fields: object) -> None:
    raw = json.loads(spec_path(model).read_text())
    spec_path(model).write_text(json.dumps({**raw, **fields}))


def test_a_saved_description_can_be_loaded(model: Path) -> None:
    spec = load_spec(model)
    save_spec(spec, model)
    assert load_spec(model) == spec
    assert isinstance(spec.labels, tuple)


def test_a_changed_byte_is_found(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match=r"do not match m\.json"):
        load_spec(model)


def test_a_truncated_file_is_found(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(ModelError, match="damaged or was changed"):
        load_spec(model)


def test_missing_files_are_named(model: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.onnx: no such file"):
        load_spec(model.with_name("gone.onnx"))
    spec_path(model).unlink()
    with pytest.raises(ModelError, match=r"m\.json is missing"):
        load_spec(model)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": ["a"]}, "labels: wanted at least two"),
        ({"labels": ["a", "a"]}, "labels: wanted at least two different"),
        ({"labels": [1, 2]}, "labels: wanted names"),
        ({"side": 3}, "side: wanted at least 16"),
        ({"side": "64"}, "a whole number"),
        ({"net_side": 0}, "net_side"),
        ({"feature_dim": 0}, "feature_dim"),
        ({"std": [1, 1, 0]}, "std: wanted three positive"),
        ({"color": "bgr"}, "color: wanted 'grey' or 'rgb'"),
        ({"precision": "int4"}, "precision: wanted fp32 or fp16 or bf16 or int8"),
        ({"margin": 7}, "margin"),
        ({"answers": [["a"]]}, "answers: wanted rows of numbers"),
        ({"version": 99}, "version: wanted 1"),
        ({"surprise": 1}, "fields that differ: surprise"),
    ],
)
def test_wrong_fields_are_named(model: Path, fields: dict[str, object], words: str) -> None:
    edit(model, **fields)
    with pytest.raises(ModelError, match=words):
        load_spec(model)


def test_invalid_json_and_missing_fields(model: Path) -> None:
    spec_path(model).write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_spec(model)
    spec_path(model).write_text('{"labels": ["a", "b"]}')
    with pytest.raises(ModelError, match=r"fields that differ: .*side"):
        load_spec(model)


def test_a_description_without_the_newer_fields_is_still_read(model: Path) -> None:
    raw = json.loads(spec_path(model).read_text())
    del raw["parent"], raw["tensorrt"]
    spec_path(model).write_text(json.dumps(raw))
    assert load_spec(model).parent == ""


def test_the_hash_of_an_openvino_model_covers_its_weights(tmp_path: Path) -> None:
    xml = tmp_path / "m.xml"
    xml.write_text("<net/>")
    with pytest.raises(ModelError, match=r"m\.bin are missing"):
        sha256_of(xml)
    xml.with_suffix(".bin").write_bytes(b"1")
    describe(xml)
    xml.with_suffix(".bin").write_bytes(b"2")
    with pytest.raises(ModelError, match="do not match"):
        load_spec(xml)


def test_paths_of_variants() -> None:
    assert variant_path(Path("a/m.onnx"), "int8") == Path("a/m-int8.onnx")
    assert variant_path(Path("a/m.onnx"), "int8", ".xml") == Path("a/m-int8-openvino.xml")
