"""Int8 on real faces: as exact as promised, or not offered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from engines_fakes import tiny_onnx
from test_engines_export import leaf

import engines.quantization
from engines.cli import main
from engines.evaluation_faces import data_faces
from engines.onnx_export import export
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import BackendError, DataError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import load_spec, variant_path

COUNT = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional model with clear answers."""
    loaded = leaf(flip=False)
    loaded.model.classifier.weight.data.mul_(6)
    preparation = replace(loaded.preparation, color="grey")
    loaded = replace(loaded, preparation=preparation)
    return export(loaded, tmp_path_factory.mktemp("model") / "m.onnx", golden_faces(64))


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of real faces in folders; the truth is what the fp32 model says of them."""
    root = tmp_path_factory.mktemp("data")
    crops = golden_faces(64)[:COUNT]
    said = open_backend(model, "onnxruntime", 1).infer(crops).probs.argmax(1)
    for split, rows in (("train", range(0, COUNT, 2)), ("test", range(1, COUNT, 2))):
        for name in FERPLUS8:
            (root / split / name).mkdir(parents=True)
        for i in rows:
            cv2.imwrite(str(root / split / FERPLUS8[said[i]] / f"{i}.png"), crops[i])
    for name in FERPLUS8:  # the trainer wants every class among the training pictures
        cv2.imwrite(str(root / "train" / name / "filler.png"), np.random.default_rng(0).integers(0, 255, (48, 48, 3)))
    return root


def int8(model: Path, data: Path, out: Path, target: str = "onnx") -> int:
    options = ["--data", str(data), "--layout", "folder", "--cache", str(data.parent / "crops")]
    return main(["export", str(model), "--out", str(out), "--precision", "int8", "--target", target, *options])


@pytest.mark.parametrize(
    ("target", "suffix", "backend"), [("onnx", ".onnx", "onnxruntime"), ("openvino", ".xml", "openvino")]
)
def test_int8_is_written_with_its_accuracy(
    model: Path, data: Path, tmp_path: Path, target: str, suffix: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.quantization, "MAX_LOSS", 0.2)  # some dozen faces: one of them is 2 points
    assert int8(model, data, tmp_path, target) == 0
    path = variant_path(tmp_path / "m.onnx", "int8", suffix)
    spec = load_spec(path)
    assert (spec.precision, spec.parent) == ("int8", load_spec(model).sha256)
    (measured,) = spec.metrics.values()
    assert measured["accuracy"] >= 0.8
    assert measured["faces"] == COUNT // 2
    crops = golden_faces(64)[:COUNT]
    exact = open_backend(model, "onnxruntime", 1).infer(crops).probs
    opened = open_backend(path, backend, 1)
    together = opened.infer(crops)
    rough = together.probs
    for i in (0, 1, 50):  # the answer for a face does not depend on who comes with it
        np.testing.assert_allclose(opened.infer(crops[i : i + 1]).features[0], together.features[i], atol=1e-4)
    if backend == "onnxruntime":
        with pytest.raises(BackendError, match="OpenVINO runs int8 models of its own tool alone"):
            open_backend(path, "openvino")
    assert 0 < np.abs(exact - rough).max() < 0.3, "not quantised, or badly"
    assert (exact.argmax(1) == rough.argmax(1)).mean() > 0.9


def test_only_the_encoder_is_quantised(model: Path, data: Path, tmp_path: Path) -> None:
    crops = data_faces(data, "folder", "train", load_spec(model), cache=str(data.parent / "crops")).images
    engines.quantization.quantize_onnxruntime(model, tmp_path / "q.onnx", crops)
    proto = onnx.load(tmp_path / "q.onnx")
    made = {out: node.op_type for node in proto.graph.node for out in node.output}
    fed = {node.op_type: [made.get(i) for i in node.input] for node in proto.graph.node}
    assert fed["Conv"][:2] == ["DequantizeLinear", "DequantizeLinear"]
    assert "DequantizeLinear" not in (fed.get("Gemm", []) + fed["Softmax"])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_model_that_loses_too_much_is_not_offered(
    model: Path, data: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(engines.quantization, "allowed_loss", lambda count: -1.0)
    assert int8(model, data, tmp_path, target) == 8
    assert "it is not offered for this model, take fp32" in capsys.readouterr().err
    assert not list(tmp_path.glob("*int8*"))


def test_faces_come_as_the_runtime_cuts_them(model: Path, data: Path) -> None:
    spec = load_spec(model)
    cache = str(data.parent / "crops")
    some = data_faces(data, "folder", "train", spec, cache=cache, limit=10)
    again = data_faces(data, "folder", "train", spec, cache=cache, limit=10)
    assert some.images.shape == (10, 64, 64, 3)
    assert some.images.flags.c_contiguous
    np.testing.assert_array_equal(some.images, again.images)
    whole = data_faces(data, "folder", "test", spec, cache=cache)
    assert len(whole) == COUNT // 2
    assert set(whole.label) <= set(range(8))


def test_foreign_labels_are_refused(data: Path, tmp_path: Path) -> None:
    spec = tiny_onnx(tmp_path / "t.onnx", labels=tuple("abcdefgh"), color="grey")
    with pytest.raises(DataError, match=r"are not the model's \(a, b"):
        data_faces(data, "folder", "test", spec, cache=str(data.parent / "crops"))
