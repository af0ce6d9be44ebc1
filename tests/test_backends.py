"""Every installed back end must pass the same tests; also invalid options and the parity check."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engines_fakes import CLASSES, DIM, SIDE, describe, faces, tiny_onnx

from leaf_rt.backends.base import Backend, default_threads, threads_for_files
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import compare, golden_faces
from leaf_rt.backends.registry import BACKENDS, NAMES
from leaf_rt.errors import BackendError, ModelError, NotFound
from leaf_rt.types import Prediction

INSTALLED = [
    pytest.param(
        backend.name,
        marks=pytest.mark.skipif((problem := backend.problem()) is not None, reason=str(problem)),
    )
    for backend in BACKENDS
]


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(params=INSTALLED)
def backend(request: pytest.FixtureRequest, model: Path) -> Iterator[Backend]:
    opened = open_backend(model, request.param, threads=1)
    yield opened
    opened.close()


def by_hand(model: Path, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of the tiny model, computed in NumPy."""
    import onnx
    from onnx import numpy_helper

    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(model).graph.initializer}
    cells = crops.reshape(-1, 4, 16, 4, 16, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255  # (N, 3, 4, 4)
    features = cells.reshape(len(crops), -1) @ w["w"]
    logits = features @ w["v"]
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True), features


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_predictions_are_correct_for_any_batch(backend: Backend, model: Path, count: int) -> None:
    out = backend.infer(faces(count))
    probs, features = by_hand(model, faces(count))
    np.testing.assert_allclose(out.probs, probs, atol=2e-5)
    np.testing.assert_allclose(out.features, features, atol=2e-5)
    np.testing.assert_allclose(out.probs.sum(1), 1, atol=1e-5)


def test_no_faces_give_empty_arrays(backend: Backend) -> None:
    out = backend.infer(np.zeros((0, SIDE, SIDE, 3), np.uint8))
    assert (out.probs.shape, out.features.shape) == ((0, CLASSES), (0, DIM))


def test_a_prediction_is_not_overwritten_by_the_next_call(backend: Backend) -> None:
    first = backend.infer(faces(2))
    kept = first.probs.copy()
    backend.infer(faces(4)[2:])
    np.testing.assert_array_equal(first.probs, kept)


def test_rows_are_independent(backend: Backend) -> None:
    whole = backend.infer(faces(6))
    one = backend.infer(faces(6)[3:4])
    np.testing.assert_allclose(whole.probs[3:4], one.probs, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE, 3), np.uint8)],
)
def test_invalid_faces_are_rejected(backend: Backend, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="faces: wanted uint8"):
        backend.infer(wrong)


def test_the_reason_names_precision_and_choice(backend: Backend) -> None:
    assert "fp32" in backend.reason
    assert "requested with --backend" in backend.reason
    if backend.device == "cpu":
        assert "1 thread" in backend.reason
    backend.close()
    backend.close()


def test_non_contiguous_faces(backend: Backend) -> None:
    mirrored = faces(4)[:, :, ::-1]
    np.testing.assert_allclose(backend.infer(mirrored).probs, backend.infer(mirrored.copy()).probs, atol=1e-6)


@pytest.mark.parametrize("name", [c.values[0] for c in INSTALLED if c.values[0] in ("onnxruntime", "openvino")])
def test_a_graph_that_does_not_match_is_rejected(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    tiny_onnx(path)
    describe(path, labels=("one", "two"))
    with pytest.raises(ModelError, match="does not match its description"):
        open_backend(path, name)
    describe(path, side=32)
    with pytest.raises(ModelError, match="does not match its description"):
        open_backend(path, name)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "auto"])
def test_a_damaged_file_is_rejected(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    tiny_onnx(path)
    path.write_bytes(path.read_bytes()[:-300])
    describe(path)  # the hash in the description is correct
    with pytest.raises(ModelError, match="cannot load it"):
        open_backend(path, name)
    path.write_bytes(b"not a model at all")
    describe(path)
    with pytest.raises(ModelError, match="cannot load it"):
        open_backend(path, name)


def test_invalid_options_are_rejected(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="unknown; choose one of auto"):
        open_backend(model, "tensorflow")
    with pytest.raises(BackendError, match="--threads -1"):
        open_backend(model, threads=-1)
    with pytest.raises(NotFound, match="no such file"):
        open_backend(tmp_path / "none.onnx")
    other = tmp_path / "tiny.plan"
    shutil.copy(model, other)
    describe(other)
    with pytest.raises(BackendError, match=r"runs \.onnx files, not tiny\.plan"):
        open_backend(other, "onnxruntime")
    with pytest.raises(BackendError, match="ONNX Runtime computes in the precision of the model file"):
        open_backend(model, "onnxruntime", precision="bf16")
    with pytest.raises(BackendError, match="in fp32 or bf16"):
        open_backend(model, "openvino", precision="fp16")
    with pytest.raises(BackendError, match="--precision fp64: unknown; choose one of fp32, fp16, bf16, int8"):
        open_backend(model, precision="fp64")
    assert set(NAMES) == {"auto", *(one.name for one in BACKENDS)}


def test_a_missing_package_has_an_install_hint(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.backends.registry.metadata.version", _no_package)
    monkeypatch.setattr("leaf_rt.backends.registry.find_spec", lambda _: None)
    with pytest.raises(
        BackendError, match=r'--backend openvino: not installed; install .* pip install "\.\[openvino\]"'
    ):
        open_backend(model, "openvino")


def _no_package(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_default_threads_leave_one_core_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 2), (4, 3), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert default_threads() == threads


def test_files_leave_a_core_to_the_face_detector_on_two_cores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 1), (4, 3), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert threads_for_files() == threads


def test_parity_detects_differences() -> None:
    random = np.random.default_rng(0)
    probs = random.dirichlet(np.ones(8), 400).astype(np.float32)
    features = random.normal(size=(400, 5)).astype(np.float32)
    same = compare(Prediction(probs, features), Prediction(probs, features))
    assert same.ok
    assert (same.agreement, same.probs, round(same.cosine, 6)) == (1.0, 0.0, 1.0)
    off = probs.copy()
    off[0] = off[0, ::-1]
    assert not compare(Prediction(probs, features), Prediction(off, features)).ok  # one large difference is enough
    assert not compare(Prediction(probs, features), Prediction(probs * np.float32(np.nan), features)).ok
    assert not compare(Prediction(probs, features), Prediction(probs, features[::-1].copy())).ok  # the labels are equal
    with pytest.raises(ValueError, match="parity: wanted probs"):
        compare(Prediction(probs, features), Prediction(probs[:3], features[:3]))


def test_golden_faces_are_real_and_can_be_resized() -> None:
    crops = golden_faces(64)
    assert crops.shape == (256, 64, 64, 3)
    assert crops.std(axis=(1, 2, 3)).min() > 10
    assert len(np.unique(crops.reshape(256, -1), axis=0)) == 256
    assert golden_faces(32).shape == (256, 32, 32, 3)
    with pytest.raises(NotFound, match="stored crops are missing"):
        golden_faces(64, Path("none.jpg"))
