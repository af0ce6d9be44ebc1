"""Export of a checkpoint: the graph, its bytes, its description, the command and its errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from engines_fakes import RTX, faces, run_engines, tiny_onnx
from once import once
from test_engines_fuse import SPEC, SmallNet, shake

from engines import entry
from engines.deployed_model import Deployed, Preparation, fuse
from engines.onnx_export import ROUTING, LoadedCheckpoint, export_onnx, load_checkpoint, to_onnx, write_onnx
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.tensorrt.build import Profile, build_plan
from leaf_rt.cli import exporting
from leaf_rt.errors import BackendError, ModelError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import load_spec, sha256_of, variant_path
from train.loop.checkpoint import CheckpointMeta, Geometry, save
from train.models.face_model import FaceModel, build_model

pytestmark = pytest.mark.slow

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 64  # input size of the network; small, so that the tests are fast


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run: MobileFaceNet, batch norms not folded."""
    torch.manual_seed(0)
    options = {"backbone": "mobilefacenet", "num_classes": 8, "dropout": 0.2}
    model = shake(build_model(**options))  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("run")
    meta = CheckpointMeta(FERPLUS8, Geometry(64, 0.05, "grey", SIDE), MEAN, STD, options, {"seed": 0}, {}, folder)
    save(folder / "last.pt", meta, {"ema": model.state_dict(), "student": model.state_dict()})
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME.onnx with its fp16 variant, written by the command."""

    def export(out: Path) -> None:
        assert run_engines("export", run, "--out", out, "--name", "m", "--precision", "fp16", "--limit", "24") == 0

    return once(tmp_path_factory, "exported", export) / "m.onnx"


def leaf(flip: bool = True) -> LoadedCheckpoint:
    torch.manual_seed(0)
    model = shake(FaceModel(SmallNet(), 8, semantic=SPEC, instance=SPEC))
    meta = CheckpointMeta(FERPLUS8, Geometry(64, 0.05, "rgb", 64), MEAN, STD, {"backbone": "x"}, {}, {}, Path("x"))
    return LoadedCheckpoint(model, meta, Preparation(64, "rgb", 64, MEAN, STD, flip), "0")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ``leaf``, with its fp16 variant."""
    path = tmp_path_factory.mktemp("experts") / "leaf.onnx"
    for precision in ("fp32", "fp16"):  # the description of the fp16 file refers to the fp32 file
        export_onnx(leaf(), path, faces(8), precision)
    return path


def test_the_command_writes_model_description_and_report(exported: Path) -> None:
    spec = load_spec(exported)
    assert (spec.labels, spec.side, spec.net_side, spec.flip, spec.opset) == (FERPLUS8, 64, SIDE, True, 20)
    assert (spec.precision, spec.feature_dim, spec.training) == ("fp32", 512, {"seed": 0})
    half = load_spec(variant_path(exported, "fp16"))
    assert (half.precision, half.parent) == ("fp16", spec.sha256)
    report = json.loads(exported.with_name("m-parity.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert report["count"] == 24
    for name in ("ONNX Runtime fp32", "OpenVINO fp32"):
        assert rows[name]["agreement"] == 1.0
        assert rows[name]["probs"] < 1e-5
        assert rows[name]["features"] < 1e-5
    assert rows["fp16 graph (on CPU, for proof alone)"]["cosine"] > 0.999


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_torch_equals_the_graph_by_tolerance_and_by_label(run: Path, exported: Path, backend: str, count: int) -> None:
    loaded = load_checkpoint(run)
    with torch.no_grad():
        probs, features = Deployed(loaded.model, loaded.preparation)(torch.from_numpy(faces(count)))
    opened = open_backend(exported, backend, 2)
    out = opened.infer(faces(count))
    np.testing.assert_allclose(out.probs, probs.numpy(), atol=1e-5)
    np.testing.assert_allclose(out.features, features.numpy(), atol=1e-5 * float(features.abs().max()))
    assert (out.probs.argmax(1) == probs.numpy().argmax(1)).all()


def test_the_graph_is_fused_static_and_dynamic_in_its_batch(exported: Path) -> None:
    for path in (exported, variant_path(exported, "fp16")):
        proto = onnx.load(path)
        ops = {node.op_type for node in proto.graph.node}
        assert not ops & {"BatchNormalization", "Dropout", *ROUTING}
        tensors = (*proto.graph.input, *proto.graph.output)
        assert [t.type.tensor_type.shape.dim[0].dim_param != "" for t in tensors] == [True] * 3
        assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert [o.type.tensor_type.elem_type for o in proto.graph.output] == [onnx.TensorProto.FLOAT] * 2


def test_the_file_describes_itself_and_contains_no_paths(exported: Path) -> None:
    facts = {p.key: json.loads(p.value) for p in onnx.load(exported).metadata_props}
    assert facts["leaf_rt.labels"] == list(FERPLUS8)
    assert (facts["leaf_rt.side"], facts["leaf_rt.color"], facts["leaf_rt.flip"]) == (64, "grey", True)
    assert len(facts["leaf_rt.weights_sha256"]) == 64
    content = exported.read_bytes()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(run: Path, exported: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from engines.onnx_export import *; from leaf_rt.backends.parity import *;"
        f"export_onnx(load_checkpoint(Path({str(run)!r})), Path({str(tmp_path / 'm.onnx')!r}), golden_faces(64))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    assert sha256_of(tmp_path / "m.onnx") == sha256_of(exported)


def test_pooling_and_norms_stay_in_float32_in_the_fp16_graph(exported: Path) -> None:
    proto = onnx.shape_inference.infer_shapes(onnx.load(variant_path(exported, "fp16")))
    kinds = {v.name: v.type.tensor_type.elem_type for v in proto.graph.value_info}
    kinds |= {t.name: t.data_type for t in proto.graph.initializer}
    halves = {n.op_type for n in proto.graph.node if kinds.get(n.input[0]) == onnx.TensorProto.FLOAT16}
    assert "Conv" in halves
    assert not halves & {"ReduceMean", "Softmax", "Gemm"}


@RTX
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_the_fused_engine_with_its_profile(exported: Path, precision: str) -> None:
    trt = importlib.import_module("tensorrt_rtx")
    path = exported if precision == "fp32" else variant_path(exported, precision)
    plan = build_plan(trt, path.read_bytes(), Profile(1, 4, 32)).plan
    weights = path.stat().st_size
    assert 0.5 * weights < len(plan) < 4 * weights


@RTX
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_gates_and_experts_with_their_profile(experts: Path, precision: str) -> None:
    trt = importlib.import_module("tensorrt_rtx")
    path = experts if precision == "fp32" else variant_path(experts, precision)
    assert len(build_plan(trt, path.read_bytes(), Profile(1, 4, 32)).plan) > path.stat().st_size / 2


def test_gates_and_experts_are_dense_operations_in_the_graph(experts: Path) -> None:
    loaded = leaf()
    assert not {n.op_type for n in onnx.load(experts).graph.node} & ROUTING
    with torch.no_grad():
        out = loaded.model(Deployed(loaded.model, loaded.preparation).prepare(torch.from_numpy(faces(40))))
        probs, _ = Deployed(loaded.model, loaded.preparation)(torch.from_numpy(faces(40)))
    assert len({tuple(row) for row in (out.gates[:, 0] > 0).tolist()}) > 1, "all faces use the same experts"
    for name in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(open_backend(experts, name, 1).infer(faces(40)).probs, probs.numpy(), atol=1e-5)


def test_a_graph_with_data_dependent_routing_is_rejected(tmp_path: Path) -> None:
    class Routed(torch.nn.Module):
        def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = crops.float().mean((1, 2))
            y = torch.zeros_like(x).index_add(0, (x[:, 0] > 0).nonzero().flatten(), x[(x[:, 0] > 0)])
            return y.softmax(1), y

    proto = to_onnx(Routed(), 64)
    with pytest.raises(ModelError, match=r"the graph contains .*NonZero"):
        write_onnx(proto, tmp_path / "m.onnx", {})
    assert not (tmp_path / "m.onnx").exists()


def test_a_fixed_batch_is_rejected(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = crops.float().mean((1, 2))
            return (x + torch.arange(len(x))[:, None]).softmax(1), x

    with pytest.raises((ModelError, torch.onnx.OnnxExporterError)):
        write_onnx(to_onnx(Fixed(), 64), tmp_path / "m.onnx", {})


def test_fp16_is_rejected_if_activations_are_too_large(tmp_path: Path) -> None:
    loaded = leaf()
    with torch.no_grad():
        loaded.model.encoder.conv.weight.mul_(1e7)  # type: ignore[union-attr]
    assert fuse(loaded.model)
    with pytest.raises(ModelError, match="export with --precision fp32"):
        export_onnx(loaded, tmp_path / "m.onnx", faces(4), "fp16")


def test_the_openvino_format_gives_the_same_results(exported: Path, tmp_path: Path) -> None:
    assert run_engines("export", exported, "--out", tmp_path, "--target", "openvino", "--limit", "4") == 0
    xml = tmp_path / "m-openvino.xml"
    assert load_spec(xml).parent == load_spec(exported).sha256
    a = open_backend(xml, "openvino", 1).infer(faces(4))
    b = open_backend(exported, "onnxruntime", 1).infer(faces(4))
    np.testing.assert_allclose(a.probs, b.probs, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--precision", "int8"], "calibrated on real training faces; give --data"),
        (["{run}", "--precision", "int8", "--target", "tensorrt", "--data", "x"], "int8 is for the CPU"),
        (["{model}", "--precision", "fp16"], "needs the run or checkpoint"),
        (["{tmp}/none"], "no such file"),
        (["{tmp}/none.onnx"], "no such file"),
        (["{model}", "--target", "tensorrt", "--batch", "4,1"], "wanted smallest, most frequent and largest"),
        (["{model}", "--target", "tensorrt", "--batch", "4,1,8"], "wanted 1 <= smallest"),
    ],
)
def test_a_failed_export_explains_the_reason(
    arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_onnx(tmp_path / "tiny.onnx")
    filled = [a.format(run=run, model=tmp_path / "tiny.onnx", tmp=tmp_path) for a in arguments]
    code = run_engines("export", *filled, "--out", tmp_path / "out")
    error = capsys.readouterr().err
    assert code > 2
    assert message in error
    assert "Traceback" not in error


def test_the_entry_function_returns_files_accuracy_and_notes(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = entry.export(entry.ExportConfig(exported, tmp_path / "out", target="triton", limit=4))
    assert result.path == tmp_path / "out" / "triton" / "m"
    assert {path.name for path in result.written} == {"m.onnx", "m", "m-parity.json"}
    assert all(path.exists() for path in result.written)
    assert result.parity.count == 4
    assert (result.accuracy, result.int8, result.notes) == (None, None, ())
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_the_options_offer_what_the_entry_function_accepts() -> None:
    assert tuple(exporting.Precision) == entry.PRECISIONS
    assert tuple(exporting.Target) == entry.TARGETS
    with pytest.raises(BackendError, match="--target tpu: unknown"):
        entry.ExportConfig(Path("run"), Path("out"), target="tpu")


def test_a_missing_package_is_one_sentence() -> None:
    code = "import sys; sys.modules['torch'] = None; from leaf_rt.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "export", "run", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == BackendError.exit_code
    hint = 'torch is not installed; install it from a clone of leaf-rt with: pip install ".[train]"'
    assert done.stderr == f"error: leaf-rt export: {hint}\n"


@pytest.mark.skipif(find_backend("tensorrt").problem() is None, reason="a GPU is present, see make test-gpu")
def test_a_plan_needs_its_gpu(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("tensorrt", "tensorrt-rtx"):
        assert run_engines("export", exported, "--out", tmp_path, "--target", target) == 10
        assert "a plan is built on the machine that runs it" in capsys.readouterr().err


def test_bench_makes_a_table_and_one_json_line(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(exported), "--checkpoint", str(run), "--batch", "1,2", "--repeats", "2"]
    assert run_engines("bench", *arguments) == 0
    *table, last = capsys.readouterr().out.strip().splitlines()
    result: dict[str, Any] = json.loads(last)
    assert {(r["runtime"], r["precision"], r["batch"]) for r in result["rows"]} >= {
        ("PyTorch eager", "fp32", 1), ("ONNX Runtime", "fp32", 2), ("OpenVINO", "fp32", 1),
    }  # fmt: skip
    assert any(line.startswith("| OpenVINO | fp32 |") for line in table)
    assert "times faster than PyTorch eager" in result["verdict"]
    assert run_engines("bench", "--model", exported, "--batch", "0") == 10


def test_bench_takes_a_model_and_an_architecture_in_one_run(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = ["--backbone", "mobilefacenet", "--net-side", "32"]
    assert run_engines("bench", "--model", exported, *backbone, "--batch", "1", "--repeats", "1") == 0
    *_, first, second = capsys.readouterr().out.strip().splitlines()
    assert json.loads(first)["model"] == "m.onnx"
    fresh = json.loads(second)
    assert fresh["model"] == "mobilefacenet at 32 px"
    wanted = {("PyTorch eager", "fp32"), ("ONNX Runtime", "int8"), ("OpenVINO", "int8"), ("OpenVINO", "fp32")}
    assert wanted <= {(row["runtime"], row["precision"]) for row in fresh["rows"]}


def test_parity_command(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_engines("parity", "--model", exported, "--checkpoint", run, "--limit", "8") == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["rows"][0]["name"] == "PyTorch, not fused"
