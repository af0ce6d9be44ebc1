"""Invalid models and missing hardware on the command line: one sentence and the right exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Leaf
from engines_fakes import describe, run_engines, tiny_onnx
from onnx import TensorProto, helper

from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.tensorrt import engine
from leaf_rt.errors import BackendError, LeafError, ModelError, NotFound
from leaf_rt.models.spec import load_spec, spec_path

NO_OPENVINO = pytest.mark.skipif(find_backend("openvino").problem() is not None, reason="no OpenVINO")
BACKENDS = [
    "auto",
    "onnxruntime",
    pytest.param("openvino", marks=NO_OPENVINO),
]


pytestmark = pytest.mark.usefixtures("cache")


def foreign_onnx(path: Path) -> None:
    """A valid ONNX file that is not a leaf-rt model."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())


def broken(kind: str, folder: Path) -> Path:
    path = folder / "mine.onnx"
    if kind == "missing":
        return path
    tiny_onnx(path)
    if kind == "truncated":  # the hash in the new description is correct
        path.write_bytes(path.read_bytes()[:-300])
        describe(path)
    elif kind == "rubbish":
        path.write_bytes(b"no model at all")
        describe(path)
    elif kind == "foreign":
        foreign_onnx(path)
        describe(path)
    elif kind == "labels":
        describe(path, labels=("one", "two"))
    elif kind == "side":
        describe(path, side=32)
    elif kind == "features":
        describe(path, feature_dim=7)
    elif kind == "hash":
        path.write_bytes(path.read_bytes() + b"\0")
    elif kind == "alone":
        spec_path(path).unlink()
    return path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "words", "error"),
    [
        ("missing", "no such file", NotFound),
        ("alone", "its description mine.json is missing", ModelError),
        ("truncated", "cannot load it", ModelError),
        ("rubbish", "cannot load it", ModelError),
        ("foreign", "its graph does not match its description", ModelError),
        ("labels", "2 labels", ModelError),
        ("side", "faces of side 32", ModelError),
        ("features", "7 features", ModelError),
        ("hash", "its bytes do not match mine.json", ModelError),
    ],
)
def test_an_invalid_model(
    leaf: Leaf, tmp_path: Path, backend: str, kind: str, words: str, error: type[LeafError]
) -> None:
    done = leaf("image", tmp_path / "none.png", "--model", broken(kind, tmp_path), "--backend", backend)
    assert "mine" in done.sentence()
    assert words in done.sentence()
    assert "absl::" not in done.err  # a line that a runtime writes to file descriptor 2
    assert done.code == error.exit_code


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--precision", "bf16", "--backend", "onnxruntime"),
            "computes in the precision of the model file",
        ),
        (
            ("--precision", "fp16", "--backend", "onnxruntime"),
            "computes in the precision of the model file",
        ),
        (("--precision", "int8"), "mine-int8.onnx is missing beside mine.onnx"),
        (("--precision", "int8", "--backend", "tensorrt-rtx"), "is for the CPU"),
    ],
)
def test_an_unavailable_precision(leaf: Leaf, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    tiny_onnx(tmp_path / "mine.onnx")
    done = leaf("image", tmp_path / "none.png", "--model", tmp_path / "mine.onnx", *options)
    assert words in done.sentence()
    assert done.code == BackendError.exit_code


@NO_OPENVINO
@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_bf16_without_processor_support(
    leaf: Leaf, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    tiny_onnx(tmp_path / "mine.onnx")
    options = ("--model", tmp_path / "mine.onnx", "--precision", "bf16", "--backend", backend)
    done = leaf("image", tmp_path / "none.png", *options)
    assert "this processor does not support bf16; use fp32" in done.sentence()
    assert done.code == BackendError.exit_code


@pytest.mark.skipif(find_backend("tensorrt-rtx").problem() is None, reason="there is a GPU: see make test-gpu")
@pytest.mark.parametrize("options", [("--precision", "fp16"), ("--backend", "tensorrt"), ("--backend", "tensorrt-rtx")])
def test_a_missing_gpu(leaf: Leaf, tmp_path: Path, options: tuple[str, ...]) -> None:
    tiny_onnx(tmp_path / "mine.onnx")
    done = leaf("image", tmp_path / "none.png", "--model", tmp_path / "mine.onnx", *options)
    assert "no NVIDIA driver" in done.sentence() or "not installed; install" in done.sentence()
    assert done.code == BackendError.exit_code


def test_a_plan_of_another_machine_or_without_a_profile(leaf: Leaf, tmp_path: Path) -> None:
    plan = tmp_path / "mine.plan"
    plan.write_bytes(b"not a plan")
    describe(plan, opset=0)
    done = leaf("image", tmp_path / "none.png", "--model", plan)
    assert "no back end can run mine.plan here" in done.sentence()
    assert done.code == BackendError.exit_code
    with pytest.raises(ModelError, match="the description of the plan has no profile"):
        engine._profile_of(load_spec(plan))


@pytest.mark.parametrize("kind", ["truncated", "rubbish", "foreign", "alone", "hash"])
def test_a_model_that_cannot_be_exported(leaf: Leaf, tmp_path: Path, kind: str) -> None:
    done = leaf("export", broken(kind, tmp_path), "--out", tmp_path / "out")
    assert "mine" in done.sentence()
    assert done.code == ModelError.exit_code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["truncated", "foreign"])
def test_a_model_that_cannot_be_timed(leaf: Leaf, tmp_path: Path, kind: str) -> None:
    model = broken(kind, tmp_path)
    assert leaf("bench", "--batch", "1", "--model", model).code == ModelError.exit_code
    for command in ("bench", "parity"):
        assert run_engines(command, "--model", model) == ModelError.exit_code


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="root without setpriv cannot be refused",
)
@pytest.mark.slow
def test_a_read_only_cache_folder_gives_a_message(face: Path, tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "mine.onnx")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    as_others = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    command = [
        *as_others, sys.executable, "-m", "leaf_rt", "image", str(face), "--model", str(tmp_path / "mine.onnx"),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    environment = {**os.environ, "LEAF_RT_CACHE": str(closed), "COLUMNS": "500"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{closed} cannot be written" in done.stderr
    assert "set LEAF_RT_CACHE to a folder that you own" in done.stderr
    assert "1 face" in done.stdout
