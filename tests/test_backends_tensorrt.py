"""TensorRT without a GPU: the builder through TensorRT-RTX's real one, the runner on a fake of the few CUDA calls."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines_fakes import CLASSES, DIM, SIDE, FakeContext, FakeCuda, FakeTensorRt, faces, tiny_onnx
from onnx import TensorProto, numpy_helper

from leaf_rt.artifact import ModelSpec, load_spec, save_spec, sha256_of
from leaf_rt.backends import tensorrt as backend
from leaf_rt.backends.base import Wanted, candidate, open_backend
from leaf_rt.backends.tensorrt.build import Profile, build_plan, check_module
from leaf_rt.backends.tensorrt.cuda import Gpu, probe
from leaf_rt.backends.tensorrt.runner import EngineRunner
from leaf_rt.errors import BackendError, LeafError, ModelError
from leaf_rt.types import Prediction

GPU = Gpu("Fake 4090", "8.9", 128, 24 << 30, "580.1")
RTX = pytest.mark.skipif(candidate("tensorrt-rtx").version() is None, reason="tensorrt-rtx is not installed")


# The builder, through the real TensorRT-RTX.


@pytest.fixture(scope="module")
def rtx() -> Any:
    return importlib.import_module("tensorrt_rtx")


@pytest.fixture
def tiny(tmp_path: Path) -> onnx.ModelProto:
    tiny_onnx(tmp_path / "tiny.onnx")
    return onnx.load(tmp_path / "tiny.onnx")


@RTX
def test_a_graph_with_a_free_batch_becomes_a_plan(rtx: Any, tiny: onnx.ModelProto) -> None:
    built = build_plan(rtx, tiny.SerializeToString(), Profile(1, 4, 32))
    assert len(built.plan) > 1000
    assert built.timings == b""  # TensorRT-RTX keeps none


@RTX
@pytest.mark.parametrize("content", [b"rubbish", None])
def test_rubbish_is_refused(rtx: Any, tiny: onnx.ModelProto, content: bytes | None) -> None:
    data = tiny.SerializeToString()[:-200] if content is None else content
    with pytest.raises(ModelError, match=r"tensorrt_rtx .* cannot take this graph"):
        build_plan(rtx, data, Profile())


@RTX
def test_an_unsupported_operator_is_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    node = next(n for n in tiny.graph.node if n.op_type == "MatMul")
    node.op_type, node.name = "Det", "the_odd_one"
    del node.input[1:]
    with pytest.raises(ModelError, match=r"operator Det \(the_odd_one\) is not supported"):
        build_plan(rtx, tiny.SerializeToString(), Profile())


@RTX
def test_mixed_types_are_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    next(t for t in tiny.graph.initializer if t.name == "small").CopyFrom(
        numpy_helper.from_array(np.float16(1 / 255), "small")
    )
    with pytest.raises(ModelError, match=r"operator Mul .* must have same input types"):
        build_plan(rtx, tiny.SerializeToString(), Profile())


@RTX
def test_wrong_inputs_are_named(rtx: Any, tiny: onnx.ModelProto) -> None:
    floats = onnx.ModelProto()
    floats.CopyFrom(tiny)
    floats.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"faces is DataType\.FLOAT, wanted DataType\.UINT8"):
        build_plan(rtx, floats.SerializeToString(), Profile())
    fixed = onnx.ModelProto()
    fixed.CopyFrom(tiny)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ModelError, match=r"wanted \(-1, S, S, 3\)"):
        build_plan(rtx, fixed.SerializeToString(), Profile())
    foreign = onnx.ModelProto()
    foreign.CopyFrom(tiny)
    foreign.graph.output[0].name = foreign.graph.node[-1].output[0] = "classes"
    with pytest.raises(ModelError, match="this is no graph of `leaf-rt export`"):
        build_plan(rtx, foreign.SerializeToString(), Profile())


@pytest.mark.parametrize("sizes", [(0, 4, 8), (4, 2, 8), (1, 9, 8)])
def test_wrong_profiles_are_named(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="wanted 1 <= smallest <= best <= largest"):
        Profile(*sizes)


@RTX
def test_a_profile_that_the_module_refuses_is_an_error(rtx: Any, tiny: onnx.ModelProto) -> None:
    bad = Profile()
    object.__setattr__(bad, "best", 64)  # beyond the largest: past our own check, so that TensorRT's is met
    with pytest.raises(ModelError, match="refuses the profile"):
        build_plan(rtx, tiny.SerializeToString(), bad)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (types.SimpleNamespace(__name__="json"), "is no TensorRT module"),
        (types.SimpleNamespace(__name__="tensorrt", __version__="8.6.1", Builder=1), "8.6.1 is not supported"),
        (types.SimpleNamespace(__name__="tensorrt", __version__="10.2.0", Builder=1), "10.2.0 is not supported"),
    ],
)
def test_unfit_modules_are_refused(module: Any, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        check_module(module)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2.6", "11.4.0"])
def test_versions_ten_and_eleven_are_taken(version: str) -> None:
    assert check_module(types.SimpleNamespace(__name__="tensorrt", __version__=version, Builder=1)).endswith(version)


# The runner, on a GPU of Python objects.


def network(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Any function in which every face counts for itself."""
    flat = crops.reshape(len(crops), -1).astype(np.float64)
    weights = np.stack([np.roll(flat, i, axis=1)[:, ::97].mean(1) + 1 for i in range(CLASSES)], 1)
    return weights / weights.sum(1, keepdims=True), np.stack([flat[:, i] for i in range(DIM)], 1)


def runner(cuda: FakeCuda, largest: int = 32, **options: Any) -> EngineRunner:
    return EngineRunner(FakeContext(cuda, network, **options), cuda, SIDE, CLASSES, DIM, largest)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 31, 32, 33, 70])
def test_any_batch_is_split_and_padded_and_right(count: int) -> None:
    cuda = FakeCuda()
    with runner(cuda) as engine:
        crops = faces(count)
        for _ in range(2):  # the first call records, the second replays
            out = engine.infer(crops)
            probs, features = network(crops)
            np.testing.assert_allclose(out.probs, probs, rtol=1e-6)
            np.testing.assert_allclose(out.features, features, rtol=1e-6)
    assert cuda.alive == {}, "not everything was freed"


def test_each_bucket_is_recorded_once_after_a_run_outside_the_record() -> None:
    cuda = FakeCuda()
    with runner(cuda) as engine:
        assert engine.buckets == (1, 2, 4, 8, 16, 32)
        engine.infer(faces(3))
        assert cuda.calls == [
            "upload", "execute", "download", "download", "synchronize",  # once, so that set-up is done
            "upload", "execute", "download", "download",  # into the record
            "launch", "synchronize",
        ]  # fmt: skip
        cuda.calls.clear()
        engine.infer(faces(4))  # the same bucket
        assert cuda.calls == ["launch", "synchronize"]


def test_faces_of_the_batch_before_are_wiped() -> None:
    cuda = FakeCuda()
    with runner(cuda, largest=4) as engine:
        engine.infer(np.full((4, SIDE, SIDE, 3), 255, np.uint8))
        engine.infer(np.full((3, SIDE, SIDE, 3), 7, np.uint8))
        padding = engine._faces.array[engine._faces.nbytes(3) :]
        assert padding.max() == 0


def test_answers_are_copies() -> None:
    with runner(FakeCuda()) as engine:
        first = engine.infer(faces(2))
        kept = first.probs.copy()
        engine.infer(faces(6)[4:])
        np.testing.assert_array_equal(first.probs, kept)


def test_a_largest_batch_that_is_no_power_of_two() -> None:
    with runner(FakeCuda(), largest=6) as engine:
        assert engine.buckets == (1, 2, 4, 6)
        assert engine.infer(faces(13)).probs.shape == (13, CLASSES)


def test_a_refused_shape_and_a_refused_run_are_errors_and_leave_no_record_open() -> None:
    cuda = FakeCuda()
    engine = EngineRunner(FakeContext(cuda, network, largest=2), cuda, SIDE, CLASSES, DIM, 4)
    with pytest.raises(BackendError, match="refuses a batch of 4"):
        engine.infer(faces(3))
    engine.close()
    engine.close()
    assert cuda.alive == {}
    engine = runner(cuda, refuse=frozenset([4]))
    with pytest.raises(BackendError, match="refused to run a batch of 4"):
        engine.infer(faces(3))
    assert engine.infer(faces(1)).probs.shape == (1, CLASSES)  # the stream still works
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.infer(faces(1))


def test_a_run_refused_while_recording_ends_the_record() -> None:
    cuda = FakeCuda()

    class Fickle(FakeContext):
        runs = 0

        def execute_async_v3(self, stream: int) -> bool:
            self.runs += 1
            return self.runs != 2 and super().execute_async_v3(stream)

    with EngineRunner(Fickle(cuda, network), cuda, SIDE, CLASSES, DIM, 4) as engine:
        with pytest.raises(BackendError, match="refused to run"):
            engine.infer(faces(1))
        assert cuda.recording is None
        assert engine.infer(faces(1)).probs.shape == (1, CLASSES)


def test_an_engine_of_other_tensors_is_refused_and_freed() -> None:
    cuda = FakeCuda()

    class Foreign(FakeContext):
        def set_tensor_address(self, name: str, address: int) -> bool:
            return name == "faces"

    with pytest.raises(BackendError, match="no tensor 'probs'"):
        EngineRunner(Foreign(cuda, network), cuda, SIDE, CLASSES, DIM, 4)
    assert cuda.alive == {}


# From a model to a proven engine, with the outside faked.


class Outside:
    """The fakes of one machine; ``wrong`` names the precisions whose engines answer wrongly."""

    def __init__(self, folder: Path, wrong: tuple[str, ...] = (), gpu: Gpu = GPU) -> None:
        self.trt = FakeTensorRt()
        self.cuda = FakeCuda()
        self.wrong = wrong
        self.refused = False
        self.names: dict[str, str] = {}
        self.said: list[str] = []
        self.parts = backend.Parts(self.trt, gpu, lambda: self.cuda, self.context, self.reference, folder)
        self.wanted = Wanted(reason="the GPU is the quickest", say=self.said.append)

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
        opened = backend.open_with(machine.parts, pair, load_spec(pair), machine.wanted)
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
    opened = backend.open_with(machine.parts, pair, load_spec(pair), machine.wanted)
    assert "fp32 on Fake 4090" in opened.reason
    assert "parity failed" in opened.reason
    assert any("trying the next safer precision" in text for text in machine.said)
    opened.close()
    assert machine.cuda.alive == {}


def test_when_all_precisions_fail_the_error_tells_of_each(pair: Path) -> None:
    machine = outside(pair, wrong=("fp16", "fp32"))
    with pytest.raises(BackendError, match=r"fp16 engine: parity failed.*fp32 engine: parity failed"):
        backend.open_with(machine.parts, pair, load_spec(pair), machine.wanted)
    assert machine.cuda.alive == {}


@pytest.mark.parametrize("field", ["name", "capability", "multiprocessors", "memory", "driver"])
def test_another_gpu_or_driver_builds_its_own(pair: Path, field: str) -> None:
    first = outside(pair)
    backend.open_with(first.parts, pair, load_spec(pair), first.wanted).close()
    other = replace(GPU, **{field: 1 if isinstance(getattr(GPU, field), int) else "other"})
    second = outside(pair, gpu=other)
    backend.open_with(second.parts, pair, load_spec(pair), second.wanted).close()
    assert len(second.trt.built) == 1


def test_another_version_or_model_builds_its_own(pair: Path) -> None:
    first = outside(pair)
    backend.open_with(first.parts, pair, load_spec(pair), first.wanted).close()
    newer = outside(pair)
    newer.trt.__version__ = "11.5.0"  # type: ignore[misc]
    backend.open_with(newer.parts, pair, load_spec(pair), newer.wanted).close()
    assert len(newer.trt.built) == 1


def test_a_refused_plan_is_an_error_not_a_crash(pair: Path) -> None:
    machine = outside(pair)
    machine.refused = True
    with pytest.raises(BackendError, match="TensorRT refuses the plan"):
        backend.open_with(machine.parts, pair, load_spec(pair), machine.wanted)


def test_a_half_model_of_other_weights_is_passed_over(pair: Path) -> None:
    half = pair.with_name("m-fp16.onnx")
    save_spec(replace(load_spec(half), parent="0" * 64), half)
    machine = outside(pair)
    opened = backend.open_with(machine.parts, pair, load_spec(pair), machine.wanted)
    assert "fp32" in opened.reason
    assert "was not made from m.onnx" in machine.said[0]
    opened.close()


def test_what_tensorrt_cannot_do_is_said(pair: Path) -> None:
    machine = outside(pair)
    spec = load_spec(pair)
    with pytest.raises(BackendError, match="TensorRT runs fp16 and fp32"):
        backend.open_with(machine.parts, pair, spec, replace(machine.wanted, precision="bf16"))
    with pytest.raises(BackendError, match="int8 models are for the CPU"):
        backend.open_with(machine.parts, pair, replace(spec, precision="int8"), machine.wanted)
    pair.with_name("m-fp16.onnx").unlink()
    with pytest.raises(BackendError, match=r"m-fp16\.onnx is missing"):
        backend.open_with(machine.parts, pair, spec, replace(machine.wanted, precision="fp16"))


def test_a_plan_runs_where_it_was_built_and_nowhere_else(pair: Path) -> None:
    machine = outside(pair)
    plan = pair.with_suffix(".plan")
    half = pair.with_name("m-fp16.onnx")
    content, _ = backend.plan_bytes(machine.parts, half, "fp16", Profile(1, 2, 8), machine.wanted)
    plan.write_bytes(content)
    save_spec(backend.describe_plan(machine.parts, half, load_spec(half), Profile(1, 2, 8), plan), plan)
    opened = backend.open_with(machine.parts, plan, load_spec(plan), machine.wanted)
    assert opened.infer(faces(9)).probs.shape == (9, CLASSES)
    opened.close()
    foreign = outside(pair, gpu=replace(GPU, name="Other"))
    with pytest.raises(ModelError, match="built for another GPU"):
        backend.open_with(foreign.parts, plan, load_spec(plan), foreign.wanted)


# The look for a driver, in processes of their own: what goes wrong here is a crash, not an exception.


def test_without_a_driver_every_way_in_survives(pair: Path) -> None:
    code = f"""
from pathlib import Path
from leaf_rt.backends.base import CANDIDATES, open_backend
from leaf_rt.backends.tensorrt.cuda import probe
from leaf_rt.errors import BackendError
print("probe:", probe())
for one in CANDIDATES:
    print(one.name, one.available())
for name in ("tensorrt", "tensorrt-rtx"):
    try:
        open_backend(Path({str(pair)!r}), name).close()
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
