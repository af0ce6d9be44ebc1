"""Models that answer nonsense, descriptions and caches with hostile content, and checkpoints with a flipped byte."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Leaf
from engines_fakes import describe, tiny_onnx
from onnx import helper, numpy_helper

from leaf_rt.backends.base import check_answers
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.selection import CHOICES
from leaf_rt.errors import BackendError, ModelError, NotFound
from leaf_rt.faces.encoder import FaceEncoder
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, spec_path
from leaf_rt.system.parsing import parse_json, read_toml
from leaf_rt.types import Prediction

QUIET = ("--no-save-video", "--no-plot")
DEEP = "[" * 100_000


def nonsense(path: Path, kind: str) -> Path:
    """A small model whose last node does not answer with shares."""
    tiny_onnx(path)
    model = onnx.load(str(path))
    softmax = model.graph.node.pop()
    value = {"zeros": 0.0, "nan": float("nan"), "forty": 40.0, "minus": -1.0}[kind]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(value), "factor"))
    model.graph.node.append(helper.make_node("Softmax", softmax.input, ["shares"], axis=1))
    model.graph.node.append(helper.make_node("Mul", ["shares", "factor"], softmax.output))
    path.write_bytes(model.SerializeToString())
    describe(path)
    return path


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "not finite"),
        ("zeros", "add up to 0, not 1"),
        ("forty", "add up to 40"),
        ("minus", "a negative share"),
    ],
)
def test_answers_that_are_no_shares_are_an_error(
    leaf: Leaf, clip: Path, tmp_path: Path, cache: Path, kind: str, words: str, backend: str
) -> None:
    model = nonsense(tmp_path / "m.onnx", kind)
    records = tmp_path / "r.jsonl"
    done = leaf("video", clip, *QUIET, "--jsonl", records, "--model", model, "--backend", backend)
    assert words in done.sentence()
    assert done.code in (ModelError.exit_code, BackendError.exit_code)
    assert not records.exists()
    assert not list(tmp_path.glob("*.part"))


def test_an_answer_that_turns_bad_during_the_run_is_an_error(
    leaf: Leaf, clip: Path, tmp_path: Path, cache: Path
) -> None:
    """The probe is answered well, faces are not."""
    from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend

    answer = OnnxRuntimeBackend.infer
    calls = 0

    def worse(self: OnnxRuntimeBackend, faces: np.ndarray) -> Prediction:
        nonlocal calls
        calls += 1
        found = answer(self, faces)
        return found if calls < 3 else Prediction(found.probs * np.float32(np.nan), found.features)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRuntimeBackend, "infer", worse)
        done = leaf("video", clip, *QUIET, "--out", tmp_path / "out", "--backend", "onnxruntime")
    assert done.code == ModelError.exit_code
    assert "not finite" in done.sentence()
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "NaN" not in text
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_bad_answers_are_told_apart() -> None:
    good = np.full((3, 8), 0.125, np.float32)
    features = np.zeros((3, 4), np.float32)
    assert check_answers(Prediction(good, features), Path("m"), "fp32").probs is good
    for wrong in (good * np.nan, good + np.inf, good - 1, good * 1.01):
        with pytest.raises(ModelError, match="the model answers with"):
            check_answers(Prediction(wrong, features), Path("m"), "fp32")
    with pytest.raises(ModelError, match="not finite"):
        check_answers(Prediction(good, features + np.nan), Path("m"), "fp32")
    check_answers(Prediction(good * np.float32(1.003), features), Path("m"), "bf16")


def test_the_check_costs_less_than_a_hundredth(cache: Path) -> None:
    with_model = open_backend(DEFAULT_MODEL, "onnxruntime", 1)
    faces = np.zeros((1, 64, 64, 3), np.uint8)
    prediction = with_model.infer(faces)

    def fastest(action: object, count: int) -> float:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            action()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    check = fastest(lambda: check_answers(prediction, Path("m"), "fp32"), 300)
    assert check < 0.02 * fastest(lambda: with_model.infer(faces), 30)  # half of it on a quiet machine
    with_model.close()


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "\x00", "[1]", "null"])
def test_a_hostile_description(leaf: Leaf, tmp_path: Path, text: str) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    spec_path(tmp_path / "m.onnx").write_text(text)
    for command in (("image", "none.png"), ("bench", "--batch", "1"), ("export", "--out", tmp_path / "out")):
        model = () if command[0] == "export" else ("--model", tmp_path / "m.onnx")
        first = (tmp_path / "m.onnx",) if command[0] == "export" else ()
        done = leaf(command[0], *first, *command[1:], *model)
        assert done.code == ModelError.exit_code, done.err
        assert "m.json" in done.sentence()


def test_a_description_that_is_no_regular_file(tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    spec_path(tmp_path / "m.onnx").unlink()
    spec_path(tmp_path / "m.onnx").symlink_to("/dev/zero")
    with pytest.raises(ModelError):
        load_spec(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["/", ".", "..", "/dev/null"])
def test_a_model_that_is_no_file(leaf: Leaf, face: Path, tmp_path: Path, name: str) -> None:
    export = ("export", "--out", tmp_path, name)
    commands = (("image", face), ("video", "none.mp4"), ("bench", "--batch", "1"), ("doctor",))
    for command in (export, *((*command, "--model", name) for command in commands)):
        done = leaf(*command)
        assert done.code in (NotFound.exit_code, ModelError.exit_code, BackendError.exit_code), done.err
        done.sentence()


@pytest.mark.parametrize("batch", ["99999999", "1,99999999", "0", "-1", "1" * 5000, "1,,2", "nan"])
def test_a_batch_without_measure_is_refused(leaf: Leaf, batch: str) -> None:
    done = leaf("bench", "--batch", batch)
    assert done.code == BackendError.exit_code
    assert "from 1 to 1024" in done.sentence()


@pytest.mark.parametrize("content", [DEEP.encode(), b"\xff\xfe", b"[]", b"{", "folder", "pipe"])
def test_a_bad_cache_is_set_aside_and_made_again(
    leaf: Leaf, face: Path, model: Path, tmp_path: Path, cache: Path, content: bytes | str
) -> None:
    cache.mkdir(mode=0o700)
    file = cache / CHOICES
    if content == "folder":
        file.mkdir()
    elif content == "pipe":
        os.mkfifo(file)
    else:
        assert isinstance(content, bytes)
        file.write_bytes(content)
    done = leaf("image", face, "--out", tmp_path, "--model", model)
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "auto.json" in line and "set aside" in line], done.err
    assert isinstance(json.loads(file.read_text()), dict)
    assert (cache / f"{CHOICES}.bad").exists()
    again = leaf("image", face, "--out", tmp_path, "--model", model)
    assert (again.code, "set aside" in again.err) == (0, False)


def test_doctor_survives_a_bad_cache(leaf: Leaf, model: Path, cache: Path) -> None:
    cache.mkdir(mode=0o700)
    (cache / CHOICES).write_text(DEEP)
    done = leaf("doctor", "--model", model)
    assert done.code == 0, done.err
    assert "bug" not in done.out + done.err


def test_deep_nesting_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)
    (tmp_path / "deep.toml").write_text(f"a = {DEEP}")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_toml(tmp_path / "deep.toml")


@pytest.mark.parametrize("option", ["--sources"])
def test_a_deep_list_of_sources(leaf: Leaf, tmp_path: Path, option: str) -> None:
    (tmp_path / "deep.toml").write_text(f"source = {DEEP}")
    done = leaf("video", option, tmp_path / "deep.toml")
    assert done.code == 15
    assert "deep.toml" in done.sentence()


def test_a_flipped_byte_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from train.models.weights import Unreadable, read_file

    path = tmp_path / "last.pt"
    torch.save({"w": torch.arange(1000.0)}, path)
    assert read_file(path)["w"][999] == 999
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.file_size == 4000)
    place = whole.index(np.float32(500).tobytes(), info.header_offset)
    whole[place + 2] ^= 0x10
    path.write_bytes(whole)
    assert torch.load(path)["w"][500] != 500  # torch takes it without a word
    with pytest.raises(Unreadable, match="wrong checksum"):
        read_file(path)


def test_a_face_recognition_network_that_answers_nonsense(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Log", ["faces"], ["logs"]),  # of 0 and of less
        helper.make_node("AveragePool", ["logs"], ["cells"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["cells"], ["vectors"]),
    ]
    entry = helper.make_tensor_value_info("faces", onnx.TensorProto.FLOAT, [1, 3, 112, 112])
    result = helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, [1, 48])
    graph = helper.make_graph(nodes, "logs", [entry], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "f.onnx")
    with pytest.raises(ModelError, match=r"--reid-model: .*answered with numbers that are not finite"):
        FaceEncoder(tmp_path / "f.onnx")


def test_a_graph_that_fails_while_it_runs_prints_one_sentence(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    """ONNX Runtime would print a line of its own, in red."""
    tiny_onnx(tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.op_type = "Squeeze"  # of a shape that is known only when it runs, and then fits nothing
    flatten.ClearField("attribute")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    describe(tmp_path / "m.onnx")
    done = leaf("image", face, "--model", tmp_path / "m.onnx", "--backend", "onnxruntime", "--out", tmp_path)
    assert done.code in (8, 10)
    assert "onnxruntime:" not in done.err
    assert "\x1b" not in done.err
    assert done.err.count("error: ") == 1


def test_a_name_that_is_no_text_prints_one_sentence(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    """ONNX Runtime would try another provider, and say so on standard output, where records may go."""
    tiny_onnx(tmp_path / "m.onnx")
    before, _, after = (tmp_path / "m.onnx").read_bytes().rpartition(b"logits")  # what Softmax reads
    (tmp_path / "m.onnx").write_bytes(before + b"logit\xff" + after)
    describe(tmp_path / "m.onnx")
    done = leaf("image", face, "--model", tmp_path / "m.onnx", "--backend", "onnxruntime", "--jsonl", "-")
    assert (done.code, done.out) == (8, "")
    assert done.err.count("error: ") == 1
