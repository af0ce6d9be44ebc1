"""The model files that ship with the package: complete, checked, and no stale files beside them."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
from engines_fakes import run_engines
from test_engines_export import leaf
from test_engines_quantize import COUNT, data, model

import engines.release
from engines.evaluation_faces import Faces, load_faces
from engines.onnx_export import LoadedCheckpoint
from engines.parity import ParityReport, ParityRow
from engines.release import BEGIN, END, delete_inaccurate, install, make_files, with_table
from leaf_rt.errors import LeafError, ModelError, OutputError
from leaf_rt.models.spec import load_spec, variant_path

pytestmark = pytest.mark.slow

__all__ = ["data", "model"]  # fixtures
FORMS = ("m-fp16.onnx", "m-int8.onnx", "m-int8-openvino.xml")


@pytest.fixture(scope="module")
def checkpoint() -> LoadedCheckpoint:
    """The checkpoint of the fixture ``model``."""
    checkpoint = leaf(flip=False)
    checkpoint.model.classifier.weight.data.mul_(6)
    return replace(checkpoint, preparation=replace(checkpoint.preparation, color="grey"))


@pytest.fixture(scope="module")
def split(model: Path, data: Path) -> dict[str, Faces]:
    cache = str(data.parent / "crops")
    return {name: load_faces(data, "folder", name, load_spec(model), cache=cache) for name in ("train", "test")}


def test_a_complete_set_is_made_and_checked(
    checkpoint: LoadedCheckpoint, split: dict[str, Faces], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.release, "MAX_LOSS", 0.2)  # with 48 faces, one face is 2 points
    (tmp_path / "m.md").write_text("# Card\n\nText.\n")
    calibration = split["train"].images[:16]
    result = make_files(checkpoint, tmp_path, "m", calibration, split["test"], licence="mine", threads=1)
    fp32 = load_spec(tmp_path / "m.onnx")
    assert (fp32.licence, fp32.metrics[split["test"].name]["faces"]) == ("mine", COUNT // 2)
    for form in FORMS:
        spec = load_spec(tmp_path / form)
        assert spec.parent == fp32.sha256
        assert spec.metrics[split["test"].name]["accuracy"] > 0.7
    assert load_spec(variant_path(tmp_path / "m.onnx", "int8")).precision == "int8"
    names = [row.name for row in result.rows]
    assert names[0] == "PyTorch, not fused"
    assert {"ONNX Runtime fp32", "ONNX Runtime int8", "OpenVINO fp32", "OpenVINO int8"} <= set(names)
    assert json.loads((tmp_path / "m-parity.json").read_text())["count"] == COUNT // 2
    card = (tmp_path / "m.md").read_text()
    assert card.startswith("# Card\n\nText.\n\n")
    assert "| OpenVINO int8 | " in card
    assert with_table(card, result) == card  # replaced, not added a second time


def measured(*accuracies: tuple[str, float]) -> ParityReport:
    rows = tuple(ParityRow(name, accuracy, 1.0, 0.0, 0.0, 1.0) for name, accuracy in accuracies)
    return ParityReport("m.onnx", "faces", 1000, rows, ())


def complete_set(folder: Path) -> Path:
    for form in ("m.onnx", *FORMS):
        (folder / form).write_bytes(b"content")
        (folder / form).with_suffix(".json").write_text("{}")
    (folder / "m-int8-openvino.bin").write_bytes(b"weights")
    return folder / "m.onnx"


def test_a_variant_that_loses_too_much_is_left_out(tmp_path: Path) -> None:
    model = complete_set(tmp_path)
    result = measured(
        ("PyTorch, not fused", 0.850), ("ONNX Runtime fp32", 0.850), ("ONNX Runtime int8", 0.8455),
        ("OpenVINO int8", 0.8445),
    )  # fmt: skip
    assert delete_inaccurate(result, model) == ["OpenVINO int8: loses 0.55 points of accuracy, at most 0.5 are allowed"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"m.onnx", "m.json", "m-int8.onnx", "m-int8.json"}  # fp16 did not run


def test_a_graph_that_differs_from_pytorch_is_an_error(tmp_path: Path) -> None:
    result = measured(("PyTorch, not fused", 0.85), ("ONNX Runtime fp32", 0.85))
    wrong = replace(result, rows=(result.rows[0], replace(result.rows[1], probs=0.1)))
    with pytest.raises(ModelError, match=r"differs from PyTorch .* nothing was replaced"):
        delete_inaccurate(wrong, complete_set(tmp_path))


def test_variants_of_the_old_model_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    old = complete_set(tmp_path / "old")
    (tmp_path / "old" / "m.md").write_text("card")
    (tmp_path / "new" / "m.onnx").write_bytes(b"new")
    install(tmp_path / "new" / "m.onnx", old)
    assert {path.name for path in old.parent.iterdir()} == {"m.onnx", "m.md"}
    assert old.read_bytes() == b"new"
    with pytest.raises(LeafError, match="could not be written"):
        install(tmp_path / "new" / "m.onnx", tmp_path / "old" / "m.md" / "m.onnx")


def test_a_full_disk_leaves_the_old_set_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    new, old = complete_set(tmp_path / "new"), complete_set(tmp_path / "old")
    old.write_bytes(b"old")
    names = sorted(path.name for path in old.parent.iterdir())
    copied: list[object] = []

    def copy(source: Path, target: Path) -> None:
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(target.write_bytes(source.read_bytes()))

    monkeypatch.setattr("shutil.copyfile", copy)
    with pytest.raises(OutputError, match=r"could not be written \(No space left"):
        install(new, old)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in old.parent.iterdir()) == names


def test_the_table_is_placed_between_its_marks() -> None:
    result = ParityReport(
        "m.onnx", "FERPlus, test", 3546, (ParityRow("A", 0.85, 1.0, 0.0, 0.0, 1.0),), ("B: not installed",)
    )
    card = with_table(f"before\n{BEGIN}\nold\n{END}\nafter\n", result)
    assert card.startswith(f"before\n{BEGIN}\n## Runtimes")
    assert card.endswith(f"left out: B: not installed\n{END}\nafter\n")
    assert "All 3,546 faces of FERPlus, test, against A:" in card
    assert "old" not in card
    with pytest.raises(ModelError, match="the table goes between them"):
        with_table(f"before\n{BEGIN}\nold", result)


def test_bundle_needs_real_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_engines("bundle", tmp_path, "--out", tmp_path) == 10
    assert "need real faces; give --data PATH" in capsys.readouterr().err
