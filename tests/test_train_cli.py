"""The command line from recipe to report."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from train_fakes import CLASSES, tiny, train_command, write_folder

from leaf_rt.errors import DataError, LeafError, NotFound
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import DEFAULT_MODEL
from train.loop.checkpoint import load_model
from train.metrics import measure
from train.recipes.loading import load_recipe, recipe_names, resolve, to_dict, to_toml
from train.recipes.schema import OPTIONS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    (tmp_path / "small.toml").write_text(to_toml(tiny(tmp_path)))
    return tmp_path


def train(root: Path, *options: str) -> int:
    return train_command(["train", "--recipe", str(root / "small.toml"), "--quiet", *options])


def test_train_report_evaluate(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(root, "--out", str(root / "run"), "--method", "fixmatch") == 0
    for name in ("last.pt", "meta.json", "recipe.toml", "split.json", "log.jsonl", "curves.png", "confusion.png"):
        assert (root / "run" / name).is_file(), name
    page = (root / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert list((root / "run" / "tensorboard").iterdir())
    assert load_recipe(root / "run" / "recipe.toml").method.name == "fixmatch"
    capsys.readouterr()
    assert train_command(["evaluate", str(root / "run"), "--split", "test", "--json", "-", "--flip"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == 20
    assert np.sum(result["confusion"]) == 20
    assert set(result["recall"]) == set(CLASSES)
    assert train_command(["evaluate", str(root / "run")]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_after_another_starts_from_its_model(root: Path) -> None:
    first = tiny(root, run__epochs=3, run__stop=2, method__name="supervised")
    (root / "first.toml").write_text(to_toml(first))
    second = tiny(
        root, run__init_from=str(root / "first.toml"), run__epochs=1, optim__lr=0.0, method__name="supervised"
    )
    (root / "small.toml").write_text(to_toml(second))
    assert train(root, "--out", str(root / "run")) == 0
    first_model, end = (load_model(root / "run" / name)[0].state_dict() for name in ("before", "."))
    assert json.loads((root / "run" / "before" / "meta.json").read_text())["training"]["epochs_done"] == 2
    assert all((first_model[k] == end[k]).all() for k in first_model)
    checkpoint = root / "run" / "before" / "last.pt"
    assert str(root) not in (root / "run" / "meta.json").read_text(), "a model contains no path of this machine"
    assert train(root, "--out", str(root / "third"), "--run.init_from", str(checkpoint)) == 0
    assert not (root / "third" / "before").exists()
    again = load_model(root / "third")[0].state_dict()
    assert all((first_model[k] == again[k]).all() for k in first_model)


@pytest.mark.slow
def test_a_run_resumes_without_its_initial_files(root: Path) -> None:
    assert train(root, "--out", str(root / "first")) == 0
    start = (root / "first" / "last.pt").rename(root / "X.pt")
    (root / "small.toml").write_text(to_toml(tiny(root, run__init_from=str(start), run__checkpoint_steps=1)))
    assert train(root, "--out", str(root / "run")) == 0
    whole = load_model(root / "run")[0].state_dict()
    start.unlink()
    assert train_command(["--resume", str(root / "run"), "--quiet"]) == 0
    resumed = load_model(root / "run")[0].state_dict()
    assert all((whole[k] == resumed[k]).all() for k in whole)


@pytest.mark.parametrize("option", ["--run.init_from", "--weights"])
def test_a_missing_start_is_noticed_before_the_data_is_loaded(
    root: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    options = ["--out", str(root / "run"), option, str(root / "X.pt")]
    for more in ([], ["--dry-run"]):
        assert train(root, *options, *more, "--data", "nowhere") == 3
        assert "X.pt: no such file" in capsys.readouterr().err
    assert not (root / "run").exists()


@pytest.mark.slow
def test_torchrun_trains_like_one_process(root: Path) -> None:
    recipe = tiny(root, method__noise=False, model__dropout=0.0, optim__name="sgd", optim__lr=0.05)
    (root / "small.toml").write_text(to_toml(recipe))
    assert train(root, "--out", str(root / "one")) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    options = ["train", "--recipe", str(root / "small.toml"), "--quiet", "--out", str(root / "two")]
    run = subprocess.run(
        [*torchrun, *options], cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (root / "two" / "report.html").is_file()
    one, two = (load_model(root / name)[0].state_dict() for name in ("one", "two"))
    for key, value in one.items():
        np.testing.assert_allclose(value, two[key], atol=1e-4, err_msg=key)


def test_dry_run_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.iterdir())
    assert train_command(["--recipe", str(root / "small.toml"), "--out", str(root / "run"), "--dry-run"]) == 0
    words = " ".join(capsys.readouterr().err.split())
    for part in ("parameters: all", "semantic", "s per step at 16 px", "GiB per process", "labelled", "split"):
        assert part in words, part
    assert sorted(set(root.iterdir()) - {root / "cache"}) == before


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--data", "nowhere"], "--data nowhere: no such file or folder", 3),
        (["--labels", "1000"], "1000 labels wanted, but the data has 60 labelled training images", 15),
        (["--method", "magic"], "method.name: wanted one of supervised", 15),
        (["--optim.lr", "fast"], "optim.lr: wanted float, got 'fast'", 15),
        (["--run.input_sizes", "16,20,24"], "run.input_sizes: wanted 1 size or 2, one per epoch, got 3", 15),
        (["--weights", "none.pt"], "model.weights none.pt: no such file", 3),
        (["--resume", "nowhere"], "--resume continues a run in its own folder with its own recipe", 15),
        (["--recipe", "none"], "there are", 3),
    ],
)
def test_errors_are_one_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str, code: int
) -> None:
    assert train(root, "--out", str(root / "run"), *options) == code
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert words in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--resume", "nowhere"], "contains no run", 3),
        (["--recipe", "{recipe}", "--out", "{file}"], "--out {file}: cannot be created (a file of that name", 9),
        (["evaluate", "{run}", "--backend", "onnxruntime"], "--backend onnxruntime: {run} is no exported model", 15),
    ],
)
def test_errors_of_other_commands_are_one_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    places = {"file": root / "file", "recipe": root / "small.toml", "run": root / "run"}
    places["file"].touch()
    assert train_command([a.format(**places) for a in arguments]) == code
    message = capsys.readouterr().err
    assert words.format(**places) in message
    assert "Traceback" not in message


def test_json_replaces_only_an_earlier_evaluation(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(root, "--out", str(root / "run"), "--run.steps", "1") == 0
    result = root / "result.json"
    for _ in range(2):
        assert train_command(["evaluate", str(root / "run"), "--json", str(result)]) == 0
    os.mkfifo(root / "pipe")
    for place in (root / "run" / "last.pt", root / "run" / "meta.json", root / "pipe", root):
        before = place.read_bytes() if place.is_file() else b""
        assert train_command(["evaluate", str(root / "run"), "--json", str(place)]) == 9
        assert "exists and is no earlier result" in capsys.readouterr().err
        assert not place.is_file() or place.read_bytes() == before
    assert (root / "pipe").is_fifo()


def test_three_classes_with_ambiguous_labels(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid", "test"):
        for name in CLASSES[3:]:
            for file in (root / "data" / split / name).iterdir():
                file.unlink()
            (root / "data" / split / name).rmdir()
    assert train(root, "--out", str(root / "run")) == 15
    assert "need more than 3 classes, the data has 3" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_neither_overwritten_nor_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(root / "run")
    assert train(root, "--out", out, "--run.steps", "1") == 0
    assert train(root, "--out", out) == 15
    assert "contains a run already" in capsys.readouterr().err
    assert train_command(["--resume", out, "--optim.lr", "1.0", "--quiet"]) == 15
    assert "optim.lr differ from the run's own recipe" in capsys.readouterr().err
    assert train_command(["--resume", out, "--quiet"]) == 0  # the run is finished: only the report is written again
    (root / "data" / "train" / "fear" / "000.png").unlink()
    assert train_command(["--resume", out, "--quiet"]) == 15
    assert "the data changed since it was made" in capsys.readouterr().err


def test_prepare_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "data" / "train" / "fear" / "bad.png").write_bytes(b"x")
    data = ["--data", str(root / "data"), "--data.align", "false", "--out", str(root / "crops")]
    assert train_command(["train", "prepare", *data]) == 0
    words = capsys.readouterr().err
    assert "unreadable: 1 train/fear/bad.png" in words
    assert (root / "crops" / "images.npy").is_file()


@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="the bundled model is not here")
def test_an_exported_model_through_the_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "data", per_class=1, valid=1)
    assert set(CLASSES) < set(FERPLUS8)
    command = ["evaluate", str(DEFAULT_MODEL), "--data", str(root), "--split", "test", "--json", "-"]
    assert train_command([*command, "--data.cache", str(tmp_path / "cache"), "--data.align", "false"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == 5
    assert result["backend"]
    (root / "train" / "joy").mkdir()
    (root / "train" / "joy" / "0.png").write_bytes((root / "train" / "fear" / "000.png").read_bytes())
    assert train_command([*command, "--data.cache", str(tmp_path / "cache"), "--data.align", "false"]) == 15
    assert "does not know the class joy" in capsys.readouterr().err


def test_every_recipe_of_the_package_resolves() -> None:
    known = {
        "bundled",
        "ferplus-share",
        "ferplus-400",
        "ferplus-scratch",
        "rafdb-100",
        "affectnet7-2000",
        "affectnet8-2000",
        "fer2013-2000",
    }
    assert known <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert resolve({f"{s}.{k}": v for s, table in to_dict(recipe).items() for k, v in table.items()}) == recipe


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    recipe = load_recipe("bundled", {"run.seed": "7", "split.counts": "fear=3,anger=4", "model.dropout": 0.125})
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path / "r.toml") == recipe
    assert recipe.split.counts == ("fear=3", "anger=4")


def test_some_labels_are_chosen_evenly_by_default() -> None:
    assert resolve({"split.labels": 100}).split.kind == "balanced"
    assert resolve({"split.share": 0.1}).split.kind == "share"
    assert resolve({}).split.kind == "all"
    assert resolve({"split.labels": 100, "split.kind": "floor"}).split.kind == "floor"


@pytest.mark.slow
def test_own_faces_need_no_recipe(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--epochs", "1", "--steps", "1", "--batch", "4", "--run.batch_unlabelled", "4", "--input-sizes", "16"]
    data = ["--data", str(root / "data"), "--labels", "10", "--data.align", "no", "--data.cache", str(root / "own")]
    assert train_command([*data, *small, "--out", str(root / "run"), "--run.threads", "1"]) == 0
    words = " ".join(capsys.readouterr().err.split())
    assert "the network starts from the bundled model, which knows anger, fear, happiness, sadness, surprise" in words
    assert "20 unlabelled images" not in words
    assert "on 20 test pictures: the new model is right on" in words
    assert "the bundled model: " in words
    assert json.loads((root / "run" / "meta.json").read_text())["training"]["labelled"] == 10


def test_presets_and_overrides() -> None:
    official = resolve({"method.mode": "official"}).method
    assert (official.shared, official.k, official.combine, official.unsupervised) == (True, 1, "log", "scalar")
    assert resolve({"method.mode": "official", "method.k": 2}).method.k == 2
    assert resolve({"method.name": "fixmatch"}).method.levels == ()


@pytest.mark.parametrize(
    ("text", "words", "error"),
    [
        ("[run]\nepoch = 3", "no option run.epoch; known: run.init_from, run.epochs", DataError),
        ("[runs]\nepochs = 3", "no option runs.epochs; known: sections data", DataError),
        ("epochs = 3", "epochs is outside of a section", DataError),
        ("[run", "not valid TOML", DataError),
        ("[method]\nlevels = ['soul']", "method.levels: wanted some of", DataError),
        ("[method]\nk = 9", "method.k: wanted 1 to 8", DataError),
        ("[run]\nbatch = 1.5", "run.batch: wanted int", DataError),
        ("[data]\nalign = 'perhaps'", "data.align: wanted bool", DataError),
        ("[run]\nepochs = inf", "run.epochs: wanted int, got inf", DataError),
        (f"[optim]\nlr = 1{'0' * 400}", "optim.lr: wanted float", DataError),
        (f"[run]\nthreads = 1{'0' * 400}", "run.threads: wanted a number from 0 to 4096", DataError),
    ],
)
def test_recipe_problems(tmp_path: Path, text: str, words: str, error: type[LeafError]) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(error, match=words):
        load_recipe(tmp_path / "r.toml")
    with pytest.raises(NotFound):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("run.batch", 0, "1 or more, got 0"),
        ("run.batch_unlabelled", -1, "1 or more"),
        ("run.epochs", 0, "1 or more"),
        ("run.steps", -1, "0 or more"),
        ("run.input_sizes", [0], "a number from 8 to 4096, got 0"),
        ("run.seed", 2**70, "a number from 0 to"),
        ("run.evaluate_every", 0, "1 or more"),
        ("optim.lr", "nan", "0 or more, got nan"),
        ("optim.lr", "inf", "0 or more, got inf"),
        ("optim.ema_decay", 2, "a number from 0 to 1, got 2"),
        ("model.dropout", 1, "a number from 0 to 0.99"),
        ("method.hidden", -1, "0 or more"),
        ("method.max_positives", 0, "1 or more"),
        ("method.temperature", 0, "0.001 or more"),
        ("method.weak_views", 3, "a number from 0 to 2"),
        ("data.validation", "nan", "a number from 0 to 0.9"),
        ("data.margin", "inf", "a finite number"),
        ("split.imbalance", 0, "1 or more"),
        ("split.folds", 1, "2 or more"),
    ],
)
def test_numbers_out_of_range_are_named(option: str, value: object, words: str) -> None:
    with pytest.raises(DataError, match=f"^{option}: wanted {words}"):
        resolve({option: value})


@pytest.mark.parametrize("options", [{"method.name": "supervised"}, {"method.mode": "official"}])
def test_another_method_keeps_no_option_of_the_old_method(tmp_path: Path, options: dict[str, str]) -> None:
    changes = {"method.unsupervised_start_step": 100, "run.epochs": 3}
    (tmp_path / "r.toml").write_text(to_toml(resolve(changes)))
    assert load_recipe(tmp_path / "r.toml", options) == resolve(
        {"method.unsupervised_start_step": 100, "run.epochs": 3, **options}
    )
    same = load_recipe(tmp_path / "r.toml", {"method.name": "leaf", "method.k": 3})
    assert same == resolve({"method.unsupervised_start_step": 100, "run.epochs": 3, "method.k": 3})


def test_metrics_by_hand() -> None:
    probs = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]], np.float32)
    result = measure(probs, np.array([0, 1, 1, 1]), ("a", "b", "c"))
    assert result["accuracy"] == 0.75
    assert result["recall"] == {"a": 1.0, "b": pytest.approx(2 / 3), "c": None}
    assert result["balanced_accuracy"] == pytest.approx(5 / 6)
    assert result["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert result["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4, abs=1e-6)


def test_help_needs_no_torch() -> None:
    code = "import sys; from leaf_rt.cli import main; main(['train', '--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], timeout=60)


def test_options_cover_every_value() -> None:
    recipe = dataclasses.asdict(resolve({}))
    assert set(OPTIONS) == {f"{s}.{k}" for s, table in recipe.items() for k in table}
