"""The live table and the log of a run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from train.loop.run_log import Reporter, read_log
from train.reports.run_report import curves_png

TERMS = {
    "loss": 1.5, "loss_x": 1.0, "loss_u": 0.5, "coverage": 0.25, "judged": 8.0, "correct": 6.0, "positives": 2.0,
    "seconds_input": 0.0,
}  # fmt: skip


def view(out: Path, *calls: dict[str, float]) -> str:
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, no_color=True, width=120)
    with Reporter(out, ["calm", "glad"], batch=48, console=console, tensorboard=False) as reporter:
        reporter.epoch(1, 48, {}, {"epoch": 1, "accuracy": 0.5, "recall": {"calm": 0.25, "glad": None}}, [0.8, 0.7],
                       [[0.9, 0.1], [0.4, 0.6]])  # fmt: skip
        for step, terms in enumerate(calls, 1):
            reporter.step(step, 10, 20, terms, 1, [0.8, 0.725])
    return page.getvalue()


def test_the_live_table_shows_loss_pseudo_labels_thresholds_and_expert_load(tmp_path: Path) -> None:
    page = view(tmp_path, TERMS)
    assert "epoch 1: loss 0.0000, validation 50.00 %" in page
    assert "epoch 1, step 1 of 20" in page
    assert "left" in page
    assert "loss 1.500: labelled 1.000, unlabelled 0.500" in page
    assert "pseudo-labels: 25.0 % trusted (75.0 % correct, judged only on faces whose label is known); 2.00" in page
    assert all(word in page for word in ("calm", "glad", "0.800", "0.725", "0.250"))
    assert "expert load 1: 0.90 0.10" in page
    assert "expert load 2: 0.40 0.60" in page


def test_the_live_table_shows_no_pseudo_labels_without_any(tmp_path: Path) -> None:
    page = view(tmp_path, {"loss": 0.75, "loss_x": 0.75, "seconds_input": 0.0})
    assert "loss 0.750: labelled 0.750" in page
    assert "pseudo-labels" not in page


def test_unknown_labels_give_no_accuracy(tmp_path: Path) -> None:
    page = view(tmp_path, {**TERMS, "judged": 0.0, "correct": 0.0})
    assert "pseudo-labels: 25.0 % trusted; 2.00 classes each" in page
    assert "pseudo_accuracy" not in read_log(tmp_path)[-1]


def test_the_remaining_time_can_be_days(tmp_path: Path) -> None:
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, no_color=True, width=120)
    with Reporter(tmp_path, ["calm", "glad"], batch=48, console=console, tensorboard=False) as reporter:
        reporter._since -= 7200.0
        reporter.step(1, 10, 20, TERMS, 1, [0.8, 0.725])
    assert "1 day, 14:00:0" in page.getvalue()


def test_numbers_that_are_not_finite_are_null_and_incomplete_lines_are_skipped(tmp_path: Path) -> None:
    with Reporter(tmp_path, ["calm"], batch=8, tensorboard=False) as reporter:
        reporter.step(1, 10, 20, {"loss": float("nan")}, 1, [0.8])
    with (tmp_path / "log.jsonl").open("a") as f:
        f.write('7\nnull\n[{"event": "step"}]\n{"no": "event"}\n{"event": "st')
    (record,) = read_log(tmp_path)
    assert record["loss"] is None
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()
    assert curves_png([record], ["calm"]).startswith(b"\x89PNG")


class Board:
    """A SummaryWriter that records its calls."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = (value, step)

    def close(self) -> None:
        """Nothing is open."""


def test_tensorboard_and_the_log_agree_on_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr("train.loop.run_log._open_tensorboard", lambda out: board)
    metrics = {"epoch": 2, "accuracy": 0.5, "balanced_accuracy": 0.5, "calibration_error": 0.125,
               "recall": {"calm": 0.25, "glad": None}}  # fmt: skip
    with Reporter(tmp_path, ["calm", "glad"], batch=8) as reporter:
        reporter.epoch(2, 48, {}, metrics, [0.8, 0.7], [[0.75, 0.25], [0.5, 0.5]])
    assert board.scalars["recall/calm"] == (0.25, 2)
    assert "recall/glad" not in board.scalars
    assert board.scalars["expert_load_1/2"] == (0.25, 2)
    assert board.scalars["expert_load_2/1"] == (0.5, 2)


def reported(out: Path, steps: int, terms: dict[str, float], thresholds: list[float]) -> str:
    """What a terminal and a log of few records show of some steps."""
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, no_color=True, width=120)
    with Reporter(out, ["calm", "glad"], batch=8, console=console, tensorboard=False) as reporter:
        for step in range(1, steps + 1):
            reporter.step(step, 100, 12, terms, 1, thresholds)
    return " ".join(page.getvalue().split())


def test_the_first_step_is_seen(tmp_path: Path) -> None:
    page = io.StringIO()
    console = Console(file=page, width=120)
    with Reporter(tmp_path, ["calm", "glad"], batch=8, console=console, tensorboard=False) as reporter:
        reporter._since -= 7200.0
        reporter.began(12)
    assert "first step done in 72" in page.getvalue()
    assert "about 1 day, 0:" in page.getvalue()


@pytest.mark.parametrize(("coverage", "warned"), [(0.01, 1), (0.03, 0)])
def test_a_method_that_trusts_almost_no_pseudo_label_is_noticed(tmp_path: Path, coverage: float, warned: int) -> None:
    terms = {**TERMS, "coverage": coverage}
    assert "under 2 %" not in reported(tmp_path / "early", 3, terms, [0.8, 0.8])
    page = reported(tmp_path / "late", 12, terms, [0.8, 0.8])
    assert page.count("warning: after a third of the run the method trusts under 2 % of its pseudo-labels") == warned
    assert sum(record["event"] == "warning" for record in read_log(tmp_path / "late")) == warned


def test_a_method_without_pseudo_labels_shows_no_thresholds(tmp_path: Path) -> None:
    page = reported(tmp_path, 4, {"loss": 0.75, "loss_x": 0.75, "seconds_input": 0.0}, [])
    assert "threshold" not in page
    assert "warning" not in page
    assert curves_png(read_log(tmp_path), ["calm", "glad"]).startswith(b"\x89PNG")
