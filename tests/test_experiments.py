"""The study can be resumed and its tables are correct; the benchmark of the training step runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from train_fakes import tiny, write_folder

from experiments import start as first_record
from experiments.study import ABLATIONS, METHODS, RESULTS, markdown, plan, read_results, rows, run_study
from experiments.training_step import bench
from leaf_rt.backends.registry import find_backend
from leaf_rt.cli import main
from leaf_rt.errors import DataError
from train.reports.evaluation import evaluate


def run_experiments(*arguments: str) -> int:
    """Run ``python -m experiments`` in this process; return its exit code."""
    return main(arguments, commands="experiments.commands", name="python -m experiments")


def small(root: Path) -> dict[str, object]:
    write_folder(root / "data")
    return {
        "data.layout": "folder", "data.path": str(root / "data"), "data.cache": str(root / "cache"), "data.side": 20,
        "data.align": False, "split.labels": 20, "model.backbone": "tiny", "model.weights": "",
        "model.recalibrate": 0, "run.input_sizes": [16], "run.epochs": 1, "run.steps": 2, "run.batch": 8,
        "run.batch_unlabelled": 8, "run.amp": "off", "run.threads": 1, "method.unsupervised_start_step": 0,
    }  # fmt: skip


def test_a_study_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, runs = small(tmp_path), tmp_path / "runs"
    assert run_study(1, overrides, runs, 1, ["FixMatch"]) == 1  # both columns are the same run
    assert run_study(1, overrides, runs, 1, ["FixMatch"]) == 0
    with (runs / RESULTS).open("a") as f:
        f.write('{"key": "incomplete')
    assert len(read_results(runs)) == 1
    (record,) = read_results(runs).values()
    assert record["test"]["n"] == record["validation"]["n"] == 20
    table = markdown(1, overrides, runs, 1)
    line = next(row for row in table.splitlines() if row.startswith("| FixMatch"))
    assert line.count(f"{100 * record['test']['accuracy']:.2f}") >= 2
    assert "| LEAF paper | - | - | 0 | - | - | 0 |" in table
    options = [f"--{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in overrides.items()]
    arguments = ["study", "--table", "1", "--runs", str(runs), "--seeds", "1", "--show", *options]
    assert run_experiments(*arguments) == 0
    assert capsys.readouterr().out == table


def test_a_signal_during_an_evaluation_stops_the_study_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*args, **options)

    overrides, runs = small(tmp_path), tmp_path / "runs"
    monkeypatch.setattr("experiments.study.evaluate", interrupted)
    assert run_study(1, overrides, runs, 3, ["supervised"]) == 1
    assert len(read_results(runs)) == 1


def test_every_row_has_its_own_recipe() -> None:
    for table, count in ((1, 2 * len(METHODS)), (2, len(ABLATIONS)), (3, 6)):
        resolved = [recipe for _, _, recipe in plan(table, {}, 1)]
        assert len(resolved) == count
        assert len({repr(r) for r in resolved}) == count
    with pytest.raises(DataError, match="unknown magic"):
        list(plan(1, {}, 1, ["magic"]))
    with pytest.raises(DataError, match="wanted 1, 2 or 3"):
        rows(9)


@pytest.mark.slow
def test_the_benchmark_of_the_training_step_runs(tmp_path: Path) -> None:
    result = bench(tiny(tmp_path), steps=3)
    assert result["images_per_s"] > 0
    assert 0 < result["input_share"] < 1
    assert 0 <= result["outside_share"] < 1
    assert result["against_alike"] == pytest.approx(result["images_per_s"] / result["alike_images_per_s"], abs=0.02)
    assert json.dumps(result)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["step", "--count", "0"], "--count: wanted 1 or more, got 0", 15),
        (["study", "--table", "1", "--seeds", "0"], "--seeds: wanted 1 or more, got 0", 15),
        (["study", "--table", "1", "--runs", "{file}"], "--runs {file}: cannot be created (a file of that name", 9),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, code: int
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run_experiments(*(a.format(file=file) for a in arguments)) == code
    assert message.format(file=file) in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_cpu(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    assert run_experiments("gpu", "--cpu", "--count", "1", "--clip", str(clip)) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "| part | what | figure |"
    found = json.loads(lines[-1])
    assert found["bench"] == "gpu"
    measured = [row["what"] for row in found["rows"] if "left_out" not in row]
    for what in ("leaf, mobilefacenet at 32 px, fp32", "PyTorch eager fp32, batch 4", "1 x face.mp4", "2 x face.mp4"):
        assert what in measured
    assert all(row["frames_per_s"] > 0 for row in found["rows"] if row["part"] == "end to end")


def test_the_benchmark_of_a_gpu_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    if find_backend("torch").gpu_problem() is None:
        pytest.skip("there is a GPU")
    assert run_experiments("gpu") == 10
    assert "finds no NVIDIA GPU here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_time_to_the_first_record_and_its_parts(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    first_record.main([str(clip), "--runs", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["wall_s"] > 0
    assert sum(found["parts_cpu_s"].values()) > 0
    assert {"leaf_rt", "numpy", "cv2", "onnxruntime"} <= set(found["share_of_imports"])
