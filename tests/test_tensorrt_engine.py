"""From a model to a proven TensorRT engine: precisions, parity, cache and plans, with the outside faked."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_fakes import CLASSES, GPU, FakeContext, FakeCuda, FakeTensorRt, faces, network, tiny_onnx

from leaf_rt.backends.base import BackendConfig
from leaf_rt.backends.tensorrt import engine as backend
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.backends.tensorrt.cuda import Gpu
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.models.spec import ModelSpec, load_spec, save_spec, sha256_of
from leaf_rt.types import Prediction


class Outside:
    """The fakes of one machine; ``wrong`` names the precisions whose engines answer wrongly."""

    def __init__(self, folder: Path, wrong: tuple[str, ...] = (), gpu: Gpu = GPU) -> None:
        self.trt = FakeTensorRt()
        self.cuda = FakeCuda()
        self.wrong = wrong
        self.refused = False
        self.names: dict[str, str] = {}
        self.said: list[str] = []
        self.parts = backend.Environment(self.trt, gpu, lambda: self.cuda, self.context, self.reference, folder)
        self.wanted = BackendConfig(reason="the GPU is the fastest", notify=self.said.append)

    def reference(self, model: Path, spec: ModelSpec, crops: np.ndarray) -> Prediction:
        probs, features = network(crops)
        return Prediction(probs.astype(np.float32), features.astype(np.float32))

    def context(self, trt: Any, plan: bytes) -> tuple[Any, Any] | None:
        if self.refused:
            return None
        precision = self.names[json.loads(plan)["onnx"]]

        def bent(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            probs, features = network(crops)
            return probs[:, ::-1], features

        return FakeContext(self.cuda, bent if precision in self.wrong else network), object()


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An fp32 model and its fp16 variant; the builder is the fake's."""
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    tiny_onnx(tmp_path / "m-fp16.onnx", precision="fp16", parent=spec.sha256, seed=1)

    def build(trt: Any, content: bytes, profile: Profile, **_: Any) -> Any:
        return types.SimpleNamespace(plan=trt.plan(content), timings=b"timings")

    monkeypatch.setattr(backend, "build_plan", build)
    return model


def outside(pair: Path, wrong: tuple[str, ...] = (), **options: Any) -> Outside:
    made = Outside(pair.parent / "cache", wrong, **options)
    made.names = {sha256_of(pair): "fp32", sha256_of(pair.with_name("m-fp16.onnx")): "fp16"}
    return made


def test_fp16_is_built_once_proven_and_cached(pair: Path) -> None:
    machine = outside(pair)
    for how in ("built now", "from the cache"):
        opened = backend.open_engine(machine.parts, pair, load_spec(pair), machine.wanted)
        assert opened.name == "tensorrt"
        assert "fp16 on Fake 4090" in opened.reason
        assert how in opened.reason
        assert opened.infer(faces(3)).probs.shape == (3, CLASSES)
        opened.close()
    assert len(machine.trt.built) == 1
    assert "building the TensorRT engine (fp16)" in machine.said[0]
    assert machine.cuda.alive == {}


def test_a_failed_parity_falls_to_fp32_and_says_so(pair: Path) -> None:
    machine = outside(pair, wrong=("fp16",))
    opened = backend.open_engine(machine.parts, pair, load_spec(pair), machine.wanted)
    assert "fp32 on Fake 4090" in opened.reason
    assert "parity failed" in opened.reason
    assert any("trying fp32" in text for text in machine.said)
    opened.close()
    assert machine.cuda.alive == {}


def test_when_all_precisions_fail_the_error_tells_of_each(pair: Path) -> None:
    machine = outside(pair, wrong=("fp16", "fp32"))
    with pytest.raises(BackendError, match=r"fp16 engine: parity failed.*fp32 engine: parity failed"):
        backend.open_engine(machine.parts, pair, load_spec(pair), machine.wanted)
    assert machine.cuda.alive == {}


@pytest.mark.parametrize("field", ["name", "capability", "multiprocessors", "memory", "driver"])
def test_another_gpu_or_driver_builds_its_own(pair: Path, field: str) -> None:
    first = outside(pair)
    backend.open_engine(first.parts, pair, load_spec(pair), first.wanted).close()
    other = replace(GPU, **{field: 1 if isinstance(getattr(GPU, field), int) else "other"})
    second = outside(pair, gpu=other)
    backend.open_engine(second.parts, pair, load_spec(pair), second.wanted).close()
    assert len(second.trt.built) == 1


def test_another_version_or_model_builds_its_own(pair: Path) -> None:
    first = outside(pair)
    backend.open_engine(first.parts, pair, load_spec(pair), first.wanted).close()
    newer = outside(pair)
    newer.trt.__version__ = "11.5.0"  # type: ignore[misc]
    backend.open_engine(newer.parts, pair, load_spec(pair), newer.wanted).close()
    assert len(newer.trt.built) == 1


def test_a_refused_plan_is_an_error_not_a_crash(pair: Path) -> None:
    machine = outside(pair)
    machine.refused = True
    with pytest.raises(BackendError, match="TensorRT refuses the plan"):
        backend.open_engine(machine.parts, pair, load_spec(pair), machine.wanted)


def test_a_half_model_of_other_weights_is_passed_over(pair: Path) -> None:
    half = pair.with_name("m-fp16.onnx")
    save_spec(replace(load_spec(half), parent="0" * 64), half)
    machine = outside(pair)
    opened = backend.open_engine(machine.parts, pair, load_spec(pair), machine.wanted)
    assert "fp32" in opened.reason
    assert "was not made from m.onnx" in machine.said[0]
    opened.close()


def test_what_tensorrt_cannot_do_is_said(pair: Path) -> None:
    machine = outside(pair)
    spec = load_spec(pair)
    with pytest.raises(BackendError, match="TensorRT runs fp16 and fp32"):
        backend.open_engine(machine.parts, pair, spec, replace(machine.wanted, precision="bf16"))
    with pytest.raises(BackendError, match="int8 models are for the CPU"):
        backend.open_engine(machine.parts, pair, replace(spec, precision="int8"), machine.wanted)
    pair.with_name("m-fp16.onnx").unlink()
    with pytest.raises(BackendError, match=r"m-fp16\.onnx is missing"):
        backend.open_engine(machine.parts, pair, spec, replace(machine.wanted, precision="fp16"))


def test_a_plan_runs_where_it_was_built_and_nowhere_else(pair: Path) -> None:
    machine = outside(pair)
    plan = pair.with_suffix(".plan")
    half = pair.with_name("m-fp16.onnx")
    content, _ = backend.plan_bytes(machine.parts, half, "fp16", Profile(1, 2, 8), machine.wanted)
    plan.write_bytes(content)
    save_spec(backend.describe_plan(machine.parts, half, load_spec(half), Profile(1, 2, 8), plan), plan)
    opened = backend.open_engine(machine.parts, plan, load_spec(plan), machine.wanted)
    assert opened.infer(faces(9)).probs.shape == (9, CLASSES)
    opened.close()
    foreign = outside(pair, gpu=replace(GPU, name="Other"))
    with pytest.raises(ModelError, match="built for another GPU"):
        backend.open_engine(foreign.parts, plan, load_spec(plan), foreign.wanted)
