"""The PyTorch back end: the graph by its operators, programs, batches on a fake of the few CUDA calls, and `auto`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engines_fakes import CLASSES, DIM, SIDE, describe, faces, run_engines, tiny_onnx
from onnx import TensorProto, helper

from leaf_rt.backends import selection
from leaf_rt.backends.networks import open_network
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import PROOF, compare
from leaf_rt.backends.pytorch import engine
from leaf_rt.backends.pytorch.graph import OnnxGraph
from leaf_rt.backends.pytorch.network import TorchNetwork
from leaf_rt.backends.pytorch.program import to_program
from leaf_rt.backends.pytorch.runner import Answer, GpuRunner, Run
from leaf_rt.backends.registry import find_backend
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces.detectors import check_answers, choose_detector
from leaf_rt.models.detectors import DETECTORS, check_detector
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, save_spec, sha256_of, variant_path
from leaf_rt.types import Prediction

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """An fp32 model with an fp16 file beside it, which is the same graph with float16 products."""
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model, scale=1.0)
    half = tmp_path / "m-fp16.onnx"
    tiny_onnx(half, scale=1.0)
    proto = onnx.load(half)
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "MatMul" and node.output[0] == "logits":
            nodes += [
                helper.make_node("Cast", ["features"], ["features16"], to=TensorProto.FLOAT16),
                helper.make_node("Cast", ["v"], ["v16"], to=TensorProto.FLOAT16),
                helper.make_node("MatMul", ["features16", "v16"], ["logits16"]),
                helper.make_node("Cast", ["logits16"], ["logits"], to=TensorProto.FLOAT),
            ]
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    half.write_bytes(proto.SerializeToString(deterministic=True))
    describe(half, precision="fp16", parent=spec.sha256)
    return model


ROWS = ((CLASSES,), (DIM,))


class FakeGpu:
    """``torch.cuda`` on the CPU: tensors are real, a graph is the function that was recorded."""

    def __init__(self, recordable: bool = True) -> None:
        self.recordable = recordable
        self.calls: list[str] = []

    def host(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, 77, dtype=dtype)

    device = host

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        yield

    def record(self, run: Run) -> tuple[Callable[[], None], Answer] | None:
        if not self.recordable:
            return None
        self.calls.append("record")
        answer = run()

        def replay() -> None:
            self.calls.append("replay")
            for there, here in zip(answer, run(), strict=True):
                there.copy_(here)

        return replay, answer

    def wait(self) -> None:
        self.calls.append("wait")


class Mean(torch.nn.Module):
    """A network that treats every face separately, and remembers the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, crops: torch.Tensor) -> Answer:
        self.seen.append(crops.clone())
        values = crops.float().flatten(1)
        return values[:, :CLASSES].softmax(1), values[:, :DIM]


def wanted(crops: np.ndarray) -> Prediction:
    values = torch.from_numpy(crops.copy()).float().flatten(1)
    return Prediction(values[:, :CLASSES].softmax(1).numpy(), values[:, :DIM].numpy())


@pytest.mark.parametrize("recordable", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4, 9, 21])
def test_any_batch_is_split_filled_up_and_replayed(count: int, recordable: bool) -> None:
    gpu = FakeGpu(recordable)
    runner = GpuRunner(Mean(), gpu, SIDE, ROWS, (1, 2, 4, 8))
    for shift in (0, 5, 11):  # recorded, then replayed with other faces
        crops = np.roll(faces(32), shift, 0)[:count]
        out = Prediction(*runner(crops))
        np.testing.assert_allclose(out.probs, wanted(crops).probs, atol=1e-6)
        np.testing.assert_array_equal(out.features, wanted(crops).features)
    assert ("replay" in gpu.calls) == recordable


def test_each_bucket_is_recorded_once_and_then_replayed() -> None:
    gpu = FakeGpu()
    runner = GpuRunner(Mean(), gpu, SIDE, ROWS, (1, 2, 4))
    runner(faces(3))
    assert gpu.calls == ["record", "replay", "wait"]
    runner(faces(4))  # the same bucket
    assert gpu.calls == ["record", "replay", "wait", "replay", "wait"]


def test_padding_contains_no_earlier_faces() -> None:
    network = Mean()
    runner = GpuRunner(network, FakeGpu(), SIDE, ROWS, (4,))
    runner(np.full((4, SIDE, SIDE, 3), 255, np.uint8))
    runner(np.full((3, SIDE, SIDE, 3), 7, np.uint8))
    assert int(network.seen[-1][3].max()) == 0
    assert int(network.seen[-1][2].min()) == 7


def test_predictions_are_copies() -> None:
    runner = GpuRunner(Mean(), FakeGpu(), SIDE, ROWS, (4,))
    first, _ = runner(faces(2))
    kept = first.copy()
    runner(faces(6)[3:])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_each_precision_answers_like_the_model(pair: Path, precision: str) -> None:
    backend = open_backend(pair, "torch", 1, precision=precision)
    reference = open_backend(pair, "onnxruntime").infer(faces(40))
    assert compare(reference, backend.infer(faces(40))).agreement == 1.0
    assert f"{precision} on " in backend.reason
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.infer(faces(1))


def test_an_fp16_file_with_wrong_answers_is_refused(pair: Path) -> None:
    half = pair.with_name("m-fp16.onnx")
    tiny_onnx(half, precision="fp16", parent=load_spec(pair).sha256, seed=3)
    with pytest.raises(BackendError, match=r"no precision gave correct answers .*fp16: parity failed"):
        open_backend(pair, "torch", precision="fp16")
    half.unlink()
    with pytest.raises(BackendError, match=r"--precision bf16: m-fp16\.onnx is missing"):
        open_backend(pair, "torch", precision="bf16")
    with pytest.raises(BackendError, match="--precision int8: is for the CPU"):
        open_backend(pair, "torch", precision="int8")


def test_the_detector_on_a_gpu_gives_what_the_file_says(tmp_path: Path) -> None:
    """Its graphs are recorded when it opens, and it takes any number of images."""
    path, gpu = check_detector(DETECTORS["short"].onnx), FakeGpu()
    network = TorchNetwork(path, gpu)
    assert gpu.calls.count("record") == 4
    images = np.random.default_rng(0).integers(0, 256, (11, 128, 128, 3), np.uint8)
    got, wanted = network(images), open_network(path, "onnxruntime")(images)
    assert gpu.calls.count("record") == 4
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    broken = tmp_path / "m.onnx"
    broken.write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match="PyTorch cannot load it"):
        TorchNetwork(broken)


@pytest.mark.gpu
@pytest.mark.skipif(find_backend("torch").gpu_problem() is not None, reason="needs PyTorch and an NVIDIA GPU")
def test_the_detector_finds_on_a_gpu_what_mediapipe_finds() -> None:
    choice = choose_detector("torch")
    assert "on the GPU" in choice.reason
    check_answers(choice.open)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    proto = onnx.load(model)
    proto.graph.node[-1].op_type = "Hardmax"
    model.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="the PyTorch back end has no operator Hardmax"):
        OnnxGraph(model)
    model.write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match="PyTorch cannot load it"):
        OnnxGraph(model)


@pytest.mark.slow
def test_the_program_of_an_exported_file(pair: Path, tmp_path: Path) -> None:
    """`leaf-rt export m.onnx --target torch --precision fp16`, and what the other commands make of the file."""
    out = tmp_path / "out"
    options = ("--out", out, "--target", "torch", "--precision", "fp16", "--limit", "16")
    assert run_engines("export", pair, *options) == 0
    program = out / "m-fp16-torch.pt2"
    spec = load_spec(program)
    assert (spec.precision, spec.opset, spec.parent) == ("fp16", 0, load_spec(pair).sha256)
    assert np.asarray(spec.answers).shape == (PROOF, CLASSES)
    backend = open_backend(program, "torch", 1)
    for count in (1, 5, 33):
        np.testing.assert_allclose(
            backend.infer(faces(count)).probs, open_backend(pair, "onnxruntime").infer(faces(count)).probs, atol=5e-3
        )
    with pytest.raises(BackendError, match=r"computes in fp16"):
        open_backend(program, "torch", precision="bf16")
    with pytest.raises(BackendError, match=r"runs \.onnx files"):
        open_backend(program, "onnxruntime")
    save_spec(replace(spec, answers=tuple(row[::-1] for row in spec.answers)), program)
    with pytest.raises(BackendError, match="parity failed"):
        open_backend(program, "torch", 1)
    program.write_bytes(b"no program")
    save_spec(replace(spec, sha256=sha256_of(program)), program)
    with pytest.raises(ModelError, match=r"cannot load it .* export the model again"):
        open_backend(program, "torch", 1)


def test_impossible_exports_are_refused(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_engines("export", pair, "--out", tmp_path / "out", "--precision", "bf16") == 10
    assert "--precision bf16: is for --target torch only" in capsys.readouterr().err
    pair.with_name("m-fp16.onnx").unlink()
    options = ("--out", tmp_path / "out", "--target", "torch", "--precision", "bf16")
    assert run_engines("export", pair, *options) == 8
    assert "m-fp16.onnx beside the .onnx file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_auto_takes_it_on_a_gpu_only(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BUDGET", 0.01)
    order = [backend.name for backend in selection.BACKENDS]
    assert order.index("torch") > order.index("tensorrt-rtx")
    assert order.index("torch") < order.index("openvino")
    entry = find_backend("torch")
    assert entry.problem() is None
    with monkeypatch.context() as there:
        there.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: "torch 2.11.0")
        there.setattr("leaf_rt.backends.tensorrt.cuda.driver_problem", lambda: None)
        assert entry.gpu_problem() is None
        there.setattr("leaf_rt.backends.registry.BackendEntry.version", lambda _: "torch 2.11.0+cpu")
        problem = entry.gpu_problem()
        assert problem is not None
        assert "is a build for the CPU" in problem.problem
    only = tuple(backend for backend in selection.BACKENDS if backend.name in ("torch", "onnxruntime"))
    monkeypatch.setattr(selection, "BACKENDS", only)
    monkeypatch.setattr("leaf_rt.backends.registry.BackendEntry.gpu_problem", lambda _: None)
    messages: list[str] = []
    opened = open_backend(pair, notify=messages.append)
    if opened.device == "cpu":  # a driver answers, but this PyTorch cannot use the GPU
        assert opened.name == "onnxruntime"
        assert messages == ["torch is not used: PyTorch finds no GPU that it can use"]
    else:
        assert opened.name == "torch"


def test_auto_does_not_import_torch_without_a_gpu(model: Path) -> None:
    """It takes seconds."""
    if find_backend("torch").gpu_problem() is None:
        pytest.skip("there is a GPU")
    code = (
        "import sys; from pathlib import Path; from leaf_rt.backends.opening import open_backend;"
        f"print(open_backend(Path({str(model)!r})).name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split()[1:] == ["False"], done.stdout + done.stderr


def test_bf16_needs_a_gpu_that_computes_in_it(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    config = engine.BackendConfig(precision="bf16")
    with pytest.raises(BackendError, match="does not compute in bf16"):
        engine._choices(pair, load_spec(pair), config, "cuda")
    first, second = engine._choices(pair, load_spec(pair), engine.BackendConfig(), "cuda")
    assert (first.precision, second.precision) == ("fp16", "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_bundled_model_in_each_precision(precision: str) -> None:
    """The graph of every real layer, on real crops."""
    path = DEFAULT_MODEL if precision == "fp32" else variant_path(DEFAULT_MODEL, "fp16")
    network = OnnxGraph(path, torch.bfloat16 if precision == "bf16" else torch.float16).eval()
    crops = faces(256)[::16]
    with torch.inference_mode():
        probs, features = network(torch.from_numpy(crops.copy()))
    got = Prediction(probs.numpy(), features.numpy())
    assert compare(open_backend(DEFAULT_MODEL, "onnxruntime", 1, precision="fp32").infer(crops), got).ok


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["experts", "transformer"])
def test_the_graphs_of_other_networks(kind: str, tmp_path: Path) -> None:
    """LEAF's experts, and a transformer: operators that the bundled model does not have."""
    from test_engines_export import leaf

    from engines.deployed_model import Deployed, Preparation, fuse
    from engines.onnx_export import to_onnx
    from train.models.backbones import VisionTransformer
    from train.models.face_model import FaceModel

    torch.manual_seed(0)
    network = VisionTransformer(dim=32, layers=1, heads=2, hidden=64, patch=16, side=64)
    model = leaf().model.eval() if kind == "experts" else FaceModel(network, CLASSES).eval()
    preparation = Preparation(SIDE, "rgb", SIDE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), flip=True)
    module = Deployed(fuse(model, SIDE), preparation).eval()
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(module, SIDE).SerializeToString())
    graph = OnnxGraph(path).eval()
    with torch.inference_mode():
        for count in (1, 3):
            crops = torch.from_numpy(faces(count).copy())
            for got, expected in zip(graph(crops), module(crops), strict=True):
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    assert len(to_program(graph, SIDE)) > 1000
