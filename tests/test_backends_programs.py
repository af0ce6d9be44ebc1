"""Programs of PyTorch from strangers: what would run code when PyTorch loads them is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_fakes import tiny_onnx
from fakes import SPEC

from leaf_rt.errors import BackendError, ModelError

pytestmark = pytest.mark.slow

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of a tiny model."""
    torch = pytest.importorskip("torch")
    from leaf_rt.backends.pytorch.graph import OnnxGraph
    from leaf_rt.backends.pytorch.program import to_program
    from leaf_rt.models.spec import load_spec

    folder = tmp_path_factory.mktemp("program")
    tiny_onnx(folder / "m.onnx")
    graph, side = OnnxGraph(folder / "m.onnx"), load_spec(folder / "m.onnx").side
    (folder / "m.pt2").write_bytes(to_program(graph, side))
    faces = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    probs, _ = graph(torch.from_numpy(faces))
    np.savez(folder / "answers.npz", faces=faces, probs=probs.numpy())
    return folder / "m.pt2"


class Evil:
    """A pickle that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def with_text(files: Files, change: Callable[[dict[str, Any]], None], name: str = "models/model.json") -> None:
    graph = json.loads(files[name])
    change(graph)
    files[name] = json.dumps(graph).encode()


def pickled_weight(files: Files, mark: Path) -> None:
    files["data/weights/weight_0"] = pickle.dumps(Evil(mark))
    config = "data/weights/model_weights_config.json"
    with_text(files, lambda found: found["config"]["value_0"].update(use_pickle=True), config)


def pickled_samples(files: Files, mark: Path) -> None:
    files["data/sample_inputs/model.pt"] = pickle.dumps(Evil(mark))


def old_weights(files: Files, mark: Path) -> None:
    files["data/weights/model.pt"] = pickle.dumps(Evil(mark))


def size_that_is_code(files: Files, mark: Path) -> None:
    def change(graph: dict[str, Any]) -> None:
        sizes = graph["graph_module"]["graph"]["tensor_values"]["faces"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(mark)!r})"

    with_text(files, change)


def guard_that_is_code(files: Files, mark: Path) -> None:
    with_text(files, lambda graph: graph.update(guards_code=[f"__import__('os').mkdir({str(mark)!r}) is None"]))


def name_that_is_code(files: Files, mark: Path) -> None:
    text = json.dumps(f"faces=__import__('os').mkdir({str(mark)!r})")
    files["models/model.json"] = files["models/model.json"].replace(b'"faces"', text.encode())


def operator_of_files(files: Files, mark: Path) -> None:
    """``from_file`` would make the file."""

    def change(graph: dict[str, Any]) -> None:
        node = graph["graph_module"]["graph"]["nodes"][1]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(mark)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 8}, "kind": 1},
        ]

    with_text(files, change)


def function_of_torch(files: Files, mark: Path) -> None:
    def change(graph: dict[str, Any]) -> None:
        graph["graph_module"]["graph"]["nodes"][1]["target"] = "torch.hub.os.mkdir"

    with_text(files, change)


ATTACKS = (
    pickled_weight, pickled_samples, old_weights, size_that_is_code, guard_that_is_code, name_that_is_code,
    operator_of_files, function_of_torch,
)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_of_a_program_runs(program: Path, tmp_path: Path, attack: Callable[[Files, Path], None]) -> None:
    from leaf_rt.backends.pytorch.program import load_program

    with zipfile.ZipFile(program) as whole:
        files = {name.partition("/")[2]: whole.read(name) for name in whole.namelist()}
    mark, hostile = tmp_path / "mark", tmp_path / "m.pt2"
    attack(files, mark)
    with zipfile.ZipFile(hostile, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"archive/{name}", data)
    if attack is pickled_samples:  # nobody needs them, so they are left out
        load_program(hostile, "cpu")
    else:
        with pytest.raises(ModelError, match=r"cannot load it \(it holds .* export the model again"):
            load_program(hostile, "cpu")
    assert not mark.exists(), "code of the file has run"


def test_a_program_of_our_own_still_answers(program: Path) -> None:
    import torch

    from leaf_rt.backends.pytorch.program import load_program

    with np.load(program.with_name("answers.npz")) as stored:
        probs, features = load_program(program, "cpu")(torch.from_numpy(stored["faces"]))
        np.testing.assert_allclose(probs.numpy(), stored["probs"], atol=1e-5)
    assert len(features) == len(probs)


def test_a_file_beside_the_known_ones_is_refused(program: Path, tmp_path: Path) -> None:
    """PyTorch would load a compiled library from ``data/aotinductor``."""
    from leaf_rt.backends.pytorch.program import load_program

    hostile = tmp_path / "m.pt2"
    hostile.write_bytes(program.read_bytes())
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr("archive/data/aotinductor/model/m.so", b"x")
    with pytest.raises(ModelError, match="holds files that no program of leaf-rt has"):
        load_program(hostile, "cpu")


def test_a_graph_that_fails_for_one_face_only_is_one_clear_error() -> None:
    """The check at the start sees other batches."""
    from torch import Tensor, nn

    from leaf_rt.backends.pytorch.engine import TorchBackend
    from leaf_rt.backends.pytorch.runner import CpuRunner

    class Picky(nn.Module):
        def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
            second = faces[:, 0, 0, 0].select(0, 1)
            return second, second

    backend = TorchBackend(SPEC, CpuRunner(Picky()), "cpu", "")
    with pytest.raises(BackendError, match=r"PyTorch failed on 1 face \(select"):
        backend.infer(np.zeros((1, SPEC.side, SPEC.side, 3), np.uint8))
