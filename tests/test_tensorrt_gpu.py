"""Detection of the GPU, which must work without a driver, and tests that need a GPU."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from engines_fakes import faces, tiny_onnx

from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.registry import BACKENDS, find_backend
from leaf_rt.backends.tensorrt import cuda
from leaf_rt.backends.tensorrt import engine as backend
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.errors import GpuProblem, GpuUnavailable, LeafError
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec

NO_GPU = all(backend.gpu_problem() for backend in BACKENDS if backend.device == "cuda")

# Without a driver: in child processes, because TensorRT may crash.


def test_every_entry_point_works_without_a_driver(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    code = f"""
from pathlib import Path
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.registry import BACKENDS
from leaf_rt.errors import BackendError
for backend in BACKENDS:
    print(backend.name, backend.problem())
for name in ("tensorrt", "tensorrt-rtx"):
    try:
        open_backend(Path({str(model)!r}), name).close()
    except BackendError as e:
        print("error:", e)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("alive")
    if NO_GPU:
        assert done.stdout.count("error: --backend") == 2


def test_the_probe_has_a_remedy_for_every_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(error: int, count: int, driver: int = 13010) -> None:
        module = types.ModuleType("cuda.bindings.runtime")
        module.cudaGetDeviceCount = lambda: (error, count)  # type: ignore[attr-defined]
        about = types.SimpleNamespace(name=b"Card\0", major=8, minor=9, multiProcessorCount=4, totalGlobalMem=5)
        module.cudaGetDeviceProperties = lambda _: (0, about)  # type: ignore[attr-defined]
        module.cudaDriverGetVersion = lambda: (0, driver)  # type: ignore[attr-defined]
        package = types.ModuleType("cuda.bindings")
        package.runtime = module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cuda.bindings", package)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)

    def reason(words: str) -> GpuProblem:
        with pytest.raises(GpuUnavailable, match=words) as raised:
            cuda.probe()
        return raised.value.reason

    monkeypatch.setattr(cuda, "DRIVER_VERSION", tmp_path / "version")
    answers(35, 0, 0)
    assert reason("no NVIDIA driver that works") == GpuProblem.NO_DRIVER
    answers(35, 0, 12040)  # in a container or under WSL there is no version file
    assert reason(r"supports CUDA 12\.4, the .* 580 or newer.*\[tensorrt-cu12\]") == GpuProblem.DRIVER_TOO_OLD
    cuda.DRIVER_VERSION.write_text("NVRM version: 1.0\n")
    for error in (0, 100):
        answers(error, 0)
        assert reason("CUDA_VISIBLE_DEVICES") == GpuProblem.NO_GPU
    answers(0, 1)
    found = cuda.probe()
    assert found.driver == "NVRM version: 1.0"
    assert (found.name, found.capability) == ("Card", "8.9")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert reason(r'pip install "\.\[tensorrt\]"') == GpuProblem.NO_BINDINGS


# On a GPU: `make test-gpu`.

GPU_NAMES = [backend.name for backend in BACKENDS if backend.device == "cuda"]


@pytest.fixture(params=GPU_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each back end that can use the GPU of this machine."""
    if (problem := find_backend(request.param).gpu_problem()) is not None:
        pytest.skip(str(problem))
    return str(request.param)


@pytest.mark.gpu
def test_the_engine_matches_onnx_runtime(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    messages: list[str] = []
    reference = open_backend(model, "onnxruntime")
    for _ in range(2):  # built, then from the cache
        opened = open_backend(model, name, notify=messages.append)
        assert opened.device == "cuda"
        for count in (1, 3, 32, 50):
            for _ in range(2):  # recorded, then replayed
                np.testing.assert_allclose(
                    opened.infer(faces(count)).probs, reference.infer(faces(count)).probs, atol=1e-3
                )
        opened.close()
    assert len([text for text in messages if "building" in text]) == (1 if find_backend(name).builds else 0)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_bundled_model_in_each_precision(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp16 this is the engine that users get. Opening checks every batch size; this checks mixed ones."""
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "cache"))
    reference = open_backend(DEFAULT_MODEL, "onnxruntime", precision="fp32").infer(faces(256))
    opened = open_backend(DEFAULT_MODEL, name, precision=precision)
    assert f"{precision} on " in opened.reason
    for count in (1, 7, 2, 32, 3, 100, 256):
        got = opened.infer(faces(count))
        assert np.abs(got.probs - reference.probs[:count]).max() < 0.02
    opened.close()


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs an NVIDIA GPU and its driver")
def test_auto_takes_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "cache"))
    opened = open_backend(DEFAULT_MODEL)
    assert opened.device == "cuda"
    assert "fp16" in opened.reason
    assert (opened.cropper is not None) == (find_backend("torch").gpu_problem() is None)
    opened.close()


@pytest.mark.gpu
@pytest.mark.skipif(
    find_backend("tensorrt").gpu_problem() is not None and find_backend("tensorrt-rtx").gpu_problem() is not None,
    reason="needs TensorRT and a GPU that it supports",
)
def test_an_invalid_plan_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    module = "tensorrt" if find_backend("tensorrt").gpu_problem() is None else "tensorrt_rtx"
    parts = backend.environment(module)
    with pytest.raises(LeafError, match="refuses the plan"):
        backend._start(parts, b"no plan at all", load_spec(model), Profile(), "a test", "")
