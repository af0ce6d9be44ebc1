"""The doctor reports what is available and how to get what is missing, and does not crash."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from engines_fakes import GPU, FakeCuda, FakePlan, FakeTensorRt, network, tiny_onnx

from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.registry import BackendEntry
from leaf_rt.backends.tensorrt import engine
from leaf_rt.diagnostics.doctor import LIMITED, MISSING, OK, examine, why_no_window
from leaf_rt.models.detectors import DETECTORS
from leaf_rt.models.spec import DEFAULT_MODEL, spec_path
from leaf_rt.types import Prediction


def test_every_finding_is_complete_and_every_problem_has_a_remedy() -> None:
    found = examine()
    assert len({f.topic for f in found}) == len(found)
    for finding in found:
        assert finding.status in (OK, LIMITED, MISSING)
        assert finding.found
        assert finding.remedy or finding.status == OK, finding
    by_topic = {f.topic: f for f in found}
    for topic in (f"model {DEFAULT_MODEL.name}", "face detector", "onnxruntime", "mediapipe", "video files"):
        assert by_topic[topic].status == OK, by_topic[topic]


def test_a_damaged_model_is_found(tmp_path: Path) -> None:
    model = tmp_path / "mine.onnx"
    model.write_bytes(DEFAULT_MODEL.read_bytes()[:-100])
    shutil.copy(spec_path(DEFAULT_MODEL), spec_path(model))
    (finding,) = [f for f in examine(model) if f.topic == "model mine.onnx"]
    assert finding.status == MISSING
    assert "damaged or was changed" in finding.found


def test_every_file_of_a_model_is_checked(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    good = tiny_onnx(tmp_path / "m-int8.onnx", precision="int8", parent=spec.sha256, metrics={"t": {"accuracy": 0.8}})
    tiny_onnx(tmp_path / "m-fp16.onnx", precision="fp16", parent="0" * 64)
    found = {f.topic: f for f in examine(model)}
    assert found["model m.onnx"].status == OK
    assert found["model m-int8.onnx"].found.endswith(f"sha256 {good.sha256[:12]} is correct, t 80.0 %")
    assert (found["model m-fp16.onnx"].status, found["model m-fp16.onnx"].remedy) == (LIMITED, "export it again")
    assert " thread" in found["inference"].found
    (tmp_path / "m-int8.onnx").write_bytes(b"x")
    (damaged,) = [f for f in examine(model) if f.topic == "model m-int8.onnx"]
    assert (damaged.status, "damaged or was changed" in damaged.found) == (LIMITED, True)


def test_an_unusable_cache_has_a_remedy(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "file" / "cache"))
    (finding,) = [f for f in examine(model) if f.topic == "engine cache"]
    assert finding.status == LIMITED
    assert "LEAF_RT_CACHE" in finding.remedy


def test_a_damaged_or_missing_detector_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = DETECTORS["short"].onnx
    monkeypatch.setattr("leaf_rt.models.detectors.MODELS", tmp_path)
    for _ in range(2):  # missing, then damaged
        found = {f.topic: f for f in examine()}["face detector"]
        assert found.status == MISSING
        assert name in found.found
        assert ("is damaged" if (tmp_path / name).exists() else "cannot be read") in found.found
        (tmp_path / name).write_bytes(b"x")


@pytest.fixture
def gpu_model(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with an fp16 file, on a machine with a fake GPU and TensorRT. Building an engine is an error."""
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    tiny_onnx(tmp_path / "m-fp16.onnx", precision="fp16", parent=spec.sha256, seed=1)
    cuda = FakeCuda()
    env = engine.Environment(
        FakeTensorRt(), GPU, lambda: cuda, lambda *_: FakePlan(cuda, network),
        lambda *_: Prediction(*(part.astype(np.float32) for part in network(golden_faces(spec.side)))),
    )  # fmt: skip

    def no_build(*_: object, **__: object) -> None:
        raise AssertionError("the doctor must not build an engine")

    monkeypatch.setattr(engine, "build_plan", no_build)
    monkeypatch.setattr(engine, "environment", lambda _: env)
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", lambda: GPU)
    version = BackendEntry.version
    monkeypatch.setattr(
        BackendEntry, "version",
        lambda one: {"tensorrt": "tensorrt 11.4.0", "tensorrt-rtx": None}.get(one.name, version(one)),
    )  # fmt: skip
    return model


def build(model: Path, monkeypatch: pytest.MonkeyPatch, precision: str = "fp16") -> None:
    """Put an engine into the cache, as a run does."""

    def plan(trt: FakeTensorRt, content: bytes, *_: object, **__: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(plan=trt.plan(content), timings=b"")

    with monkeypatch.context() as here:
        here.setattr(engine, "build_plan", plan)
        open_backend(model, "tensorrt", precision=precision).close()


def test_no_engine_is_built_but_the_report_says_that_a_run_will(
    gpu_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {f.topic: f for f in examine(gpu_model)}
    engine = found["TensorRT engine"]
    assert (engine.status, engine.found) == (LIMITED, "fp16 is not built yet")
    assert "the first run builds it" in engine.remedy
    assert found["inference"].found == "TensorRT, once the engine is built"
    assert not list(cache.glob("*.plan"))
    build(gpu_model, monkeypatch, "fp32")  # not the engine that a run tries first
    engine = next(f for f in examine(gpu_model) if f.topic == "TensorRT engine")
    assert engine.found == "fp16 is not built yet; fp32 is in the cache too"


def test_the_cached_engine_is_checked(gpu_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(gpu_model, monkeypatch)
    found = {f.topic: f for f in examine(gpu_model)}
    assert (found["TensorRT engine"].status, found["TensorRT engine"].found) == (OK, "fp16 is in the cache")
    assert "fp16 on Fake 4090, from the cache" in found["inference"].found
    (plan,) = cache.glob("*.plan")
    plan.write_bytes(b"x")
    found = {f.topic: f for f in examine(gpu_model)}
    assert found["TensorRT engine"].status == LIMITED
    assert "is damaged" in found["TensorRT engine"].found


def test_the_cpu_is_used_if_tensorrt_cannot_be_imported(gpu_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(engine, "environment", broken)
    found = {f.topic: f for f in examine(gpu_model)}
    assert "libnvinfer" in found["TensorRT engine"].found
    assert "on CPU" in found["inference"].found


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux can the display be hidden")
def test_a_missing_display_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display" in (why_no_window() or "")


def test_it_works_without_a_driver_and_imports_no_gpu_runtime() -> None:
    """In a child process, because native code may crash."""
    code = (
        "import sys; from leaf_rt.diagnostics.doctor import examine; found = examine();"
        "bad = {'torch', 'tensorrt', 'tensorrt_rtx', 'mediapipe'} & set(sys.modules); sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
