"""What `train` says of a finished model: beside the bundled model, beside a supervised run, and in the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import comb
from pathlib import Path

import pytest
from engines_fakes import run_engines
from train_fakes import CLASSES, tiny, train_command, write_folder

from train import entry
from train.metrics import chance
from train.recipes.schema import Recipe
from train.reports.comparison import BUNDLED_NAME, SUPERVISED_NAME, Comparison, Rival
from train.results import CropProgress, Progress, TrainResult

VALID, TEST = 4, 3  # pictures per class
USERS = {"anger": "angry", "happiness": "happy", "sadness": "Sad"}


def own(root: Path, **values: object) -> Recipe:
    """Data with a user's class names and a test folder, and a recipe that compares it with the bundled model."""
    write_folder(root / "data", valid=VALID)
    for split in ("train", "valid", "test"):
        for name, other in USERS.items():
            (root / "data" / split / name).rename(root / "data" / split / other)
    return tiny(root, **{"data__side": 64, "run__compare": "bundled", **values})


@pytest.mark.slow
def test_a_finished_run_is_compared_on_the_test_pictures(tmp_path: Path) -> None:
    recipe = own(tmp_path, data__side=20, run__compare="supervised", method__name="leaf")
    result = entry.train(recipe, out=tmp_path / "run")
    assert result.finished
    compared = result.comparison
    assert compared is not None
    assert (compared.pictures, compared.n, compared.missing) == ("test pictures", VALID * len(CLASSES), "")
    assert [rival.name for rival in compared.rivals] == [BUNDLED_NAME, SUPERVISED_NAME]
    measured = entry.evaluate(tmp_path / "run", split="test")
    assert (measured.accuracy, measured.confusion) == (compared.accuracy, compared.confusion)
    other = entry.evaluate(tmp_path / "run" / "supervised", split="test")
    assert other.accuracy == compared.rivals[1].accuracy
    for rival in compared.rivals:
        assert rival.gained - rival.lost == pytest.approx(compared.n * (compared.accuracy - rival.accuracy))
    wrong = compared.n - round(compared.n * compared.accuracy)
    assert len(compared.wrong) == wrong
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + wrong
    for words in (
        f"On {compared.n} test pictures", BUNDLED_NAME, SUPERVISED_NAME, "Confusion matrix of the test pictures",
        "Wrong answers", "Coverage is the share of the unlabelled faces whose pseudo-label the method trusts",
    ):  # fmt: skip
        assert words in page, words
    assert all(picture.name.startswith(f"test/{picture.label}/") for picture in compared.wrong)


@pytest.mark.slow
def test_the_same_model_answers_alike_everywhere(tmp_path: Path) -> None:
    result = entry.train(own(tmp_path, method__name="supervised"), out=tmp_path / "run")
    assert result.accuracy == entry.evaluate(tmp_path / "run").accuracy
    assert "Coverage" not in (tmp_path / "run" / "report.html").read_text()
    assert run_engines("export", tmp_path / "run", "--out", tmp_path / "models") == 0
    model = tmp_path / "models" / "run.onnx"
    data = {"data.cache": str(tmp_path / "cache"), "data.align": "false"}
    exported = entry.evaluate(model, data=tmp_path / "data", overrides=data, backend="onnxruntime")
    assert exported.confusion == entry.evaluate(tmp_path / "run").confusion


def test_new_classes_have_no_comparison_with_the_bundled_model(tmp_path: Path) -> None:
    recipe = own(tmp_path, method__name="supervised")
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / split / "fear").rename(tmp_path / "data" / split / "boredom")
    compared = entry.train(recipe, out=tmp_path / "run").comparison
    assert compared is not None
    assert compared.rivals == ()
    assert compared.sentences()[1] == ("no comparison with the bundled model: it does not know the class boredom")


def test_a_signal_after_the_last_step_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = own(tmp_path, method__name="supervised")
    seen: list[TrainResult] = []
    uses = 0

    @contextmanager
    def crops() -> Iterator[CropProgress]:
        nonlocal uses
        uses += 1
        if uses == 2:  # the first is for the training, the second for the comparison
            raise KeyboardInterrupt
        yield lambda done, total: None

    from leaf_rt.cli import training_output

    shown = training_output.progress(quiet=True)
    progress = Progress(finished=lambda result: (seen.append(result), shown.finished(result))[0], crops=crops)
    result = entry.train(recipe, out=tmp_path / "run", progress=progress)
    assert (result.trained, result.finished, seen) == (True, False, [result])
    assert result.checkpoint.is_file()
    printed = capsys.readouterr().err
    assert f"the trained model is complete and kept in {tmp_path / 'run' / 'last.pt'}" in printed
    assert f"continue with: leaf-rt train --resume {tmp_path / 'run'}" in printed
    assert train_command(["--resume", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert re.search(r"resumes .*run after step 6 of 6", printed)
    assert "the network starts from" not in printed
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_supervised_run_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = own(tmp_path, method__name="supervised")
    entry.train(recipe, out=tmp_path / "run")
    assert train_command(["--resume", str(tmp_path / "run"), "--compare", "supervised", "--quiet"]) == 15
    assert "this run is supervised itself" in capsys.readouterr().err


def test_chance_is_the_exact_two_sided_test() -> None:
    assert chance(0, 0) == 1.0
    assert chance(5, 0) == chance(0, 5) == pytest.approx(2 / 2**5)
    assert chance(3, 9) == pytest.approx(2 * sum(comb(12, k) for k in range(4)) / 2**12)
    assert chance(7, 7) == 1.0
    assert chance(700, 900) < 1e-5


@pytest.mark.parametrize(
    ("gained", "lost", "words", "advice"),
    [
        (40, 10, "the new model is 30.0 points better, more than chance", ""),
        (6, 3, "the new model is 3.0 points better, which may be chance", "for a clear answer put more"),
        (10, 40, "the new model is 30.0 points worse, more than chance", "the bundled model serves you better"),
        (4, 4, "no difference", "for a clear answer put more"),
    ],
)
def test_the_verdict_in_words(gained: int, lost: int, words: str, advice: str) -> None:
    accuracy = 0.5
    rival = Rival(BUNDLED_NAME, accuracy - (gained - lost) / 100, 0.5, gained, lost, chance(gained, lost))
    lines = Comparison("test pictures", 100, accuracy, 0.5, (), (rival,), ()).sentences()
    assert words in lines[1]
    assert (advice in lines[-1]) if advice else len(lines) == 2
