"""The study of docs/results.md: runs over several seeds, one JSON line per finished run, tables made from these lines.

A study can be stopped and restarted at any time; finished runs are not repeated. The tables show the test split; all
choices were made on the validation split. Knows recipes and the training loop; must not know losses.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leaf_rt.errors import DataError
from leaf_rt.system.files import make_folder
from leaf_rt.system.signals import StopSignal, stop_on_signals
from train.data.dataset import load_data
from train.loop.checkpoint import LAST
from train.loop.distributed import DistributedContext, pick_device
from train.loop.precision import resolve_amp
from train.loop.run_log import Reporter
from train.loop.training import Training
from train.recipes.loading import load_recipe, to_dict
from train.recipes.schema import Recipe
from train.reports.evaluation import evaluate

RESULTS = "results.jsonl"
BUDGETS = (400, 2000)  # labels
ABLATION_BUDGET = 400
SHARES = (0.05, 0.1, 0.25)
_log = logging.getLogger(__name__)

METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"method.name": "supervised"},
    "FixMatch": {"method.name": "fixmatch"},
    "FreeMatch": {"method.name": "freematch"},
    "Ada-CM": {"method.name": "adacm"},
    "LEAF official": {"method.name": "leaf", "method.mode": "official"},
    "LEAF paper": {"method.name": "leaf"},
    "LEAF paper without gate noise": {"method.name": "leaf", "method.noise": False},
}
_ON = {"method.levels": "semantic,instance,category", "method.unsupervised": "both"}
ABLATIONS: dict[str, dict[str, Any]] = {
    "LEAF paper": {},
    "without semantic": {"method.levels": "instance,category"},
    "without instance": {"method.levels": "semantic,category"},
    "without category": {"method.levels": "semantic,instance"},
    "without any level": {"method.levels": ""},
    "same-parameter MLP for the experts": {"method.mlp_baseline": True},
    "k = 1": {"method.k": 1},
    "k = 4": {"method.k": 4},
    "4 experts": {"method.experts": 4},
    "16 experts": {"method.experts": 16},
    "at most 2 positives": {"method.max_positives": 2},
    "mask on the ambiguous part": {"method.unsupervised": "masked"},
    "ambiguous part alone": {"method.unsupervised": "ambiguous"},
    "scalar mask": {"method.unsupervised": "scalar"},
    "ambiguous part from q1 >= 0.5": {"method.min_confidence": 0.5},
    "rescaled to the plain loss": {"method.rescale": "plain"},
    "not rescaled": {"method.rescale": "none"},
    "weight linear": {"method.weight": "linear"},
    "weight convex": {"method.weight": "convex"},
    "student as teacher": {"method.teacher": "student"},
    "without load balance": {"method.balance": 0.0},
    "without contrast": {"method.lambda_s": 0.0},
    "labelled loss at full weight": {"method.lambda_x": 1.0},
    "levels on FixMatch": {"method.name": "fixmatch", **_ON},
    "levels on FreeMatch": {"method.name": "freematch", **_ON},
    "levels on Ada-CM": {"method.name": "adacm", **_ON},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of a table: its row and column, and the recipe with its changes."""

    table: int
    name: str
    column: str
    base: str
    changes: Mapping[str, Any]


def rows(table: int) -> list[Row]:
    """The cells of table 1 (methods), 2 (ablations) or 3 (shares of the labels, full size).

    Raises:
        DataError: There is no such table.
    """
    if table == 1:
        return [
            Row(1, name, f"{n} labels", "study", {**changes, "split.labels": n})
            for n in BUDGETS
            for name, changes in METHODS.items()
        ]
    if table == 2:
        column = {"split.labels": ABLATION_BUDGET}
        return [
            Row(2, name, f"{ABLATION_BUDGET} labels", "study", {"method.name": "leaf", **column, **changes})
            for name, changes in ABLATIONS.items()
        ]
    if table == 3:
        return [
            Row(3, name, f"{100 * share:g} % of the labels", "ferplus-share", {**METHODS[name], "split.share": share})
            for share in SHARES
            for name in ("supervised", "LEAF paper")
        ]
    raise DataError(f"--table {table}: wanted 1, 2 or 3; see `python -m experiments protocol` for the long protocol")


def key(recipe: Recipe) -> str:
    """The identity of a run: its recipe without local paths and the number of threads."""
    values = to_dict(recipe)
    for section, name in (("data", "path"), ("data", "cache"), ("model", "weights"), ("run", "threads")):
        values[section].pop(name)
    return json.dumps(values, sort_keys=True)


def read_results(runs: Path) -> dict[str, dict[str, Any]]:
    """Read the finished runs, by key. Incomplete lines are skipped."""
    results: dict[str, dict[str, Any]] = {}
    path = runs / RESULTS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            _log.warning("%s: a line is incomplete; its run will be repeated", path)
            continue
        results[record["key"]] = record
    return results


def plan(
    table: int, overrides: Mapping[str, Any], seeds: int, only: Sequence[str] = ()
) -> Iterator[tuple[Row, int, Recipe]]:
    """Yield row, seed and recipe of every run of a table, seed by seed, so that a stopped study has complete seeds.

    Raises:
        DataError: ``only`` names an unknown row.
    """
    known = {row.name for row in rows(table)}
    if unknown := set(only) - known:
        raise DataError(f"--rows: unknown {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}")
    for seed in range(seeds):
        for row in rows(table):
            if not only or row.name in only:
                changes = {**row.changes, "run.seed": seed, "split.seed": seed, **overrides}
                yield row, seed, load_recipe(row.base, changes)


def run_study(table: int, overrides: Mapping[str, Any], runs: Path, seeds: int, only: Sequence[str] = ()) -> int:
    """Do the missing runs of a table. A signal stops the study, even during a run.

    Args:
        table: Number of the table.
        overrides: Options of all recipes, by "section.key".
        runs: Folder of the runs and their results.
        seeds: Runs per row.
        only: Names of the rows to do; empty for all.

    Returns:
        Number of runs that were finished.
    """
    make_folder(runs, "--runs")
    done = read_results(runs)
    count = 0
    stop = StopSignal(started=True)
    with stop_on_signals(stop, raise_on_second=True):
        for row, seed, recipe in plan(table, overrides, seeds, only):
            if stop.is_set():
                break
            if key(recipe) in done:
                continue
            name = f"{row.table}-{row.name}-{row.column}-{seed}".replace(" ", "_").replace("%", "pc").replace("/", "_")
            record = _run(row, seed, recipe, runs / name, stop)
            if record is None:
                break
            done[record["key"]] = record
            with (runs / RESULTS).open("a", encoding="utf-8") as f:
                f.write(json.dumps(record) + "\n")
            count += 1
            _log.warning("table %d, %s, %s, seed %d: test %.2f %%, %.0f s", table, row.name, row.column, seed,
                         100 * record["test"]["accuracy"], record["seconds"])  # fmt: skip
    return count


def _run(row: Row, seed: int, recipe: Recipe, out: Path, stop: StopSignal) -> dict[str, Any] | None:
    """Train or resume one run and evaluate it; None if a signal stopped it."""
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    data = load_data(recipe.data, recipe.split)
    context = DistributedContext(0, 1, pick_device(recipe.run.device))
    identity = key(recipe)
    recipe, _ = resolve_amp(recipe, context)
    start = time.monotonic()
    training = Training(recipe, data, context, out)
    if (out / LAST).is_file():
        training.restore()
    batch = recipe.run.batch + recipe.run.batch_unlabelled
    with Reporter(out, data.labels, batch, tensorboard=False) as reporter:
        if not training.fit(reporter, stop):
            return None
    seconds = time.monotonic() - start
    metrics = {split: evaluate(out, recipe, split, flip=False).to_dict() for split in ("validation", "test")}
    return {
        "key": identity,
        "amp": recipe.run.amp,
        "table": row.table,
        "row": row.name,
        "column": row.column,
        "seed": seed,
        "labelled": len(data.labelled),
        "split": data.split.hash,
        "seconds": round(seconds, 1),
        **metrics,
    }


def markdown(table: int, overrides: Mapping[str, Any], runs: Path, seeds: int) -> str:
    """The table of the finished runs: mean and standard deviation of both accuracies on the test split."""
    done = read_results(runs)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row, _, recipe in plan(table, overrides, seeds):
        record = done.get(key(recipe))
        if record is not None:
            found.setdefault((row.name, row.column), []).append(record)
    columns = list(dict.fromkeys(row.column for row in rows(table)))
    names = list(dict.fromkeys(row.name for row in rows(table)))
    head = [f"| | {' | '.join(f'{c}: accuracy | balanced | seeds' for c in columns)} |"]
    head.append(f"|---|{'---|---|---|' * len(columns)}")
    lines = []
    for name in names:
        cells = []
        for column in columns:
            records = found.get((name, column), [])
            cells += [_mean_and_deviation(records, metric) for metric in ("accuracy", "balanced_accuracy")]
            cells.append(str(len(records)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*head, *lines]) + "\n"


def _mean_and_deviation(records: Sequence[dict[str, Any]], metric: str) -> str:
    values = [100 * r["test"][metric] for r in records]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
