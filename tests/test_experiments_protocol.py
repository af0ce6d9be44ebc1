"""The long protocol: rates by validation, then seeds; runs that others do are left alone; and its packed file."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_experiments import run_experiments, small
from train_fakes import CLASSES

from experiments import packed
from experiments.forms import FORMS, USUAL
from experiments.frozen import Features, FrozenTraining
from experiments.packed import load_packed, pack
from experiments.protocol import (
    Protocol,
    Trial,
    _run_next,
    append,
    best_rate,
    markdown,
    missing,
    run_protocol,
)
from experiments.study import key, read_results
from leaf_rt.errors import DataError, NotFound
from leaf_rt.system.signals import StopSignal
from train.augment.views import Views
from train.data.dataset import Images, load_data
from train.loop.checkpoint import LAST, load, load_model
from train.loop.distributed import DistributedContext
from train.loop.inference import predict
from train.recipes.loading import load_recipe
from train.reports.evaluation import evaluate

RATES = (1e-3, 2e-2)


def study(root: Path, *methods: str, seeds: int = 2, **values: Any) -> Protocol:
    overrides = {k: v for k, v in small(root).items() if k != "split.labels"}
    return Protocol(root / "runs", methods, (20,), seeds, RATES, {**overrides, "run.epochs": 2}, **values)


def test_every_form_is_another_recipe() -> None:
    recipes = {name: repr(load_recipe("study-long", form)) for name, form in FORMS.items()}
    assert len(set(recipes.values())) == len(FORMS)
    assert set(USUAL) <= set(FORMS)
    with pytest.raises(DataError, match="--methods: unknown magic; choose from supervised"):
        Protocol(Path("runs"), ["magic"])


def test_rates_are_chosen_by_validation_and_seeds_follow(tmp_path: Path) -> None:
    protocol = study(tmp_path, "FixMatch", "LEAF entropy")
    assert [t.seed for t in missing(protocol, {})] == [0] * 4
    assert run_protocol(protocol) == 2 * (len(RATES) + 1)
    assert run_protocol(protocol) == 0
    done = read_results(protocol.runs)
    for method in protocol.methods:
        grid = [r for r in done.values() if r["method"] == method and r["seed"] == 0]
        best = max(grid, key=lambda r: statistics.mean(r["validation"].values()))
        assert best_rate(protocol, method, 20, done) == best["rate"]
        (other,) = [r for r in done.values() if r["method"] == method and r["seed"] == 1]
        assert other["rate"] == best["rate"]
        assert [step for step, *_ in other["curve"]] == [2, 4]
        assert other["curve"][-1][1] == other["validation"]["accuracy"]
    page = markdown(protocol)
    row = next(line for line in page.splitlines() if line.startswith("| 20 | LEAF entropy |"))
    pairs = [[r["validation"]["accuracy"] for r in done.values() if r["method"] == m and r["rate"] == best_rate(
        protocol, m, 20, done)] for m in ("LEAF entropy", "FixMatch")]  # fmt: skip
    assert f"{100 * (statistics.mean(pairs[0]) - statistics.mean(pairs[1])):+.2f} ± " in row
    assert "validation split" in page
    assert "- 20 labels, FixMatch: 2: " in page


def test_a_run_of_another_program_is_left_alone(tmp_path: Path) -> None:
    protocol = study(tmp_path, "supervised", seeds=1)
    first, second = missing(protocol, {})
    (protocol.runs / first.folder).mkdir(parents=True)
    with (protocol.runs / first.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _run_next(protocol, StopSignal()) == (True, True)
        assert [r["rate"] for r in read_results(protocol.runs).values()] == [second.rate]
        assert _run_next(protocol, StopSignal()) == (False, True)
    assert run_protocol(protocol) == 1


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    protocol = study(tmp_path, "supervised", seeds=1)
    stop = StopSignal()
    stop.set()
    assert _run_next(protocol, stop) == (False, False)
    first = next(iter(missing(protocol, {})))
    assert load(protocol.runs / first.folder / LAST)["step"] == 1
    assert run_protocol(protocol) == len(RATES)


def test_the_test_split_is_shown_when_all_chosen_runs_have_it(tmp_path: Path, capsys: Any) -> None:
    protocol = study(tmp_path, "supervised", seeds=1)
    run_protocol(protocol)
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in protocol.overrides.items()]
    arguments = ["protocol", "--methods", "supervised", "--budgets", "20", "--seeds", "1", "--rates", "1e-3,2e-2",
                 "--runs", str(protocol.runs), *options]  # fmt: skip
    assert run_experiments(*arguments, "--test") == 0
    assert "test split" in capsys.readouterr().out
    assert run_experiments(*arguments, "--show") == 0
    assert capsys.readouterr().out == markdown(protocol)
    rate = best_rate(protocol, "supervised", 20, read_results(protocol.runs))
    assert rate is not None
    record = read_results(protocol.runs)[key(protocol.recipe(Trial("supervised", 20, rate, 0)))]
    append(protocol.runs, {**record, "test": {"accuracy": 0.125, "balanced_accuracy": 0.25}})
    assert run_experiments(*arguments, "--test") == 0, "what is measured is kept"
    assert "| 12.50 | 25.00 |" in capsys.readouterr().out


def test_runs_are_measured_on_images_of_another_source(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = CLASSES[:3]
    monkeypatch.setattr("experiments.protocol.OTHERS", common)
    protocol = study(tmp_path, "supervised", seeds=1)
    run_protocol(protocol)
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in protocol.overrides.items()]
    arguments = ["protocol", "--methods", "supervised", "--budgets", "20", "--seeds", "1", "--rates", "1e-3,2e-2",
                 "--runs", str(protocol.runs), *options]  # fmt: skip
    rng = np.random.default_rng(0)
    rows = ["path,label"]
    for n, label in enumerate([*CLASSES, *CLASSES[:3]]):
        assert cv2.imwrite(str(tmp_path / f"{n}.png"), rng.integers(0, 256, (48, 48), np.uint8))
        rows.append(f"{n}.png,{label}")
    others = tmp_path / "others.csv"
    others.write_text("\n".join(rows[:3]), encoding="utf-8")
    assert run_experiments(*arguments, "--others", str(others)) == DataError.exit_code
    assert f"wanted images of {', '.join(common)}" in capsys.readouterr().err
    others.write_text("\n".join(rows), encoding="utf-8")
    assert run_experiments(*arguments, "--others", str(others)) == 0
    assert f"other images, balanced over {common[0]}" in capsys.readouterr().out
    (record,) = [r for r in read_results(protocol.runs).values() if "others" in r]
    trial = Trial("supervised", 20, record["rate"], 0)
    source = load_recipe(None, {"data.path": str(others), "data.layout": "list"})
    result = evaluate(protocol.runs / trial.folder / LAST, source, "all")
    assert record["others"]["accuracy"] == result.accuracy
    assert record["others"]["balanced_accuracy"] == pytest.approx(
        statistics.mean(result.recall[label] or 0 for label in common)
    )


def test_the_packed_file_holds_the_same_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "start.pt"
    weights.write_bytes(b"weights")
    recipe = load_recipe("study-long", {**small(tmp_path), "run.input_sizes": [20], "model.weights": str(weights)})
    found = pack(recipe, tmp_path / "study.zip", training=70, validation=15)
    assert found == {"training": 70, "validation": 15, "bytes": (tmp_path / "study.zip").stat().st_size}
    loaded, whole = load_packed(tmp_path / "study.zip", recipe.split), load_data(recipe.data, recipe.split)
    assert loaded.labels == whole.labels == CLASSES
    assert [len(part) for part in (loaded.labelled, loaded.unlabelled, loaded.validation)] == [20, 50, 15]
    assert np.bincount(loaded.labelled.label).tolist() == [4] * 5
    originals = {image.tobytes() for image in np.asarray(whole.images)}
    for part in (loaded.labelled, loaded.unlabelled, loaded.validation):
        assert all(loaded.images[row].tobytes() in originals for row in part.row.tolist())
    where = {image.tobytes(): row for row, image in enumerate(np.asarray(whole.images))}
    known = dict(zip(whole.validation.row.tolist(), whole.validation.label.tolist(), strict=True))
    for row, label in zip(loaded.validation.row.tolist(), loaded.validation.label.tolist(), strict=True):
        assert known[where[loaded.images[row].tobytes()]] == label
    assert packed.unpack_weights(tmp_path / "study.zip", tmp_path / "runs") == str(tmp_path / "runs" / "weights.pt")
    assert (tmp_path / "runs" / "weights.pt").read_bytes() == b"weights"
    monkeypatch.setattr(packed, "LIMIT", 1000)
    with pytest.raises(DataError, match=r"study.zip: would have 0.0 MB, more than 0; pack fewer --pictures"):
        pack(recipe, tmp_path / "study.zip")
    with pytest.raises(NotFound, match=r"--packed .*none.zip: no such file; make it with python -m experiments pack"):
        load_packed(tmp_path / "none.zip", recipe.split)
    with pytest.raises(DataError, match="is no packed file"):
        load_packed(weights, recipe.split)


def test_a_damaged_packed_file_is_one_clear_error(tmp_path: Path) -> None:
    recipe = load_recipe("study-long", {**small(tmp_path), "run.input_sizes": [20]})
    pack(recipe, tmp_path / "study.zip", training=70, validation=15)
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    labels = json.loads(whole["labels.json"])
    for changes in (
        {"images.npy": None}, {"images.npy": b""}, {"images.npy": whole["label.npy"]}, {"labels.json": b"["},
        {"labels.json": b"1"}, {"labels.json": b"[1, 2]"}, {"labels.json": json.dumps(labels[:-1]).encode()},
        {"label.npy": whole["validation_label.npy"]}, {"validation_label.npy": whole["images.npy"]},
    ):  # fmt: skip
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            for name, data in (whole | changes).items():
                if data is not None:
                    archive.writestr(name, data)
        with pytest.raises(DataError, match=r"bad\.zip: is no packed file \("):
            load_packed(tmp_path / "bad.zip", recipe.split)


@pytest.mark.slow
def test_late_layers_are_trained_on_stored_outputs_of_the_early_ones(tmp_path: Path, capsys: Any) -> None:
    overrides = {**small(tmp_path), "model.backbone": "mobilefacenet", "run.input_sizes": [32], "run.epochs": 1}
    packed_file, stored = tmp_path / "study.zip", tmp_path / "features.pt"
    pack(load_recipe("study-long", overrides), packed_file, training=40, validation=6)
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in overrides.items()]
    assert run_experiments("freeze", "--packed", str(packed_file), "--out", str(stored), *options) == 0
    assert json.loads(capsys.readouterr().out)["training"] == 40
    features = Features(stored)
    values = {k: v for k, v in overrides.items() if k != "split.labels"}
    protocol = Protocol(tmp_path / "runs", ["LEAF entropy"], (20,), 1, (1e-2,), values, packed_file, features)
    assert run_protocol(protocol) == 1
    trial = Trial("LEAF entropy", 20, 1e-2, 0)
    model, _ = load_model(protocol.runs / trial.folder)
    changed = {name for name, value in model.encoder.state_dict().items() if not value.equal(features.encoder[name])}
    assert {name.split(".")[0] for name in changed} == {"features", "conv2"}
    assert {int(name.split(".")[1]) for name in changed if name.startswith("features")} == {12, 13, 14}
    # The checkpoint is an ordinary one: on the faces it answers as on the stored features.
    recipe = protocol.recipe(trial)
    data = protocol.data(recipe)
    training = FrozenTraining(recipe, data, DistributedContext(0, 1, torch.device("cpu")), tmp_path / "again", features)
    training.state.ema.load_state_dict(model.state_dict())
    images = Images(data.images, torch.device("cpu"))
    views = Views(recipe.augment, torch.device("cpu"))
    whole = predict(model, images, data.validation.row, 32, views, "off", flip=True)
    np.testing.assert_allclose(training.predict(data.validation.row, 32, flip=True), whole, atol=0.01)

    other = tmp_path / "other.zip"
    pack(load_recipe("study-long", overrides), other, training=39, validation=6)
    with pytest.raises(DataError, match="made from another packed file than --packed names"):
        Protocol(tmp_path / "runs", ["LEAF entropy"], packed=other, features=features)
    with pytest.raises(DataError, match="is no file of python -m experiments freeze"):
        Features(packed_file)
    with pytest.raises(NotFound, match="make it with python -m experiments freeze"):
        Features(tmp_path / "none.pt")


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_a_packed_study_side_by_side(tmp_path: Path) -> None:
    overrides = {**small(tmp_path), "run.epochs": 1}
    pack(load_recipe("study-long", overrides), tmp_path / "study.zip")
    others = ("data.", "split.", "model.weights", "run.batch", "run.threads")
    own = {k: v for k, v in overrides.items() if not k.startswith(others)}
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in own.items()]
    done = subprocess.run(
        ["bash", "experiments/grid_cuda.sh", str(tmp_path / "runs"), "--methods", "FixMatch,LEAF class",
         "--budgets", "20", "--rates", "1e-3,2e-2", "--seeds", "2", *options],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=900, check=True,
        env={**os.environ, "DEVICE": "cpu", "PACKED": str(tmp_path / "study.zip"), "JOBS": "2",
             "PYTHON": sys.executable},
    )  # fmt: skip
    assert "| 20 | LEAF class |" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "runs" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == 2 * (2 + 1), "each run is done once"
