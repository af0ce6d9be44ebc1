"""int8 on real faces: accurate enough, or not written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from engines_fakes import run_engines, tiny_onnx
from test_engines_export import leaf

import engines.quantization
from engines.evaluation_faces import load_faces
from engines.onnx_export import export_onnx
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import BackendError, DataError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import load_spec, variant_path

pytestmark = pytest.mark.slow

COUNT = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional model with clear predictions."""
    loaded = leaf(flip=False)
    loaded.model.classifier.weight.data.mul_(6)
    preparation = replace(loaded.preparation, color="grey")
    loaded = replace(loaded, preparation=preparation)
    return export_onnx(loaded, tmp_path_factory.mktemp("model") / "m.onnx", golden_faces(64))


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of real faces in folders; their labels are the predictions of the fp32 model."""
    root = tmp_path_factory.mktemp("data")
    crops = golden_faces(64)[:COUNT]
    predicted = open_backend(model, "onnxruntime", 1).infer(crops).probs.argmax(1)
    for split, rows in (("train", range(0, COUNT, 2)), ("test", range(1, COUNT, 2))):
        for name in FERPLUS8:
            (root / split / name).mkdir(parents=True)
        for i in rows:
            cv2.imwrite(str(root / split / FERPLUS8[predicted[i]] / f"{i}.png"), crops[i])
    for name in FERPLUS8:  # the trainer requires training pictures of every class
        cv2.imwrite(str(root / "train" / name / "filler.png"), np.random.default_rng(0).integers(0, 255, (48, 48, 3)))
    return root


def int8(model: Path, data: Path, out: Path, target: str = "onnx") -> int:
    options = ["--data", str(data), "--layout", "folder", "--cache", str(data.parent / "crops")]
    return run_engines("export", model, "--out", out, "--precision", "int8", "--target", target, *options)


@pytest.mark.parametrize(
    ("target", "suffix", "backend"), [("onnx", ".onnx", "onnxruntime"), ("openvino", ".xml", "openvino")]
)
def test_int8_is_written_with_its_accuracy(
    model: Path, data: Path, tmp_path: Path, target: str, suffix: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.quantization, "MAX_LOSS", 0.2)  # with 48 faces, one face is 2 points
    assert int8(model, data, tmp_path, target) == 0
    path = variant_path(tmp_path / "m.onnx", "int8", suffix)
    spec = load_spec(path)
    assert (spec.precision, spec.parent) == ("int8", load_spec(model).sha256)
    (measured,) = spec.metrics.values()
    assert measured["accuracy"] >= 0.8
    assert measured["faces"] == COUNT // 2
    crops = golden_faces(64)[:COUNT]
    fp32 = open_backend(model, "onnxruntime", 1).infer(crops).probs
    opened = open_backend(path, backend, 1)
    batch = opened.infer(crops)
    int8_probs = batch.probs
    for i in (0, 1, 50):  # the result for a face does not depend on the rest of the batch
        np.testing.assert_allclose(opened.infer(crops[i : i + 1]).features[0], batch.features[i], atol=1e-4)
    if backend == "onnxruntime":
        with pytest.raises(BackendError, match="OpenVINO runs only int8 models in its own format"):
            open_backend(path, "openvino")
    assert 0 < np.abs(fp32 - int8_probs).max() < 0.3, "not quantized, or badly"
    assert (fp32.argmax(1) == int8_probs.argmax(1)).mean() > 0.9


def test_only_the_encoder_is_quantized(model: Path, data: Path, tmp_path: Path) -> None:
    crops = load_faces(data, "folder", "train", load_spec(model), cache=str(data.parent / "crops")).images
    engines.quantization.quantize_onnxruntime(model, tmp_path / "q.onnx", crops)
    proto = onnx.load(tmp_path / "q.onnx")
    made = {out: node.op_type for node in proto.graph.node for out in node.output}
    fed = {node.op_type: [made.get(i) for i in node.input] for node in proto.graph.node}
    assert fed["Conv"][:2] == ["DequantizeLinear", "DequantizeLinear"]
    assert "DequantizeLinear" not in (fed.get("Gemm", []) + fed["Softmax"])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_int8_file_that_loses_too_much_is_deleted(
    model: Path, data: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(engines.quantization, "too_lossy", lambda fp32, int8: True)
    assert int8(model, data, tmp_path, target) == 8
    assert "use fp32 for this model" in capsys.readouterr().err
    assert not list(tmp_path.glob("*int8*"))


def test_faces_are_cropped_as_in_the_runtime(model: Path, data: Path) -> None:
    spec = load_spec(model)
    cache = str(data.parent / "crops")
    some = load_faces(data, "folder", "train", spec, cache=cache, limit=10)
    again = load_faces(data, "folder", "train", spec, cache=cache, limit=10)
    assert some.images.shape == (10, 64, 64, 3)
    assert some.images.flags.c_contiguous
    np.testing.assert_array_equal(some.images, again.images)
    whole = load_faces(data, "folder", "test", spec, cache=cache)
    assert len(whole) == COUNT // 2
    assert set(whole.label) <= set(range(8))


def test_other_labels_are_rejected(data: Path, tmp_path: Path) -> None:
    spec = tiny_onnx(tmp_path / "t.onnx", labels=tuple("abcdefgh"), color="grey")
    with pytest.raises(DataError, match=r"are not the model's \(a, b"):
        load_faces(data, "folder", "test", spec, cache=str(data.parent / "crops"))
