"""The registry of back ends, and the variants of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from engines_fakes import GPU, tiny_onnx

from leaf_rt.backends.base import BackendConfig
from leaf_rt.backends.registry import BACKENDS, GPU_BACKENDS, NAMES, PRECISIONS, find_backend
from leaf_rt.backends.variants import Variant, variants
from leaf_rt.errors import BackendError, GpuProblem, GpuUnavailable, NotInstalled
from leaf_rt.models.spec import load_spec

pytestmark = pytest.mark.usefixtures("cache")
CPU = [
    ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"),
]  # fmt: skip


def test_the_registry_is_consistent() -> None:
    assert set(NAMES) == {"auto", *(backend.name for backend in BACKENDS)}
    assert len({backend.title for backend in BACKENDS}) == len(BACKENDS)
    for backend in BACKENDS:
        assert set(backend.precisions) <= set(PRECISIONS)
        assert len(backend.modules) >= 1
        assert (backend.device == "cuda") == (backend.name in GPU_BACKENDS)
    with pytest.raises(BackendError, match="--backend none: unknown; choose one of auto, onnxruntime"):
        find_backend("none")


def test_variants_are_listed_by_back_end_and_precision(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise GpuUnavailable(GpuProblem.NO_GPU, "no NVIDIA GPU is visible", "check nvidia-smi")

    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: "1.0")
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", no_gpu)
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.driver_problem", lambda: NotInstalled("no driver", "get one"))
    assert [(v.backend.name, v.precision) for v in variants(model)] == CPU
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", lambda: GPU)
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.driver_problem", lambda: None)
    found = variants(model)
    assert [(v.backend.name, v.precision) for v in found][len(CPU) :] == [
        ("tensorrt", "fp32"), ("tensorrt", "fp16"), ("tensorrt-rtx", "fp32"), ("tensorrt-rtx", "fp16"),
        ("torch", "fp32"), ("torch", "fp16"), ("torch", "bf16"),
    ]  # fmt: skip
    assert [v.path.name for v in found[: len(CPU)]] == [
        "tiny.onnx", "tiny-int8.onnx", "tiny.onnx", "tiny.onnx", "tiny-int8-openvino.xml",
    ]  # fmt: skip
    assert (found[1].name, found[1].title) == ("onnxruntime int8", "ONNX Runtime int8")


def test_the_problem_of_a_back_end_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise GpuUnavailable(GpuProblem.NO_DRIVER, "no NVIDIA driver that works", "install the driver")

    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", no_driver)
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: "1.0")
    problem = find_backend("tensorrt").problem()
    assert isinstance(problem, GpuUnavailable)
    assert (problem.reason, problem.remedy) == (GpuProblem.NO_DRIVER, "install the driver")
    assert find_backend("onnxruntime").problem() is None
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: None)
    problem = find_backend("tensorrt-rtx").problem()
    assert isinstance(problem, NotInstalled)
    assert 'pip install ".[tensorrt-rtx]"' in problem.remedy


def test_a_card_that_a_back_end_does_not_support_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: "1.0")
    for capability, supported in (("8.9", True), ("9.0", False), ("12.0", True)):
        card = replace(GPU, name="A card", capability=capability)
        monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", lambda card=card: card)
        assert find_backend("tensorrt").problem() is None
        problem = find_backend("tensorrt-rtx").problem()
        assert (problem is None) == supported
    monkeypatch.setattr("leaf_rt.backends.tensorrt.cuda.probe", lambda: replace(GPU, capability="9.0"))
    problem = find_backend("tensorrt-rtx").problem()
    assert isinstance(problem, GpuUnavailable)
    assert problem.reason == GpuProblem.NOT_SUPPORTED
    assert "compute capability 9.0; it needs 7.5, 8.0, 8.6, 8.9, 12.0 or 12.1" in problem.problem


def test_an_int8_variant_runs_the_int8_file_of_an_fp32_model(model: Path) -> None:
    spec = load_spec(model)
    variant = Variant(find_backend("onnxruntime"), model, spec, "int8")
    with pytest.raises(BackendError, match=r"tiny-int8\.onnx is missing beside tiny\.onnx"):
        variant.open(BackendConfig())
    int8 = tiny_onnx(model.with_name("tiny-int8.onnx"), precision="int8", parent=spec.sha256)
    backend = variant.open(BackendConfig())
    assert (variant.file_spec, backend.spec, backend.device) == (int8, int8, "cpu")
    assert not Variant(find_backend("onnxruntime"), variant.path, int8, "int8").quantized
