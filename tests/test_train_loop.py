"""The training loop: every method learns, and resuming and accumulating do not change the result."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from train_fakes import tiny, train_command, write_folder

from leaf_rt.errors import DataError, ModelError
from leaf_rt.system.signals import StopSignal
from train.data.dataset import TrainingData, load_data
from train.loop.checkpoint import load
from train.loop.distributed import DistributedContext
from train.loop.optimizer import ema_decay, learning_rate
from train.loop.run_log import Reporter, read_log
from train.loop.training import Training
from train.metrics import measure
from train.recipes.loading import to_toml
from train.recipes.schema import Optim, Recipe
from train.reports.run_report import write_report

HERE = Path(__file__).parent
ALONE = DistributedContext(0, 1, torch.device("cpu"))
METHODS = {
    "supervised": {"method__name": "supervised"},
    "fixmatch": {"method__name": "fixmatch"},
    "freematch": {"method__name": "freematch"},
    "adacm": {"method__name": "adacm"},
    "paper": {"method__name": "leaf"},
    "official": {"method__name": "leaf", "method__mode": "official", "optim__shrink": 0.02},
    "levels on fixmatch": {"method__name": "fixmatch", "method__levels": ["semantic", "instance", "category"],
                           "method__unsupervised": "both"},
    "levels on freematch": {"method__name": "freematch", "method__levels": ["semantic", "category"],
                            "method__unsupervised": "masked"},
    "levels on adacm": {"method__name": "adacm", "method__levels": ["instance", "category"],
                        "method__unsupervised": "both", "method__control": True},
    "ramp and consistency": {"method__ramp": "class", "method__lambda_c": 0.5, "method__lambda_s": 0.0,
                             "method__noise_steps": 6},
    "running share": {"method__ramp": "share", "method__p_cutoff": 0.21},
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    return tmp_path


def prepared(recipe: Recipe) -> TrainingData:
    torch.set_num_threads(1)
    return load_data(recipe.data, recipe.split)


def fit(recipe: Recipe, out: Path, *, resume: bool = False, stop_after: int = 0) -> Training:
    """Train without a live table. ``stop_after`` stops after that many steps, as a signal would."""
    recipe = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, log_every=1))
    training = Training(recipe, prepared(recipe), ALONE, out, resumed=resume)
    if resume:
        training.restore()
    with Reporter(out, training.data.labels, recipe.run.batch, tensorboard=False) as reporter:
        stop = StopSignal()
        if stop_after:
            step = training.train_step

            def counted(side: int) -> tuple[dict[str, Tensor], float]:
                if training.state.step + 1 >= stop_after:
                    stop.set()
                return step(side)

            training.train_step = counted  # type: ignore[method-assign]
        training.fit(reporter, stop)
    return training


def tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors and numbers of a nested state, by path."""
    if isinstance(state, Tensor):
        return {prefix: state}
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in tensors(part, f"{prefix}/{key}").items()}
    if isinstance(state, list):
        return {k: v for i, part in enumerate(state) for k, v in tensors(part, f"{prefix}/{i}").items()}
    if isinstance(state, int | float):
        return {prefix: torch.tensor(state, dtype=torch.float64)}
    return {}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_resumes_bit_for_bit(root: Path, name: str) -> None:
    recipe = tiny(root, run__epochs=2, run__steps=4, model__dropout=0.3, augment__mixup=0.5, **METHODS[name])
    fit(recipe, root / "whole")
    fit(recipe, root / "broken", stop_after=3)  # in the middle of the first epoch
    assert load(root / "broken" / "last.pt")["step"] == 3
    fit(recipe, root / "broken", resume=True)
    whole, broken = (tensors(load(root / n / "last.pt")) for n in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    different = [k for k in whole if not torch.equal(whole[k], broken[k])]
    assert different == []
    steps = [r for r in read_log(root / "whole") if r["event"] == "step"]
    assert len(steps) == 8
    assert all(np.isfinite(v) for r in steps for k, v in r.items() if k.startswith("loss"))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_unlabelled_images_are_used_from_the_start_step_on(root: Path, name: str) -> None:
    fit(tiny(root, run__epochs=1, run__steps=3, method__delay=2, **METHODS[name]), root / "late")
    steps = [r for r in read_log(root / "late") if r["event"] == "step"]
    assert ["loss_u" in r for r in steps] == [False, False, True]
    assert all(np.isfinite(r["loss"]) for r in steps)


@pytest.mark.slow
def test_leaf_learns_an_easy_task(root: Path) -> None:
    recipe = tiny(root, run__epochs=8, run__steps=25, run__input_sizes=[20], optim__lr=1e-2, optim__ema_decay=0.9,
                  split__labels=40, model__dropout=0.0)  # fmt: skip
    training = fit(recipe, root / "run")
    assert training.state.metrics["accuracy"] >= 0.75
    thresholds = training.state.threshold.thresholds
    assert (thresholds >= 0.8).all()
    assert (thresholds < 1).all()
    last = read_log(root / "run")[-1]
    assert last["event"] == "epoch"
    assert np.allclose(np.sum(last["expert_load"], 1), 1, atol=1e-5)


def test_accumulated_micro_batches_equal_one_batch(root: Path) -> None:
    """For a loss that is a mean over labelled images, without dropout and noise."""
    one = fit(tiny(root, method__name="supervised", model__dropout=0.0, run__epochs=1), root / "one")
    recipe = tiny(root, method__name="supervised", model__dropout=0.0, run__epochs=1, optim__accumulate=2)
    # The random numbers differ between micro-batches, so the images are used without augmentation.
    for training in (one, Training(recipe, one.data, ALONE, root / "two")):
        training.views.labelled = lambda crops, u, side: crops.float() / 255  # type: ignore[method-assign]
        training.state.step = 0
        training.state.student.load_state_dict(torch.load(root / "one" / "last.pt", weights_only=True)["student"])
        training.state.optimizer = torch.optim.SGD(
            [{"params": training.state.student.parameters(), "multiple": 1.0}], lr=0.1
        )
        training.train_step(16)
        if training is one:
            expected = {k: v.clone() for k, v in one.state.student.state_dict().items()}
        else:
            for k, v in training.state.student.state_dict().items():
                torch.testing.assert_close(v, expected[k], atol=1e-6, rtol=1e-5)


def test_selection_uses_the_validation_split_only(root: Path) -> None:
    recipe = tiny(root, run__select="validation", run__epochs=3, optim__lr=5e-3, method__name="supervised")
    fit(recipe, root / "run")
    records = [r for r in read_log(root / "run") if r["event"] == "epoch"]
    best = max(r["validation"]["accuracy"] for r in records)
    assert load(root / "run" / "best.pt")["metrics"]["accuracy"] == best
    assert all(r["validation"]["n"] == 20 for r in records)


def steps_of(recipe: Recipe, here: DistributedContext) -> list[Any]:
    """Terms, weights (at most 5,000 of each tensor) and thresholds after three steps, as plain values."""
    training = Training(recipe, prepared(recipe), here, Path())
    terms = []
    for _ in range(3):
        terms.append({name: float(value) for name, value in training.train_step(16)[0].items()})
        training.state.step += 1
    state = {k: v.double().flatten()[:5000].tolist() for k, v in training.state.student.state_dict().items()}
    return [terms, state, training.state.threshold.thresholds.tolist()]


def test_reports_describe_the_selected_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.75, 0.25])
    monkeypatch.setattr("train.loop.training.measure", lambda *args: {**measure(*args), "accuracy": next(accuracies)})
    recipe = tiny(root, run__select="validation", run__epochs=3, method__name="supervised")
    fit(recipe, root / "run")
    assert load(root / "run" / "last.pt")["metrics"]["epoch"] == 3
    assert load(root / "run" / "best.pt")["metrics"]["epoch"] == 2
    assert json.loads((root / "run" / "meta.json").read_text())["metrics"]["epoch"] == 2
    (root / "run" / "meta.json").write_text("{")  # the report needs none
    assert "75.00 % of 20" in write_report(root / "run").read_text()


def test_the_best_checkpoint_is_written_before_the_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr("train.loop.checkpoint.write_whole", lambda path, write, parents: written.append(path.name))
    fit(tiny(root, run__select="validation", run__epochs=1, method__name="supervised"), root / "run")
    assert [name for name in written if name.endswith(".pt")] == ["best.pt", "last.pt"]


def test_a_diverged_run_is_an_error_and_keeps_its_last_good_checkpoint(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(root, run__epochs=3, optim__name="sgd", optim__clip=0.0, method__name="supervised")
    fit(recipe, root / "run", stop_after=3)
    (root / "run" / "recipe.toml").write_text(to_toml(dataclasses.replace(recipe, optim=Optim(name="sgd", lr=1e30))))
    before = (root / "run" / "last.pt").read_bytes()
    assert train_command(["--resume", str(root / "run"), "--quiet"]) == DataError.exit_code
    assert "lower --optim.lr, which is 1e+30, in a new run; " in capsys.readouterr().err
    assert (root / "run" / "last.pt").read_bytes() == before
    assert not (root / "run" / "report.html").exists()
    assert "NaN" not in (root / "run" / "log.jsonl").read_text()


def test_a_diverged_model_is_neither_saved_nor_measured(root: Path) -> None:
    training = Training(tiny(root), prepared(tiny(root)), ALONE, root / "run")
    with torch.no_grad():
        training.state.ema.classifier.weight[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"the weights after step 0 are not finite: lower --optim.lr"):
        training.save()
    with pytest.raises(ModelError, match="probabilities are not finite"):
        training.predict(training.data.validation.row, 16)
    assert not (root / "run").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_and_sigterm_saves(root: Path) -> None:
    recipe = tiny(root, run__epochs=2, run__steps=40, run__log_every=1, run__checkpoint_steps=7)
    fit(recipe, root / "whole")
    (root / "recipe.toml").write_text(to_toml(recipe))
    run, log = root / "run", root / "run" / "log.jsonl"

    def interrupted(options: list[str], lines: int, number: signal.Signals) -> tuple[int, str]:
        command = [sys.executable, "-m", "train", *options, "--quiet"]
        process = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not (log.is_file() and log.read_text().count('"step", ') >= lines):
            time.sleep(0.02)
        process.send_signal(number)
        _, words = process.communicate(timeout=300)
        return process.returncode, words

    start = ["--recipe", str(root / "recipe.toml"), "--out", str(run)]
    code, words = interrupted(start, 9, signal.SIGKILL)
    assert code == -signal.SIGKILL, words
    killed_at = load(run / "last.pt")["step"]
    assert killed_at % 7 == 0
    code, words = interrupted(["--resume", str(run)], log.read_text().count('"step", ') + 2, signal.SIGTERM)
    assert code == 130, words
    assert "continue with: leaf-rt train --resume" in words
    assert killed_at < load(run / "last.pt")["step"] < 80
    assert train_command(["--resume", str(run), "--quiet"]) == 0
    whole, resumed = (tensors(load(folder / "last.pt")) for folder in (root / "whole", run))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert (run / "report.html").is_file()
    assert not list(run.glob(".*.part"))


def test_data_that_does_not_fit_the_recipe_is_an_error(root: Path) -> None:
    recipe = tiny(root)
    data = prepared(recipe)
    with pytest.raises(DataError, match=r"run.batch: wanted a multiple of processes x accumulate, got 8"):
        Training(recipe, data, DistributedContext(0, 3, torch.device("cpu")), root)
    none = dataclasses.replace(data, unlabelled=data.labelled.__class__(*(a[:0] for a in (
        data.labelled.row, data.labelled.targets, data.labelled.label))))  # fmt: skip
    with pytest.raises(DataError, match="there is no unlabelled image"):
        Training(recipe, none, ALONE, root)
    unseen = dataclasses.replace(data, validation=none.unlabelled)
    with pytest.raises(DataError, match=r"run.select validation: there is no validation image"):
        Training(tiny(root, run__select="validation"), unseen, ALONE, root)


def test_images_repeat_in_a_batch_larger_than_the_data(root: Path) -> None:
    recipe = tiny(root, split__labels=5, run__batch=16)
    training = Training(recipe, prepared(recipe), ALONE, root / "run")
    assert training.train_step(16)[0]["loss"].isfinite()


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_stays_finite(root: Path, amp: str) -> None:
    training = Training(tiny(root, run__amp=amp, run__channels_last=True), prepared(tiny(root)), ALONE, root / "run")
    for _ in range(3):
        assert training.train_step(16)[0]["loss"].isfinite()
        training.state.step += 1
    assert all(torch.isfinite(p).all() for p in training.state.student.parameters())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile builds with g++, which is not installed")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own call
def test_a_compiled_step_is_the_same_step(root: Path) -> None:
    plain, compiled = (
        steps_of(tiny(root, run__compile=on, method__noise=False, model__dropout=0.0, optim__name="sgd"), ALONE)
        for on in (False, True)
    )
    assert plain[0][-1]["loss"] == pytest.approx(compiled[0][-1]["loss"], abs=1e-4)
    for key, value in plain[1].items():
        np.testing.assert_allclose(value, compiled[1][key], atol=1e-4, err_msg=key)


def test_schedules() -> None:
    options = Optim(lr=1.0, schedule="cosine", warmup=10)
    rates = [learning_rate(s, 100, options) for s in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == pytest.approx(rates[9], abs=0.05)
    assert rates[-1] < 0.001
    assert learning_rate(50, 100, Optim(lr=1.0)) == 1.0
    assert ema_decay(0, Optim(ema_ramp=True)) == pytest.approx(0.1)
    assert ema_decay(10**6, Optim(ema_ramp=True)) == 0.999


def test_official_mode_averages_buffers_and_shrinks(root: Path) -> None:
    recipe = tiny(root, method__mode="official", optim__shrink=0.5, optim__lr=0.1, optim__ema_decay=0.5,
                  model__backbone="resnet18", data__side=32, run__input_sizes=[32],
                  data__cache=str(root / "c32"))  # fmt: skip
    training = Training(recipe, prepared(recipe), ALONE, root / "run")
    before = training.state.ema.encoder.bn1.running_var.clone()  # type: ignore[union-attr, operator]
    training.train_step(32)
    student = training.state.student.encoder.bn1.running_var / (1 - 0.5 * 0.1)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(training.state.ema.encoder.bn1.running_var, (before + student) / 2)  # type: ignore[union-attr]
