"""Progress and tables of the training commands.

Knows rich and the results of ``train.entry``. It must not know how they are made.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from leaf_rt.cli.console import console, note
from leaf_rt.cli.streams import say
from leaf_rt.errors import OutputError
from leaf_rt.system.files import save_json, write_whole
from leaf_rt.system.parsing import parse_json
from leaf_rt.text import printable
from train.results import CropProgress, Progress, TrainResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from train.reports.degraded import DegradedResult
    from train.reports.dry_run import RunPlan
    from train.reports.evaluation import EvaluationResult
    from train.results import PrepareResult

WIDE = 120  # columns; a narrower terminal has no room for the full class names of a confusion matrix


def progress(quiet: bool) -> Progress:
    """Show notes, progress and finished runs on stderr. A quiet command only shows that a run was stopped."""
    if quiet:
        return Progress(finished=_show_stopped)
    out = console()

    def finished(result: TrainResult) -> None:
        _show_stopped(result)
        if result.finished:
            for line in result.comparison.sentences() if result.comparison else ():
                out.print(Text(printable(line)), soft_wrap=True)
            out.print(f"done: {result.checkpoint}, report {result.report}", soft_wrap=True)

    return Progress(lambda text: note(out, text), lambda: _crop_bar(out), finished, out)


def _show_stopped(result: TrainResult) -> None:
    if not result.finished:
        kept = f"stopped after step {result.step} of {result.steps}, kept in {result.folder / 'last.pt'}"
        if result.trained:
            kept = f"stopped; the trained model is complete and kept in {result.checkpoint}, only the report is missing"
        say(f"{kept}; continue with: leaf-rt train --resume {result.folder}", err=True)


@contextmanager
def _crop_bar(out: Console) -> Iterator[CropProgress]:
    """A progress bar for the search for faces."""
    columns = (TextColumn("finding faces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("crops", total=None)
        # Files whose crops are cached pass too fast to draw each of them.
        yield lambda done, total: bar.update(task, completed=done, total=total) if done % 50 == 0 else None


def show_plan(plan: RunPlan) -> None:
    """Print the result of a dry run, in the first process only."""
    if os.environ.get("RANK", "0") != "0":
        return
    out = console()
    out.print(_counts(plan.labels, plan.counts))
    minutes, memory = plan.seconds / 60, plan.memory / 2**30
    for line in (
        f"split {plan.split[:12]} of data {plan.data[:12]}",
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items()),
        f"{plan.processes} process(es) on {plan.device}, {plan.epochs} epochs of {plan.steps_per_epoch} steps",
        f"each step uses {plan.batch} labelled and {plan.batch_unlabelled} unlabelled images at up to "
        f"{plan.input_size} px",
        f"{plan.seconds_per_step:.3f} s per step at {plan.input_size} px, about {minutes:.1f} minutes in total, "
        f"{memory:.2f} GiB per process",
    ):
        out.print(line, soft_wrap=True)


def show_prepared(result: PrepareResult) -> None:
    """Print what a data set contains."""
    out = console()
    out.print(_counts(result.labels, result.counts, result.name))
    crops = result.crops
    aligned = "aligned" if crops.align else "whole images"
    lines = [f"crops: {crops.side} px, {crops.color}, {aligned}, margin {crops.margin:g}"]
    if result.crops.align:
        lines.append(f"face found and aligned: {result.aligned}; whole image: {result.whole}")
    lines.append(f"unreadable: {len(result.unreadable)} {', '.join(result.unreadable[:10])}".rstrip())
    lines.append(
        f"exact copies of an earlier image: {result.duplicates}; training images that are copies of validation or "
        f"test images: {result.leaked}"
    )
    for line in lines:
        out.print(Text(printable(line)), soft_wrap=True)
    for text in result.notes:
        note(out, text)


def check_json_file(path: str) -> None:
    """Check, before any work, that ``--json`` replaces no other file than an earlier result.

    Raises:
        OutputError: It would.
    """
    file = Path(path)
    if path == "-" or not file.exists():
        return
    try:
        earlier = parse_json(file.read_bytes()) if file.is_file() and file.stat().st_size < 1 << 20 else None
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict) or "confusion" not in earlier:
        raise OutputError(f"--json {path}: exists and is no earlier result; choose another file, or - to print")


def show_evaluation(result: EvaluationResult, json_file: str | None, plot: str | None = None) -> None:
    """Print a confusion matrix and the accuracy, or write the result as JSON.

    Args:
        result: Of the evaluation.
        json_file: Also write JSON to this file; "-" prints only JSON.
        plot: Also draw the reliability diagram and the risk-coverage curve into this PNG file.
    """
    if plot is not None:
        from train.reports.honesty import plot_honesty

        write_whole(Path(plot), lambda f: f.write(plot_honesty(result)))
    if json_file == "-":
        say(json.dumps(result.to_dict()))
        return
    if json_file is not None:
        save_json(Path(json_file), result.to_dict())
    width = shutil.get_terminal_size((120, 20)).columns
    heads = result.labels if width >= WIDE else [name[:4] for name in result.labels]  # in the order of the rows
    table = Table("label \\ answer", *heads, "recall", title=f"{result.model} on {result.pictures}")
    for name, row in zip(result.labels, result.confusion, strict=True):
        recall = result.recall[name]
        table.add_row(name, *map(str, row), "-" if recall is None else f"{100 * recall:.1f} %")
    out = Console(width=width)
    out.print(table)
    out.print(
        f"accuracy {100 * result.accuracy:.2f} % of {result.n}, balanced {100 * result.balanced_accuracy:.2f} %, "
        f"calibration error {result.calibration_error:.4f}"
    )
    out.print(
        f'"uncertain", below a share of {result.uncertain_below:g}: {_percent(result.flagged_wrong)} of the wrong '
        f"answers, {_percent(result.flagged_right)} of the right ones"
    )
    from train.reports.evaluation import PROTOCOL_RULES

    out.print(f"protocol {result.protocol}: {PROTOCOL_RULES[result.protocol]}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def show_degraded(result: DegradedResult, json_file: str | None, plot: str | None) -> None:
    """Print the accuracy under each kind of damage, and write it as JSON and as a plot.

    Args:
        result: Of the evaluation.
        json_file: Also write JSON to this file; "-" prints only JSON.
        plot: Also draw the accuracies into this PNG file.
    """
    from train.reports.degraded import plot_degraded
    from train.reports.evaluation import PROTOCOL_RULES

    if plot is not None:
        write_whole(Path(plot), lambda f: f.write(plot_degraded(result)))
    if json_file == "-":
        say(json.dumps(result.to_dict()))
        return
    if json_file is not None:
        save_json(Path(json_file), result.to_dict())
    which = "every picture" if result.stride == 1 else f"one picture in {result.stride}"
    heads = ("picture", "accuracy", "balanced", "calibration error", "uncertain: wrong", "right")
    table = Table(*heads, title=f"{result.model}, {result.split}")
    for row in result.rows:
        table.add_row(
            row.name,
            f"{100 * row.accuracy:.1f} %",
            f"{100 * row.balanced_accuracy:.1f} %",
            f"{row.calibration_error:.3f}",
            _percent(row.flagged_wrong),
            _percent(row.flagged_right),
        )
    out = Console()
    out.print(table)
    out.print(f"n = {result.n} ({which}); protocol {result.protocol}: {PROTOCOL_RULES[result.protocol]}")


def _counts(labels: Sequence[str], counts: Mapping[str, tuple[int, ...]], title: str | None = None) -> Table:
    """Images per class (rows, so that many names fit) and part of the data (columns)."""
    table = Table("class", *counts, title=title)
    for row, name in enumerate([*labels, "no label"]):
        table.add_row(name, *(str(part[row]) for part in counts.values()))
    table.add_row("all", *(str(sum(part)) for part in counts.values()))
    return table
