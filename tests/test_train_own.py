"""A person's own faces, a folder per class and nothing else: from training to a measured model file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from train_fakes import CLASSES, tiny, write_folder

from leaf_rt.artifact import DEFAULT_MODEL
from train.cli import main
from train.recipe import to_toml

PER_CLASS = 20
HELD = len(CLASSES) * PER_CLASS // 10  # data.validation of them


def plain(root: Path, per_class: int = PER_CLASS) -> Path:
    """The class folders and ``unlabelled`` at the top, no splits."""
    write_folder(root, per_class)
    for folder in (root / "train").iterdir():
        folder.rename(root / folder.name)
    for split in ("train", "valid", "test"):
        shutil.rmtree(root / split)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and the run made from it."""
    root = tmp_path_factory.mktemp("own")
    plain(root / "data")
    (root / "small.toml").write_text(to_toml(tiny(root, split__kind="all", split__labels=0)))
    assert main(["train", "--recipe", str(root / "small.toml"), "--out", str(root / "run"), "--quiet"]) == 0
    return root


def copied(trained: Path, to: Path) -> Path:
    """Faces and run in a folder of their own, to be changed."""
    shutil.copytree(trained / "data", to / "data")
    shutil.copytree(trained / "run", to / "run")
    return to


def evaluate(root: Path, *options: str, model: str | None = None) -> int:
    data = ["--data", str(root / "data"), "--data.cache", str(root / "cache")]
    return main(["evaluate", model or str(root / "run"), *data, *options])


@pytest.mark.parametrize("model", ["run", "run/last.pt"])
def test_a_run_is_measured_on_what_it_held_out(trained: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert evaluate(trained, "--json", "-", model=str(trained / model)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == HELD
    assert result["pictures"] == "the validation pictures that the run held out"
    own = json.loads((trained / "run" / "meta.json").read_text())["metrics"]
    assert result["confusion"] == own["confusion"], "other pictures than those that training was judged on"
    assert evaluate(trained) == 0
    assert "validation pictures that the run held out" in " ".join(capsys.readouterr().out.split())


def test_all_labelled_pictures_are_no_test(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(trained, "--split", "all") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "all labelled pictures, training pictures among them" in said
    assert f"of {len(CLASSES) * PER_CLASS}, balanced" in said
    root = copied(trained, tmp_path)
    (root / "data" / "fear" / "000.png").unlink()
    assert evaluate(root, "--split", "all", "--json", "-") == 0
    assert (
        json.loads(capsys.readouterr().out)["pictures"] == "all labelled pictures, perhaps training pictures among them"
    )


@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="the bundled model is not here")
def test_an_exported_model_on_data_without_splits(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.align", "false", "--data.cache", str(trained / "crops")]
    assert evaluate(trained, *options, model=str(DEFAULT_MODEL)) == 15
    said = capsys.readouterr().err
    assert "no validation split of its own; give the folder of the run" in said
    assert "--split all" in said
    assert evaluate(trained, *options, "--split", "all", "--json", "-", model=str(DEFAULT_MODEL)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == len(CLASSES) * PER_CLASS
    assert "perhaps training pictures among them" in result["pictures"]


def test_a_test_folder_can_be_added_later(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(trained, "--split", "test") == 15
    assert (
        "no test split of its own; put labelled pictures that training never sees into test/" in capsys.readouterr().err
    )
    root = copied(trained, tmp_path)
    write_folder(tmp_path / "more", per_class=1, valid=3)
    (tmp_path / "more" / "test").rename(root / "data" / "test")
    assert evaluate(root, "--split", "test", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 3 * len(CLASSES)
    assert evaluate(root, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["n"] == HELD


def test_pictures_that_changed_since_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied(trained, tmp_path)
    (root / "data" / "fear" / "000.png").unlink()
    assert evaluate(root) == 15
    said = capsys.readouterr().err
    assert "the data changed since it was made (1 pictures gone, 0 new)" in said
    assert said.rstrip().endswith("or take --split all")
