"""The look for a driver, which must survive a machine without one, and what runs on a GPU alone."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from engines_fakes import faces, tiny_onnx

from leaf_rt.backends.base import candidate, open_backend
from leaf_rt.backends.tensorrt import engine as backend
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.backends.tensorrt.cuda import Gpu, probe
from leaf_rt.errors import LeafError
from leaf_rt.models.spec import load_spec

# Without a driver, in processes of their own: what goes wrong here is a crash, not an exception.


def test_without_a_driver_every_way_in_survives(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    code = f"""
from pathlib import Path
from leaf_rt.backends.base import BACKENDS, open_backend
from leaf_rt.backends.tensorrt.cuda import probe
from leaf_rt.errors import BackendError
print("probe:", probe())
for one in BACKENDS:
    print(one.name, one.available())
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
    if isinstance(probe(), str):
        assert done.stdout.count("error: --backend") == 2


def test_the_probe_says_what_to_do_in_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(error: int, count: int) -> None:
        module = types.ModuleType("cuda.bindings.runtime")
        module.cudaGetDeviceCount = lambda: (error, count)  # type: ignore[attr-defined]
        about = types.SimpleNamespace(name=b"Card\0", major=8, minor=9, multiProcessorCount=4, totalGlobalMem=5)
        module.cudaGetDeviceProperties = lambda _: (0, about)  # type: ignore[attr-defined]
        module.cudaDriverGetVersion = lambda: (0, 13010)  # type: ignore[attr-defined]
        package = types.ModuleType("cuda.bindings")
        package.runtime = module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cuda.bindings", package)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)

    answers(35, 0)
    assert "no NVIDIA driver" in str(probe())
    answers(0, 0)
    assert "CUDA_VISIBLE_DEVICES" in str(probe())
    answers(0, 1)
    found = probe()
    assert isinstance(found, Gpu)
    assert (found.name, found.capability) == ("Card", "8.9")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert "pip install 'leaf-rt[tensorrt]'" in str(probe())


# On a GPU: `make test-gpu`.


@pytest.mark.gpu
@pytest.mark.skipif(isinstance(probe(), str), reason="needs an NVIDIA GPU and its driver")
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_the_real_engine_answers_as_onnx_runtime(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    said: list[str] = []
    reference = open_backend(model, "onnxruntime")
    for _ in range(2):  # built, then from the cache
        opened = open_backend(model, name, say=said.append)
        for count in (1, 3, 32, 50):
            for _ in range(2):  # recorded, then replayed
                np.testing.assert_allclose(
                    opened.infer(faces(count)).probs, reference.infer(faces(count)).probs, atol=1e-3
                )
        opened.close()
    assert len([text for text in said if "building" in text]) == 1


@pytest.mark.gpu
@pytest.mark.skipif(isinstance(probe(), str), reason="needs an NVIDIA GPU and its driver")
def test_a_foreign_plan_is_never_run_on_the_gpu(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    module = "tensorrt" if candidate("tensorrt").version() else "tensorrt_rtx"
    parts = backend.parts_here(module)
    with pytest.raises(LeafError, match="refuses the plan"):
        backend._start(parts, b"no plan at all", load_spec(model), Profile(), "a test", "")
