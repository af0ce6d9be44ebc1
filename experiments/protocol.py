"""The long protocol: a grid of learning rates per method on the validation split, then seeds with the best one.

Every run has a folder. A program that starts a run locks it, so several programs share one study: two on two cores, or
several on one GPU. Each can be stopped and started again. The test split is measured once, at the end, on request.
Knows recipes and the training loop; must not know losses.
"""

from __future__ import annotations

import fcntl
import json
import logging
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.forms import FORMS
from experiments.frozen import Features, FrozenTraining
from experiments.packed import digest, load_packed, unpack_weights
from experiments.study import RESULTS, key, read_results
from leaf_rt.errors import DataError
from leaf_rt.system.files import make_folder
from leaf_rt.system.signals import StopSignal, stop_on_signals
from train.data.dataset import TrainingData, load_data
from train.loop.checkpoint import LAST, load
from train.loop.distributed import DistributedContext, pick_device
from train.loop.precision import resolve_amp
from train.loop.run_log import Reporter, read_log
from train.loop.training import Training
from train.recipes.loading import load_recipe
from train.recipes.schema import Recipe
from train.reports.evaluation import evaluate

RECIPE = "study-long"
RATES = (1.5e-4, 3e-4, 6e-4)
METRICS = ("accuracy", "balanced_accuracy")
OTHERS = ("neutral", "happiness", "surprise", "sadness", "anger")  # classes that photographs of strangers show often
_WAIT = 2.0  # s, until the next look at runs of other programs
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a study compares.

    Attributes:
        runs: Folder of the runs and their results.
        methods: Names in ``FORMS``.
        labels: Numbers of labels.
        seeds: Runs per method with its best learning rate; the grid has the first one.
        rates: Learning rates of the grid.
        overrides: Options of all recipes, by "section.key".
        packed: File of ``experiments.packed`` in place of the data set; None for the data set of the recipe.
        features: Outputs of frozen early layers for the images of ``packed``; only the late layers are trained.
    """

    runs: Path
    methods: Sequence[str]
    labels: Sequence[int] = (400, 2000)
    seeds: int = 3
    rates: Sequence[float] = RATES
    overrides: Mapping[str, Any] = field(default_factory=dict)
    packed: Path | None = None
    features: Features | None = None

    def __post_init__(self) -> None:
        if self.features is not None and (self.packed is None or self.features.source != digest(self.packed)):
            raise DataError("--features: made from another packed file than --packed names; make it again with freeze")
        if unknown := [name for name in self.methods if name not in FORMS]:
            raise DataError(f"--methods: unknown {', '.join(unknown)}; choose from {', '.join(FORMS)}")

    def recipe(self, trial: Trial) -> Recipe:
        """The recipe of a trial."""
        own = {"split.kind": "balanced", "split.labels": trial.labels, "optim.lr": trial.rate, "run.seed": trial.seed}
        weights = {"model.weights": unpack_weights(self.packed, self.runs)} if self.packed else {}
        changes = {**FORMS[trial.method], **own, "split.seed": trial.seed, **weights, **self.overrides}
        recipe = load_recipe(RECIPE, changes)
        # The crops of a packed file have the size of the network's input.
        return load_recipe(recipe, {"data.side": recipe.run.input_sizes[0]}) if self.packed else recipe

    def key(self, trial: Trial) -> str:
        """The identity of a trial in the results."""
        return key(self.recipe(trial)) + (" frozen" if self.features else "")

    def training(self, recipe: Recipe, data: TrainingData, context: DistributedContext, out: Path) -> Training:
        """The run of a recipe."""
        if self.features is not None:
            return FrozenTraining(recipe, data, context, out, self.features)
        return Training(recipe, data, context, out)

    def data(self, recipe: Recipe) -> TrainingData:
        """The images of a recipe."""
        return load_packed(self.packed, recipe.split) if self.packed else load_data(recipe.data, recipe.split)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: method, number of labels, learning rate and seed."""

    method: str
    labels: int
    rate: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.method}-{self.labels}-{self.rate:g}-{self.seed}".replace(" ", "_")


def best_rate(protocol: Protocol, method: str, labels: int, done: Mapping[str, dict[str, Any]]) -> float | None:
    """The learning rate with the best validation result on the first seed; None while a run of the grid is missing.

    The result is the mean of accuracy and balanced accuracy, because methods are compared in both.
    """
    found: dict[float, float] = {}
    for rate in protocol.rates:
        record = done.get(protocol.key(Trial(method, labels, rate, 0)))
        if record is None:
            return None
        found[rate] = statistics.mean(record["validation"][metric] for metric in METRICS)
    return max(found, key=lambda rate: found[rate])


def missing(protocol: Protocol, done: Mapping[str, dict[str, Any]]) -> Iterator[Trial]:
    """The trials to do next: the grid of each method, then the other seeds of methods whose grid is complete."""
    pairs = [(method, labels) for labels in protocol.labels for method in protocol.methods]
    wanted = [Trial(method, labels, rate, 0) for method, labels in pairs for rate in protocol.rates]
    for seed in range(1, protocol.seeds):
        for method, labels in pairs:
            rate = best_rate(protocol, method, labels, done)
            if rate is not None:
                wanted.append(Trial(method, labels, rate, seed))
    return (trial for trial in wanted if protocol.key(trial) not in done)


def run_protocol(protocol: Protocol, minutes: float = 0.0) -> int:
    """Do all missing runs that no other program does. A signal stops it, and saves the run in hand.

    Args:
        protocol: What to run.
        minutes: Stop after this time, as a signal would; 0: no limit.

    Returns:
        Number of runs that were finished.
    """
    make_folder(protocol.runs, "--runs")
    stop = StopSignal(started=True)
    timer = threading.Timer(60 * minutes, stop.set)
    timer.daemon = True
    if minutes:
        timer.start()
    count = 0
    try:
        with stop_on_signals(stop, raise_on_second=True):
            while not stop.is_set():
                finished, others = _run_next(protocol, stop)
                count += finished
                if not finished and not others:
                    break  # all is done, or this run was stopped
                if not finished:
                    stop.wait(_WAIT)  # another program does the last runs of a grid; their seeds may follow
    finally:
        timer.cancel()
    return count


def run_beside(jobs: int, arguments: Sequence[str]) -> None:
    """Run ``jobs`` programs with the arguments of this one on the same study, each with one run at a time.

    A signal to this program is passed on, and each saves its run.

    Raises:
        DataError: One of them failed.
    """
    own = [
        argument for n, argument in enumerate(arguments) if "--jobs" not in (argument, arguments[n - 1] if n else "")
    ]
    command = [sys.executable, "-m", "experiments", *(a for a in own if not a.startswith("--jobs="))]
    stop = StopSignal(started=True)
    with stop_on_signals(stop):
        # In sessions of their own, so that Ctrl-C reaches each of them once.
        programs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) for _ in range(jobs)]
        while any(program.poll() is None for program in programs):
            if stop.wait(0.2):
                for program in programs:
                    program.terminate()
                break
        codes = [program.wait() for program in programs]
    if any(codes):
        raise DataError(f"--jobs: {sum(map(bool, codes))} of {jobs} programs failed; their messages are above")


def _run_next(protocol: Protocol, stop: StopSignal) -> tuple[bool, bool]:
    """Do the first trial that no other program does; whether one was finished, and whether others are at work."""
    others = False
    for trial in missing(protocol, read_results(protocol.runs)):
        out = protocol.runs / trial.folder
        make_folder(out, "--runs")
        with _locked(out) as mine:
            recipe = protocol.recipe(trial)
            if not mine or protocol.key(trial) in read_results(protocol.runs):
                others = others or not mine
                continue
            record = _run(protocol, trial, recipe, out, stop)
            if record is None:
                return False, False
            append(protocol.runs, record)
            shown = ", ".join(f"{100 * record['validation'][metric]:.2f}" for metric in METRICS)
            _log.warning("%s: validation %s %%, %.0f s", out.name, shown, record["seconds"])
            return True, others
    return False, others


def append(runs: Path, record: Mapping[str, Any]) -> None:
    """Note a finished run. One short write, so that programs side by side do not mix their lines."""
    with (runs / RESULTS).open("a", encoding="utf-8") as f:
        f.write(json.dumps(record) + "\n")


@contextmanager
def _locked(out: Path) -> Iterator[bool]:
    """Lock the folder of a run; False if another program holds it."""
    with (out / ".lock").open("w", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends in any way
        except BlockingIOError:
            yield False
            return
        yield True


def _run(protocol: Protocol, trial: Trial, recipe: Recipe, out: Path, stop: StopSignal) -> dict[str, Any] | None:
    """Train or resume one run; None if it was stopped."""
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    identity, data = protocol.key(trial), protocol.data(recipe)
    context = DistributedContext(0, 1, pick_device(recipe.run.device))
    resumed = (out / LAST).is_file()
    if resumed:  # goes on in the precision that it started with
        amp = load(out / LAST)["training"]["recipe"]["run"]["amp"]
        recipe = load_recipe(recipe, {"run.amp": amp})
    recipe, _ = resolve_amp(recipe, context)
    start = time.monotonic()
    training = protocol.training(recipe, data, context, out)
    if resumed:
        training.restore()
    batch = recipe.run.batch + recipe.run.batch_unlabelled
    with Reporter(out, data.labels, batch, tensorboard=False) as reporter:
        if not training.fit(reporter, stop):
            return None
    measured = {r["epoch"]: r["validation"] for r in read_log(out) if r["event"] == "epoch" and r["validation"]}
    steps = training.schedule.steps_per_epoch
    return {
        "key": identity,
        "method": trial.method,
        "labels": trial.labels,
        "rate": trial.rate,
        "seed": trial.seed,
        "amp": recipe.run.amp,
        "split": data.split.hash,
        "seconds": round(time.monotonic() - start, 1),
        "validation": {metric: training.state.metrics[metric] for metric in METRICS},
        "curve": [[epoch * steps, *(v[metric] for metric in METRICS)] for epoch, v in sorted(measured.items())],
    }


def chosen_records(protocol: Protocol) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The finished runs with the best learning rate, by method and number of labels, in the order of their seeds."""
    done = read_results(protocol.runs)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for labels in protocol.labels:
        for method in protocol.methods:
            rate = best_rate(protocol, method, labels, done)
            if rate is None:
                continue
            keys = [protocol.key(Trial(method, labels, rate, seed)) for seed in range(protocol.seeds)]
            found[method, labels] = [done[k] for k in keys if k in done]
    return found


def measure_test(protocol: Protocol) -> None:
    """Measure the runs with the best learning rates on the test split, once: what is measured is kept.

    Raises:
        DataError: No data set is given: a packed file has no test split.
    """
    if not load_recipe(RECIPE, protocol.overrides).data.path:
        raise DataError("--test: a packed file has no test split; give the data set with --data")
    for records in chosen_records(protocol).values():
        for record in records:
            if "test" not in record:
                trial = Trial(record["method"], record["labels"], record["rate"], record["seed"])
                result = evaluate(protocol.runs / trial.folder / LAST, protocol.recipe(trial), "test")
                append(protocol.runs, {**record, "test": {metric: getattr(result, metric) for metric in METRICS}})


def measure_others(protocol: Protocol, path: Path) -> None:
    """Measure the runs with the best learning rates on labelled images of another source; what is measured is kept.

    Args:
        protocol: The study.
        path: List file of the images, see ``train.data.formats.lists``.
    """
    source = load_recipe(None, {"data.path": str(path), "data.layout": "list"})
    for records in chosen_records(protocol).values():
        for record in records:
            if "others" not in record:
                trial = Trial(record["method"], record["labels"], record["rate"], record["seed"])
                result = evaluate(protocol.runs / trial.folder / LAST, source, "all")
                recalls = [r for label in OTHERS if (r := result.recall.get(label)) is not None]
                if len(recalls) < len(OTHERS):
                    raise DataError(f"--others {path}: wanted images of {', '.join(OTHERS)}")
                values = {"accuracy": result.accuracy, "balanced_accuracy": statistics.mean(recalls)}
                append(protocol.runs, {**record, "others": values})


def markdown(protocol: Protocol, against: str = "FixMatch", on: str = "") -> str:
    """Tables of the finished runs: results, paired differences, and the curves of validation accuracy.

    Args:
        protocol: The study.
        against: Method of the paired differences. ± is the standard error of their mean over seeds.
        on: "others" for the figures of ``measure_others``, of the runs that have them. Otherwise those of the test
            split, if all runs have them, and those of the validation split if not.
    """
    found = chosen_records(protocol)
    split = "test" if found and all("test" in r for records in found.values() for r in records) else "validation"
    if on:
        split = on
        found = {key: [r for r in records if on in r] for key, records in found.items()}
        found = {key: records for key, records in found.items() if records}
    what = f"other images, balanced over {', '.join(OTHERS)}" if on else f"{split} split"
    lines = [
        f"%, {what}, mean ± standard deviation over seeds. Against {against}: mean difference of runs "
        "with the same seed, ± its standard error.",
        "",
        "| labels | method | rate | accuracy | balanced | seeds | accuracy against | balanced against |",
        "|---|---|---|---|---|---|---|---|",
    ]
    curves = ["", "Validation accuracy after steps, mean over seeds, %:", ""]
    for (method, labels), records in found.items():
        values = {metric: [100 * r[split][metric] for r in records] for metric in METRICS}
        other = {r["seed"]: r for r in found.get((against, labels), [])}
        pairs = [(r, other[r["seed"]]) for r in records if r["seed"] in other]
        differences = {metric: [100 * (a[split][metric] - b[split][metric]) for a, b in pairs] for metric in METRICS}
        cells = [_spread(values[metric]) for metric in METRICS]
        against_cells = [_spread(differences[metric], error=True) if method != against else "" for metric in METRICS]
        cells = [str(labels), method, f"{records[0]['rate']:g}", *cells, str(len(records)), *against_cells]
        lines.append(f"| {' | '.join(cells)} |")
        points = zip(*(record["curve"] for record in records), strict=True)
        means = [f"{at[0][0]}: {100 * statistics.mean(point[1] for point in at):.2f}" for at in points]
        curves.append(f"- {labels} labels, {method}: {', '.join(means)}")
    return "\n".join([*lines, *curves]) + "\n"


def _spread(values: Sequence[float], *, error: bool = False) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{'+' if error else ''}.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / (len(values) ** 0.5 if error else 1):.2f}"
