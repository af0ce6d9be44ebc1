"""The one description of the recipe options, and the command line that is made from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from train_fakes import tiny, write_folder

import train
from leaf_rt.errors import DataError
from train.recipes.loading import load_recipe, resolve, to_toml
from train.recipes.options import Option
from train.recipes.schema import ALIASES, OPTIONS, options_markdown

if TYPE_CHECKING:
    from commands import Leaf

HEADLESS = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HEADLESS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_described(option: Option) -> None:
    assert option.help[0].isupper() or option.help.startswith(option.choices or "-")
    assert option.help.endswith(".")
    assert option.type in (bool, int, float, str)
    if option.choices:
        defaults = option.default if option.many else (option.default,)
        assert set(defaults) <= set(option.choices)
    assert option.convert(option.default, "here") == option.default
    option.check_range(option.default)
    assert f"`{option.key}`" in options_markdown()


def test_short_names_are_unique() -> None:
    names = [option.short for option in OPTIONS.values() if option.short]
    names += [old for option in OPTIONS.values() for old in option.old]
    assert len(names) == len(set(names))
    assert not set(names) & set(OPTIONS)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("method.control", "method.mlp_baseline", True),
        ("method.floor", "method.min_confidence", 0.25),
        ("method.delay", "method.unsupervised_start_step", 7),
        ("run.before", "run.init_from", "x.pt"),
        ("run.sides", "run.input_sizes", [48]),
    ],
)
def test_old_names_set_the_same_option(tmp_path: Path, old: str, new: str, value: object) -> None:
    assert ALIASES[old] == new
    assert resolve({old: value}) == resolve({new: value}) != resolve({})
    file = tmp_path / "old.toml"
    file.write_text(
        to_toml(resolve({new: value})).replace(f"\n{new.partition('.')[2]} =", f"\n{old.partition('.')[2]} =")
    )
    assert old.partition(".")[2] in file.read_text()
    assert load_recipe(file) == resolve({new: value})
    assert load_recipe(file, {new: value}) == load_recipe(file, {old: value}) == resolve({new: value})
    with pytest.raises(DataError, match=f"{old} is the old name of {new}"):
        resolve({old: value, new: value})


def test_help_shows_every_option_and_no_old_name(leaf: Leaf, plain: None) -> None:
    text = leaf("train", "--help").out
    for option in OPTIONS.values():
        assert f"--{option.key} " in text
        assert not option.short or f"--{option.short} " in text
        assert not any(f"--{old} " in text for old in option.old)
    assert text.index("--epochs ") < text.index("--data.path ")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("command", [("evaluate",), ("train", "evaluate")])
def test_a_wrong_option_is_reported_for_the_command(leaf: Leaf, command: tuple[str, ...]) -> None:
    done = leaf(*command, "--wrong")
    assert done.code == 2
    assert "Usage: leaf-rt evaluate" in done.err
    assert "--wrong" in done.err


def test_names_old_and_short_work_on_the_command_line(leaf: Leaf, tmp_path: Path) -> None:
    for option in ("--sides", "--run.sides", "--input-sizes", "--run.input_sizes"):
        assert "run.input_sizes: wanted a number from 8 to 4096, got 3" in leaf("train", option, "3").sentence()
    done = leaf("train", "--epochs", "3", "--run.epochs", "4")
    assert (done.code, "given twice" in done.err) == (2, True)


def test_choices_are_completed(leaf: Leaf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LEAF_RT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "leaf-rt train --method f")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert leaf().out.split() == ["fixmatch", "freematch"]
    monkeypatch.setenv("_LEAF_RT_COMPLETE", "source_bash")
    assert "complete -o default -F" in leaf().out


def test_training_without_its_extra_is_one_sentence(
    leaf: Leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "train.entry", raising=False)
    monkeypatch.delattr(train, "entry", raising=False)
    done = leaf("train", "--data", tmp_path)
    assert done.code == 10
    assert "training needs torch" in done.err
    assert 'pip install ".[train]"' in done.err
    assert len(done.err.splitlines()) == 1


def test_functions_return_results_and_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from train import entry

    write_folder(tmp_path / "data")
    recipe = tiny(tmp_path, run__epochs=1)
    plan = entry.plan(recipe, out=tmp_path / "run")
    assert (plan.epochs, plan.batch, plan.input_size, sum(plan.counts["labelled"])) == (1, 8, 16, 20)
    assert not (tmp_path / "run").exists()
    trained = entry.train(recipe, out=tmp_path / "run", overrides={"run.steps": 1})
    assert trained.finished
    assert trained.checkpoint == tmp_path / "run" / "last.pt"
    assert trained.report is not None
    assert trained.report.is_file()
    assert sum(map(sum, trained.confusion)) == 20
    measured = entry.evaluate(tmp_path / "run")
    assert (measured.accuracy, measured.confusion) == (trained.accuracy, trained.confusion)
    assert measured.labels == trained.labels
    prepared = entry.prepare(recipe, out=tmp_path / "crops")
    assert {name: sum(counts) for name, counts in prepared.counts.items()} == {
        "train": 80,
        "validation": 20,
        "test": 20,
    }
    assert (prepared.aligned, prepared.whole, prepared.unreadable) == (0, 120, ())
    assert capfd.readouterr() == ("", "")
