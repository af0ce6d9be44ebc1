"""A person's own faces, a folder per class and nothing else: from training to a measured model file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from engines_fakes import run_engines
from train_fakes import CLASSES, tiny, train_command, write_folder

import engines.quantization
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.recipes.loading import load_recipe, to_toml
from train.recipes.schema import Run

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
    assert train_command(["train", "--recipe", str(root / "small.toml"), "--out", str(root / "run"), "--quiet"]) == 0
    return root


def copied(trained: Path, to: Path) -> Path:
    """Faces and run in a folder of their own, to be changed."""
    shutil.copytree(trained / "data", to / "data")
    shutil.copytree(trained / "run", to / "run")
    return to


def evaluate(root: Path, *options: str, model: str | None = None) -> int:
    data = ["--data", str(root / "data"), "--data.cache", str(root / "cache")]
    return train_command(["evaluate", model or str(root / "run"), *data, *options])


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


def test_split_all_says_that_it_includes_training_pictures(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained, "--split", "all") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "all labelled pictures, training pictures among them" in printed
    assert f"of {len(CLASSES) * PER_CLASS}, balanced" in printed
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
    printed = capsys.readouterr().err
    assert "no validation split of its own; give the folder of the run" in printed
    assert "--split all" in printed
    assert evaluate(trained, *options, "--split", "all", "--json", "-", model=str(DEFAULT_MODEL)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == len(CLASSES) * PER_CLASS
    assert "perhaps training pictures among them" in result["pictures"]


def test_a_test_folder_can_be_added_later(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(trained, "--split", "test") == 15
    assert (
        "no test split of its own; put labelled images that training never sees into test/" in capsys.readouterr().err
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
    printed = capsys.readouterr().err
    assert "the data changed since it was made (1 images are missing, 0 are new)" in printed
    assert printed.rstrip().endswith("or use --split all")


def export(root: Path, out: Path, *options: str, source: str = "run") -> int:
    options = ("--precision", "int8", "--data", str(root / "data"), "--cache", str(root / "aligned"), *options)
    return run_engines("export", root / source, "--out", out, "--no-flip", *options)


@pytest.mark.slow
def test_int8_is_evaluated_on_what_the_run_held_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    quantize = engines.quantization.quantize_onnxruntime
    monkeypatch.setattr(engines.quantization, "quantize_onnxruntime", lambda *a: (seen.append(len(a[2])), quantize(*a)))
    monkeypatch.setattr(engines.quantization, "too_lossy", lambda *right: False)  # only the choice of faces matters
    assert export(trained, tmp_path) == 0
    rest = len(CLASSES) * PER_CLASS - HELD
    assert seen == [rest]
    printed = capsys.readouterr().out
    assert (
        f"calibrated on {rest} faces, evaluated on {HELD} others (folder data, validation pictures that the" in printed
    )
    (measured,) = load_spec(tmp_path / "run-int8.onnx").metrics.values()
    assert measured["faces"] == HELD
    assert "unfinished" not in capsys.readouterr().err

    shutil.copy(tmp_path / "run.onnx", trained / "exported.onnx")
    shutil.copy(tmp_path / "run.json", trained / "exported.json")
    fifth = len(CLASSES) * PER_CLASS // 5
    assert export(trained, tmp_path / "again", source="exported.onnx") == 0, "a model file knows no run"
    assert seen[1:] == [len(CLASSES) * PER_CLASS - fifth]
    assert f"evaluated on {fifth} others (folder data, one in 5 of the labelled" in capsys.readouterr().out


def test_nothing_is_written_where_the_data_does_not_fit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = copied(trained, tmp_path)
    (foreign / "data" / "fear").rename(foreign / "data" / "joy")
    assert export(foreign, tmp_path / "out") == 15
    assert "its labels (anger, happiness, joy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def right(count: int, wrong: range) -> np.ndarray:
    answers = np.ones(count, np.bool_)
    answers[list(wrong)] = False
    return answers


@pytest.mark.parametrize(
    ("count", "fp32", "int8", "refused"),
    [
        (360, range(0), range(3), False),  # 0.8 points: three pictures may be chance
        (360, range(0), range(9), True),  # 2.5 points, none gained
        (360, range(9), range(9, 21), False),  # 0.8 points: 9 gained, 12 lost
        (10_000, range(0), range(40), False),  # more than chance, but under half a point
        (10_000, range(0), range(60), True),
        (40, range(5), range(0), False),
    ],
)
def test_int8_is_refused_only_for_a_loss_that_is_more_than_chance(
    count: int, fp32: range, int8: range, refused: bool
) -> None:
    assert engines.quantization.too_lossy(right(count, fp32), right(count, int8)) == refused


@pytest.mark.slow
def test_export_notes_that_a_run_is_unfinished(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    content["training"]["step"] = 1  # as a run leaves it that was stopped there
    torch.save(content, tmp_path / "run" / "last.pt")
    command = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--no-flip", "--limit", "8"]
    assert run_engines(*command) == 0
    printed = capsys.readouterr().err.splitlines()
    assert sum("unfinished, step 1 of 6; resume it with: leaf-rt train --resume" in line for line in printed) == 1
    assert run_engines(*command[:1], trained / "run", *command[2:]) == 0
    assert "unfinished" not in capsys.readouterr().err


OWN = ["--epochs", "1", "--steps", "1", "--sides", "16", "--run.threads", "1", "--data.align", "no"]


def train(root: Path, out: Path, *options: str) -> int:
    """No recipe is named, and the device is a CPU."""
    data = ["--data", str(root / "data"), "--data.cache", str(root / "own"), "--device", "cpu"]
    return train_command(["train", *data, *OWN, "--out", str(out), *options])


@pytest.mark.slow
def test_without_a_gpu_and_a_recipe_the_run_is_of_a_size_for_cpus(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(trained, tmp_path / "run") == 0
    assert "no GPU here: recipe own-cpu, smaller than own" in " ".join(capsys.readouterr().err.split())
    run, whole, cpu = (
        load_recipe(tmp_path / "run" / "recipe.toml").run,
        load_recipe("own").run,
        load_recipe("own-cpu").run,
    )
    assert (run.batch, run.batch_unlabelled) == (cpu.batch, cpu.batch_unlabelled)

    def cost(r: Run) -> int:
        return r.epochs * r.steps * (r.batch + r.batch_unlabelled) * max(r.input_sizes) ** 2

    assert cost(cpu) * 20 < cost(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "unlabelled"),
    [
        (("--method", "leaf"), 8),
        (("--recipe", "own"), 16),
        (("--method", "leaf", "--run.batch_unlabelled", "5"), 5),
    ],
)
def test_the_unlabelled_batch_follows_the_batch(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], unlabelled: int
) -> None:
    assert train(trained, tmp_path / "run", "--batch", "8", "--dry-run", *options) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert f"each step uses 8 labelled and {unlabelled} unlabelled images" in printed
    assert (f"run.batch_unlabelled is {unlabelled}, in the recipe's proportion" in printed) == (unlabelled != 5)


def test_tables_show_every_word_at_80_columns(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "data"
    for name in FERPLUS8:
        shutil.copytree(trained / "data" / "fear", root / name)
    shutil.copytree(trained / "data" / "unlabelled", root / "unlabelled")
    assert train(tmp_path, tmp_path / "run", "--dry-run") == 0
    planned = capsys.readouterr().err
    data = ["--data", str(root), "--data.align", "no", "--data.cache", str(tmp_path / "own")]
    assert train_command(["prepare", *data]) == 0
    for printed, columns in (
        (planned, ("labelled", "unlabelled", "validation")), (capsys.readouterr().err, ("train", "validation", "test"))
    ):  # fmt: skip
        assert all(any(name in line.split() for line in printed.splitlines()) for name in (*columns, "all")), printed
        assert all(any(f" {name} " in line for line in printed.splitlines()) for name in FERPLUS8), printed
    assert evaluate(trained) == 0
    printed = capsys.readouterr().out
    assert all(any(f" {name} " in line for line in printed.splitlines()) for name in CLASSES), printed
    assert "recall" in printed
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
