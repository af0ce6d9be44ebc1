"""From a model to a checked TensorRT engine: precisions, parity, cache and plans, on a fake machine."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_fakes import CLASSES, GPU, FakeCuda, FakePlan, FakeTensorRt, faces, network, tiny_onnx

from leaf_rt.backends.base import BackendConfig
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.tensorrt import engine as backend
from leaf_rt.backends.tensorrt.build import Profile
from leaf_rt.backends.tensorrt.cuda import Gpu
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.models.spec import ModelSpec, load_spec, save_spec, sha256_of
from leaf_rt.types import Prediction


class Machine:
    """A fake machine; ``wrong`` lists the precisions whose engines give wrong predictions."""

    def __init__(self, folder: Path, wrong: tuple[str, ...] = (), gpu: Gpu = GPU) -> None:
        self.trt = FakeTensorRt()
        self.cuda = FakeCuda()
        self.wrong = wrong
        self.refused = False
        self.names: dict[str, str] = {}
        self.messages: list[str] = []
        self.env = backend.Environment(self.trt, gpu, lambda: self.cuda, self.load, self.reference, folder)
        self.config = BackendConfig(reason="the GPU is the fastest", notify=self.messages.append)

    def reference(self, model: Path, spec: ModelSpec) -> Prediction:
        probs, features = network(golden_faces(spec.side))
        return Prediction(probs.astype(np.float32), features.astype(np.float32))

    def load(self, trt: Any, plan: bytes) -> FakePlan | None:
        if self.refused:
            return None
        precision = self.names[json.loads(plan)["onnx"]]

        def reversed_network(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            probs, features = network(crops)
            return probs[:, ::-1], features

        return FakePlan(self.cuda, reversed_network if precision in self.wrong else network)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An fp32 model and its fp16 variant, with a fake builder."""
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    tiny_onnx(tmp_path / "m-fp16.onnx", precision="fp16", parent=spec.sha256, seed=1)

    def build(trt: Any, content: bytes, profile: Profile, **_: Any) -> Any:
        return types.SimpleNamespace(plan=trt.plan(content), timings=b"timings")

    monkeypatch.setattr(backend, "build_plan", build)
    return model


def machine_for(pair: Path, wrong: tuple[str, ...] = (), **options: Any) -> Machine:
    made = Machine(pair.parent / "cache", wrong, **options)
    made.names = {sha256_of(pair): "fp32", sha256_of(pair.with_name("m-fp16.onnx")): "fp16"}
    return made


def test_fp16_is_built_once_checked_and_cached(pair: Path) -> None:
    machine = machine_for(pair)
    for how in ("built now", "from the cache"):
        opened = backend.open_engine(machine.env, pair, load_spec(pair), machine.config)
        assert opened.name == "tensorrt"
        assert "fp16 on Fake 4090" in opened.reason
        assert how in opened.reason
        assert opened.infer(faces(3)).probs.shape == (3, CLASSES)
        opened.close()
    assert len(machine.trt.built) == 1
    assert "building the TensorRT engine (fp16)" in machine.messages[0]
    assert machine.cuda.alive == {}


def test_fp32_runs_if_fp16_fails_the_parity_check(pair: Path) -> None:
    machine = machine_for(pair, wrong=("fp16",))
    opened = backend.open_engine(machine.env, pair, load_spec(pair), machine.config)
    assert "fp32 on Fake 4090" in opened.reason
    assert "parity failed" in opened.reason
    assert any("trying fp32" in text for text in machine.messages)
    opened.close()
    assert machine.cuda.alive == {}


def test_the_error_names_every_precision_that_failed(pair: Path) -> None:
    machine = machine_for(pair, wrong=("fp16", "fp32"))
    with pytest.raises(BackendError, match=r"fp16 engine: parity failed.*fp32 engine: parity failed"):
        backend.open_engine(machine.env, pair, load_spec(pair), machine.config)
    assert machine.cuda.alive == {}


@pytest.mark.parametrize("field", ["name", "capability", "multiprocessors", "memory", "driver"])
def test_another_gpu_or_driver_needs_another_engine(pair: Path, field: str) -> None:
    first = machine_for(pair)
    backend.open_engine(first.env, pair, load_spec(pair), first.config).close()
    other = replace(GPU, **{field: 1 if isinstance(getattr(GPU, field), int) else "other"})
    second = machine_for(pair, gpu=other)
    backend.open_engine(second.env, pair, load_spec(pair), second.config).close()
    assert len(second.trt.built) == 1


def test_another_version_needs_another_engine(pair: Path) -> None:
    first = machine_for(pair)
    backend.open_engine(first.env, pair, load_spec(pair), first.config).close()
    newer = machine_for(pair)
    newer.trt.__version__ = "11.5.0"  # type: ignore[misc]
    backend.open_engine(newer.env, pair, load_spec(pair), newer.config).close()
    assert len(newer.trt.built) == 1


def test_a_refused_plan_is_an_error(pair: Path) -> None:
    machine = machine_for(pair)
    machine.refused = True
    with pytest.raises(BackendError, match="TensorRT refuses the plan"):
        backend.open_engine(machine.env, pair, load_spec(pair), machine.config)


def test_an_fp16_file_of_another_model_is_not_used(pair: Path) -> None:
    half = pair.with_name("m-fp16.onnx")
    save_spec(replace(load_spec(half), parent="0" * 64), half)
    machine = machine_for(pair)
    opened = backend.open_engine(machine.env, pair, load_spec(pair), machine.config)
    assert "fp32" in opened.reason
    assert "was not made from m.onnx" in machine.messages[0]
    opened.close()


def test_unsupported_precisions_are_rejected(pair: Path) -> None:
    machine = machine_for(pair)
    spec = load_spec(pair)
    with pytest.raises(BackendError, match="TensorRT runs fp16 and fp32"):
        backend.open_engine(machine.env, pair, spec, replace(machine.config, precision="bf16"))
    with pytest.raises(BackendError, match="int8 models are for the CPU"):
        backend.open_engine(machine.env, pair, replace(spec, precision="int8"), machine.config)
    pair.with_name("m-fp16.onnx").unlink()
    with pytest.raises(BackendError, match=r"m-fp16\.onnx is missing"):
        backend.open_engine(machine.env, pair, spec, replace(machine.config, precision="fp16"))


def test_a_plan_runs_only_where_it_was_built(pair: Path) -> None:
    machine = machine_for(pair)
    plan = pair.with_suffix(".plan")
    half = pair.with_name("m-fp16.onnx")
    content, _ = backend.plan_bytes(machine.env, half, "fp16", Profile(1, 2, 8), machine.config)
    plan.write_bytes(content)
    answers = machine.reference(pair, load_spec(pair))
    save_spec(backend.describe_plan(machine.env, half, load_spec(half), Profile(1, 2, 8), plan, answers), plan)
    opened = backend.open_engine(machine.env, plan, load_spec(plan), machine.config)
    assert opened.infer(faces(9)).probs.shape == (9, CLASSES)
    opened.close()
    foreign = machine_for(pair, gpu=replace(GPU, name="Other"))
    with pytest.raises(ModelError, match="built for another GPU"):
        backend.open_engine(foreign.env, plan, load_spec(plan), foreign.config)


def test_a_plan_is_checked_against_the_answers_in_its_description(pair: Path) -> None:
    machine = machine_for(pair)
    plan, half = pair.with_suffix(".plan"), pair.with_name("m-fp16.onnx")
    content, _ = backend.plan_bytes(machine.env, half, "fp16", Profile(1, 2, 8), machine.config)
    plan.write_bytes(content)
    answers = machine.reference(pair, load_spec(pair))
    save_spec(backend.describe_plan(machine.env, half, load_spec(half), Profile(1, 2, 8), plan, answers), plan)
    machine.wrong = ("fp16",)
    with pytest.raises(BackendError, match="parity failed in batches of 1 "):
        backend.open_engine(machine.env, plan, load_spec(plan), machine.config)
    save_spec(replace(load_spec(plan), answers=()), plan)
    with pytest.raises(ModelError, match="no answers of the fp32 model"):
        backend.open_engine(machine.env, plan, load_spec(plan), machine.config)
    assert machine.cuda.alive == {}


def test_every_batch_size_is_checked_before_the_first_frame(pair: Path) -> None:
    """An engine that is wrong for one bucket only: live video has few faces, and would have met it in mid-run."""
    machine = machine_for(pair)

    def load(trt: Any, plan: bytes) -> FakePlan:
        def wrong_for_two(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            probs, features = network(crops)
            return (probs[:, ::-1] if len(crops) == 2 else probs), features

        return FakePlan(machine.cuda, wrong_for_two)

    with pytest.raises(BackendError, match="parity failed in batches of 2 "):
        backend.open_engine(replace(machine.env, load=load), pair, load_spec(pair), machine.config)
    assert machine.cuda.alive == {}


@pytest.mark.parametrize("error", [TypeError, AttributeError, RuntimeError])
def test_fp32_is_tried_after_any_error_of_fp16(pair: Path, error: type[Exception]) -> None:
    machine = machine_for(pair)

    def load(trt: Any, plan: bytes) -> FakePlan | None:
        if machine.names[json.loads(plan)["onnx"]] == "fp16":
            raise error("an argument of another version")
        return machine.load(trt, plan)

    opened = backend.open_engine(replace(machine.env, load=load), pair, load_spec(pair), machine.config)
    assert "fp32 on Fake 4090" in opened.reason
    assert "an argument of another version" in opened.reason
    opened.close()


def test_the_kernel_timings_of_another_gpu_are_not_used(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def build(trt: Any, content: bytes, profile: Profile, timings: bytes = b"") -> Any:
        seen.append(timings)
        return types.SimpleNamespace(plan=trt.plan(content), timings=b"timings")

    monkeypatch.setattr(backend, "build_plan", build)
    for gpu in (GPU, replace(GPU, name="Other")):
        machine = machine_for(pair, gpu=gpu)
        backend.open_engine(machine.env, pair, load_spec(pair), machine.config).close()
    assert seen == [b"", b""]
