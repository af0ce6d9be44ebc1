"""What travels with the package: made whole, proven, and nothing stale beside it."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_engines_export import leaf
from test_engines_quantize import COUNT, data, model

import engines.release
from engines.cli import main
from engines.evaluation_faces import Faces, data_faces
from engines.onnx_export import Loaded
from engines.parity import Report, Row
from engines.release import BEGIN, END, bundle, judge, place, with_table
from leaf_rt.errors import LeafError, ModelError, OutputError
from leaf_rt.models.spec import load_spec, variant_path

__all__ = ["data", "model"]  # fixtures
FORMS = ("m-fp16.onnx", "m-int8.onnx", "m-int8-openvino.xml")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The checkpoint that the fixture ``model`` was exported from."""
    loaded = leaf(flip=False)
    loaded.model.classifier.weight.data.mul_(6)
    return replace(loaded, preparation=replace(loaded.preparation, color="grey"))


@pytest.fixture(scope="module")
def split(model: Path, data: Path) -> dict[str, Faces]:
    cache = str(data.parent / "crops")
    return {name: data_faces(data, "folder", name, load_spec(model), cache=cache) for name in ("train", "test")}


def test_a_whole_set_is_made_and_proven(
    loaded: Loaded, split: dict[str, Faces], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.release, "MAX_LOSS", 0.2)  # some dozen faces: one of them is 2 points
    (tmp_path / "m.md").write_text("# Card\n\nWords.\n")
    calibration = split["train"].images[:16]
    result = bundle(loaded, tmp_path, "m", calibration, split["test"], licence="mine", threads=1)
    exact = load_spec(tmp_path / "m.onnx")
    assert (exact.licence, exact.metrics[split["test"].name]["faces"]) == ("mine", COUNT // 2)
    for form in FORMS:
        spec = load_spec(tmp_path / form)
        assert spec.parent == exact.sha256
        assert spec.metrics[split["test"].name]["accuracy"] > 0.7
    assert load_spec(variant_path(tmp_path / "m.onnx", "int8")).precision == "int8"
    names = [row.name for row in result.rows]
    assert names[0] == "PyTorch, not fused"
    assert {"ONNX Runtime fp32", "ONNX Runtime int8", "OpenVINO fp32", "OpenVINO int8"} <= set(names)
    assert json.loads((tmp_path / "m-parity.json").read_text())["count"] == COUNT // 2
    card = (tmp_path / "m.md").read_text()
    assert card.startswith("# Card\n\nWords.\n\n")
    assert "| OpenVINO int8 | " in card
    assert with_table(card, result) == card  # written over, not once more


def measured(*accuracies: tuple[str, float]) -> Report:
    rows = tuple(Row(name, accuracy, 1.0, 0.0, 0.0, 1.0) for name, accuracy in accuracies)
    return Report("m.onnx", "faces", 1000, rows, ())


def whole_set(folder: Path) -> Path:
    for form in ("m.onnx", *FORMS):
        (folder / form).write_bytes(b"content")
        (folder / form).with_suffix(".json").write_text("{}")
    (folder / "m-int8-openvino.bin").write_bytes(b"weights")
    return folder / "m.onnx"


def test_what_loses_too_much_is_left_out(tmp_path: Path) -> None:
    model = whole_set(tmp_path)
    result = measured(
        ("PyTorch, not fused", 0.850), ("ONNX Runtime fp32", 0.850), ("ONNX Runtime int8", 0.8455),
        ("OpenVINO int8", 0.8445),
    )  # fmt: skip
    said = judge(result, model)
    assert said == ["OpenVINO int8: loses 0.55 points of accuracy, at most 0.5 are allowed"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"m.onnx", "m.json", "m-int8.onnx", "m-int8.json"}  # fp16 was never proven


def test_a_graph_that_answers_otherwise_is_an_error(tmp_path: Path) -> None:
    result = measured(("PyTorch, not fused", 0.85), ("ONNX Runtime fp32", 0.85))
    bent = replace(result, rows=(result.rows[0], replace(result.rows[1], probs=0.1)))
    with pytest.raises(ModelError, match=r"answers otherwise than PyTorch .* nothing was replaced"):
        judge(bent, whole_set(tmp_path))


def test_forms_of_an_older_model_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    old = whole_set(tmp_path / "old")
    (tmp_path / "old" / "m.md").write_text("card")
    (tmp_path / "new" / "m.onnx").write_bytes(b"new")
    place(tmp_path / "new" / "m.onnx", old)
    assert {path.name for path in old.parent.iterdir()} == {"m.onnx", "m.md"}
    assert old.read_bytes() == b"new"
    with pytest.raises(LeafError, match="could not be written"):
        place(tmp_path / "new" / "m.onnx", tmp_path / "old" / "m.md" / "m.onnx")


def test_a_full_disk_leaves_the_old_set_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    new, old = whole_set(tmp_path / "new"), whole_set(tmp_path / "old")
    old.write_bytes(b"old")
    names = sorted(path.name for path in old.parent.iterdir())
    copied: list[object] = []

    def copy(source: Path, target: Path) -> None:
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(target.write_bytes(source.read_bytes()))

    monkeypatch.setattr("shutil.copyfile", copy)
    with pytest.raises(OutputError, match=r"could not be written \(No space left"):
        place(new, old)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in old.parent.iterdir()) == names


def test_the_table_stands_between_its_marks() -> None:
    result = Report("m.onnx", "FERPlus, test", 3546, (Row("A", 0.85, 1.0, 0.0, 0.0, 1.0),), ("B: not installed",))
    card = with_table(f"before\n{BEGIN}\nold\n{END}\nafter\n", result)
    assert card.startswith(f"before\n{BEGIN}\n## Runtimes")
    assert card.endswith(f"left out: B: not installed\n{END}\nafter\n")
    assert "All 3,546 faces of FERPlus, test, against A:" in card
    assert "old" not in card
    with pytest.raises(ModelError, match="the table stands between them"):
        with_table(f"before\n{BEGIN}\nold", result)


def test_it_needs_real_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", str(tmp_path), "--out", str(tmp_path)]) == 10
    assert "on real faces; give --data PATH" in capsys.readouterr().err
