"""The choice of "auto": timed once, stored, and never a variant with wrong predictions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines_fakes import CLASSES, faces, tiny_onnx

from leaf_rt.backends import selection
from leaf_rt.backends.base import Backend
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.variants import Variant
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import load_spec
from leaf_rt.types import Prediction
from train.recipes.schema import Data, Recipe

pytestmark = pytest.mark.usefixtures("cache")


def test_auto_times_once_and_stores_the_winner(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.05)
    first = open_backend(model)
    assert "measured now" in first.reason
    assert (cache / "auto.json").is_file()
    monkeypatch.setattr(selection, "_race", None)  # a second measurement would fail
    second = open_backend(model)
    assert second.name == first.name
    assert "the fastest here (" in second.reason
    (cache / "auto.json").write_text("{damaged")
    with pytest.raises(TypeError):
        open_backend(model)  # measured again


def test_auto_works_if_the_cache_cannot_be_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.01)
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("LEAF_RT_CACHE", str(blocked / "cache"))
    messages: list[str] = []
    backend = open_backend(model, notify=messages.append)
    assert backend.infer(faces(1)).probs.shape == (1, CLASSES)
    assert any("timed at every start" in text and "LEAF_RT_CACHE" in text for text in messages)


def test_auto_excludes_a_back_end_with_wrong_predictions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.01)
    right = open_backend(model, "onnxruntime")

    class Wrong:
        name, device, spec = "openvino", "cpu", load_spec(model)

        def infer(self, crops: np.ndarray) -> Prediction:
            out = right.infer(crops)
            return Prediction(np.roll(out.probs, 1, axis=1), out.features)

    messages: list[str] = []
    opened: dict[str, Backend] = {"openvino fp32": Wrong(), "openvino int8": Wrong(), "onnxruntime fp32": right}  # type: ignore[dict-item]
    times = selection._race(opened, right.infer(faces(selection.PROOF)), messages.append)
    assert list(times) == ["onnxruntime fp32"]
    assert [text.partition(" is not")[0] for text in messages] == ["openvino fp32", "openvino int8"]
    assert "answers differ" in messages[0]
    del opened["onnxruntime fp32"]
    with pytest.raises(BackendError, match="openvino fp32 and openvino int8: the answers differ"):
        selection._race(opened, right.infer(faces(selection.PROOF)), messages.append)


def test_auto_excludes_a_back_end_that_fails(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.01)
    right = open_backend(model, "onnxruntime")

    class Broken:
        name, device, spec = "openvino", "cpu", load_spec(model)

        def infer(self, crops: np.ndarray) -> Prediction:
            raise BackendError("OpenVINO failed")

    messages: list[str] = []
    opened: dict[str, Backend] = {"openvino fp32": Broken(), "onnxruntime fp32": right}  # type: ignore[dict-item]
    assert list(selection._race(opened, right.infer(faces(selection.PROOF)), messages.append)) == ["onnxruntime fp32"]
    assert messages == ["openvino fp32 is not used: OpenVINO failed"]
    own = Variant(find_backend("onnxruntime"), model, right.spec, "fp32")
    broken: dict[str, Backend] = {"onnxruntime fp32": Broken()}  # type: ignore[dict-item]
    assert selection._reference(broken, own, 1) is None
    with pytest.raises(BackendError, match=r"onnxruntime fp32: the answers differ .*, or there are none"):
        selection._race(broken, None, messages.append)


@pytest.mark.parametrize("error", [TypeError, AttributeError, RuntimeError, KeyError])
@pytest.mark.parametrize("when", ["load", "infer"])
def test_auto_runs_on_the_cpu_after_any_error_of_a_gpu_back_end(
    model: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], when: str
) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.01)

    class Broken:
        name, device, reason, spec, cropper = "tensorrt", "cuda", "", load_spec(model), None

        def infer(self, crops: np.ndarray) -> Prediction:
            raise error("a fault of the runtime")

        def close(self) -> None: ...

    def load(*_: object) -> Backend:
        if when == "load":
            raise error("a fault of the runtime")
        return Broken()  # type: ignore[return-value]

    gpu = dataclasses.replace(find_backend("tensorrt"), load=load)
    others = tuple(backend for backend in selection.BACKENDS if backend.device == "cpu")
    monkeypatch.setattr(selection, "BACKENDS", (gpu, *others))
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.gpu_problem", lambda _: None)
    messages: list[str] = []
    opened = open_backend(model, notify=messages.append)
    assert opened.device == "cpu"
    assert any("tensorrt is not used: --backend tensorrt: cannot be loaded" in text for text in messages)


def test_auto_works_without_a_driver(model: Path, cache: Path) -> None:
    """In a child process, because TensorRT crashes if there is no driver."""
    code = (
        "from leaf_rt.backends.opening import open_backend;"
        "from leaf_rt.backends.registry import BACKENDS; from pathlib import Path;"
        "print([b.problem() for b in BACKENDS]);"
        f"b = open_backend(Path({str(model)!r})); print(b.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "the fastest here" in done.stdout or "the only CPU back end" in done.stdout or "GPU" in done.stdout


@pytest.mark.skipif(find_backend("openvino").problem() is not None, reason="no OpenVINO")
def test_ctrl_c_works_after_two_openvino_back_ends_are_freed(model: Path) -> None:
    """In a child process, because the failure is a segmentation fault."""
    code = (
        "import os, signal; from leaf_rt.backends.opening import open_backend; from pathlib import Path\n"
        f"opened = [open_backend(Path({str(model)!r}), 'openvino') for _ in range(2)]\n"
        "while opened: opened.pop(0).close()\n"
        "try: os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "except KeyboardInterrupt: print('survived')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An fp32 model with an int8 file beside it."""
    monkeypatch.setattr(selection, "BUDGET", 0.01)
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    tiny_onnx(tmp_path / "m-int8.onnx", precision="int8", parent=spec.sha256)
    return model


def fastest(monkeypatch: pytest.MonkeyPatch, winner: str) -> None:
    """Let the variant of this name win."""
    race = selection._race
    monkeypatch.setattr(
        selection, "_race", lambda *a: {k: 0.001 if k == winner else max(v, 0.002) for k, v in race(*a).items()}
    )


def test_an_int8_file_can_win_and_the_reason_says_so(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest(monkeypatch, "onnxruntime int8")
    for how in ("measured now", "the fastest here"):  # the second time, from the stored choice
        backend = open_backend(pair)
        assert (backend.name, backend.spec.precision) == ("onnxruntime", "int8")
        for words in ("int8 on CPU", "onnxruntime int8 1.0 ms", "onnxruntime fp32", how, "--precision fp32"):
            assert words in backend.reason
    assert open_backend(pair, precision="fp32").spec.precision == "fp32"


def test_the_fp32_model_wins_if_it_is_fastest(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest(monkeypatch, "onnxruntime fp32")
    backend = open_backend(pair)
    assert backend.spec.precision == "fp32"
    assert "--precision fp32" not in backend.reason


def test_an_int8_file_with_wrong_predictions_is_excluded(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    int8 = pair.with_name("m-int8.onnx")
    tiny_onnx(int8, precision="int8", parent=load_spec(pair).sha256, seed=5)
    messages: list[str] = []
    assert open_backend(pair, notify=messages.append).spec.precision == "fp32"
    assert "onnxruntime int8 is not used: its answers differ" in messages[0]


def test_an_int8_file_of_another_model_is_excluded(pair: Path) -> None:
    tiny_onnx(pair.with_name("m-int8.onnx"), precision="int8", parent="0" * 64)
    messages: list[str] = []
    assert open_backend(pair, notify=messages.append).spec.precision == "fp32"
    assert "m-int8.onnx was not made from m.onnx" in messages[0]
    for name in ("auto", "onnxruntime"):
        with pytest.raises(BackendError, match=r"m-int8\.onnx was not made from m\.onnx"):
            open_backend(pair, name, precision="int8")


def test_int8_runs_if_requested(pair: Path) -> None:
    for name in ("auto", "onnxruntime"):
        backend = open_backend(pair, name, precision="int8")
        assert (backend.name, backend.spec.precision) == ("onnxruntime", "int8")
        assert "int8 on CPU" in backend.reason
    assert open_backend(pair, "onnxruntime").spec.precision == "fp32"
    pair.with_name("m-int8.onnx").unlink()
    with pytest.raises(BackendError, match=r"m-int8\.onnx is missing"):
        open_backend(pair, "onnxruntime", precision="int8")
    with pytest.raises(BackendError, match=r"no back end can run m\.onnx in int8 here .*m-int8\.onnx is missing"):
        open_backend(pair, precision="int8")


def test_an_unavailable_precision_has_a_reason_per_back_end(pair: Path) -> None:
    int8 = pair.with_name("m-int8.onnx")
    with pytest.raises(BackendError, match=r"m-int8\.onnx in bf16 here .*onnxruntime: does not run this int8 model"):
        open_backend(int8, precision="bf16")
    with pytest.raises(BackendError, match=r"in fp32 here .*onnxruntime: does not run this int8 model"):
        open_backend(int8, precision="fp32")


@pytest.mark.skipif(find_backend("openvino").problem() is not None, reason="OpenVINO is not installed")
def test_bf16_needs_processor_support(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendError, match="--precision bf16: this processor does not support bf16; use fp32"):
        open_backend(pair, precision="bf16")


@pytest.mark.skipif(find_backend("tensorrt-rtx").problem() is None, reason="there is a GPU: see make test-gpu")
def test_fp16_needs_a_gpu(pair: Path) -> None:
    with pytest.raises(BackendError, match=r"no back end can run m\.onnx in fp16 here .*(driver|installed)"):
        open_backend(pair, precision="fp16")


def test_an_evaluation_uses_the_named_file(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from train.reports import evaluation

    fastest(monkeypatch, "onnxruntime int8")
    spec = load_spec(pair)
    crops = faces(3).transpose(0, 3, 1, 2)[:, ::-1]  # as the trainer keeps them
    with evaluation.open_classifier(pair, Recipe(data=Data(path="-"))) as classifier:
        probs = classifier.answers(crops, spec.labels)
    assert (classifier.details["precision"], classifier.details["sha256"]) == ("fp32", spec.sha256)
    np.testing.assert_allclose(probs, open_backend(pair, "onnxruntime").infer(faces(3)).probs, atol=1e-5)
