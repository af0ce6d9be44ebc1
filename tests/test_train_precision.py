"""``run.amp auto``: the quicker precision is taken, named with its reason, and kept by the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_fakes import tiny, write_folder

from train import entry
from train.loop.distributed import DistributedContext
from train.loop.inference import autocast
from train.loop.precision import resolve_amp, step_seconds
from train.recipes.loading import load_recipe, recipe_names
from train.reports.evaluation import evaluate

ALONE = DistributedContext(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("name", [None, *recipe_names()])
def test_auto_is_the_default_of_every_recipe(name: str | None) -> None:
    assert load_recipe(name).run.amp == "auto"


@pytest.mark.parametrize(
    ("fp32", "bf16", "amp", "words"),
    [
        (
            0.5,
            0.25,
            "bf16",
            "run.amp auto: bf16, because a step of few pictures takes 0.5 s in fp32 and 0.25 s in bf16",
        ),
        (
            0.5,
            6.5,
            "off",
            "run.amp auto: off (fp32), because a step of few pictures takes 0.5 s in fp32 and 6.5 s",
        ),
        (0.5, 0.49, "off", "run.amp auto: off (fp32)"),
    ],
)
def test_the_quicker_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, amp: str, words: str
) -> None:
    monkeypatch.setattr("train.loop.precision.step_seconds", lambda recipe, device: (fp32, bf16))
    recipe, note = resolve_amp(tiny(tmp_path, run__amp="auto"), ALONE)
    assert recipe == tiny(tmp_path, run__amp=amp)
    assert note.startswith(words)


def test_a_chosen_precision_is_kept(tmp_path: Path) -> None:
    for amp in ("off", "bf16", "fp16"):
        assert resolve_amp(tiny(tmp_path, run__amp=amp), ALONE) == (tiny(tmp_path, run__amp=amp), "")


@pytest.mark.parametrize(("capability", "amp"), [((7, 5), "off"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_takes_bf16_from_ampere_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], amp: str
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    recipe, note = resolve_amp(tiny(tmp_path, run__amp="auto"), DistributedContext(0, 1, torch.device("cuda", 0)))
    assert recipe.run.amp == amp
    assert f"compute capability {capability[0]}.{capability[1]} has" in note


@pytest.mark.parametrize("values", [{}, {"run__channels_last": True, "run__batch": 1}])
def test_a_real_step_is_measured(tmp_path: Path, values: dict[str, object]) -> None:
    assert min(step_seconds(tiny(tmp_path, **values), ALONE.device)) > 0


def test_a_run_says_and_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data")
    recipe = tiny(tmp_path, run__amp="auto", run__epochs=1, run__steps=1)
    trained = entry.train(recipe, out=tmp_path / "run")
    (note,) = [note for note in trained.notes if note.startswith("run.amp auto: ")]
    kept = load_recipe(tmp_path / "run" / "recipe.toml").run.amp
    assert kept in ("off", "bf16")
    assert f"run.amp auto: {kept}" in note
    monkeypatch.setattr("train.loop.precision.step_seconds", None)  # a resumed run measures nothing
    assert entry.train(resume=tmp_path / "run").finished
    # A recipe that measured nothing gives the same answers on every machine.
    assert evaluate(tmp_path / "run", recipe, "validation").details["amp"] == "off"


def test_auto_itself_is_no_precision() -> None:
    with pytest.raises(ValueError, match="amp: wanted 'off', 'bf16' or 'fp16', got 'auto'"):
        autocast(torch.device("cpu"), "auto")
