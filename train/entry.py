"""What a program calls: train, plan, evaluate, prepare and merge, each with a typed result.

These functions print nothing and end no process. A problem that a person can solve is a ``LeafError``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from leaf_rt.errors import DataError, NotFound
from leaf_rt.models.calibration import Prior
from leaf_rt.system.files import make_folder, write_whole
from leaf_rt.system.signals import StopSignal, stop_on_signals
from train.data.dataset import TrainingData, copies, crop_spec, load_data, open_crops
from train.data.formats import SPLITS
from train.loop import merging
from train.loop.checkpoint import BEST, LAST, describe, find, load
from train.loop.distributed import DistributedContext, distributed_context, pick_device, raise_on_rank_zero
from train.loop.initialization import INIT_RUN, check_initial_files, initial_checkpoint
from train.loop.run_log import Reporter
from train.loop.training import SPLIT, Training
from train.methods.objective import uses_unlabelled
from train.recipes.loading import changed_options, load_recipe, to_dict, to_toml
from train.recipes.schema import OPTIONS, RECIPE, Recipe
from train.reports import degraded, evaluation
from train.reports.degraded import DegradedResult
from train.reports.dry_run import RunPlan, plan_run
from train.reports.evaluation import EvaluationResult
from train.reports.run_report import write_report
from train.results import SILENT, MergeResult, PrepareResult, Progress, TrainResult

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_RECIPES = {"cuda": "own", "cpu": "own-cpu"}


def train(
    recipe: Recipe | str | Path | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> TrainResult:
    """Train a model, or continue a run. SIGINT and SIGTERM stop it at the next step and save its state.

    Args:
        recipe: A recipe, the name of one in the package, or a TOML file. None selects "own", or "own-cpu" without a
            GPU.
        data: Folder or list file of the data set; short for the override "data.path".
        out: Folder of the new run; "runs/last" by default.
        resume: Folder of a run to continue, in place of ``recipe`` and ``out``.
        overrides: Option ("section.key") to value.
        progress: Receives what happens.

    Raises:
        LeafError: The recipe, the data or the machine does not allow this run.

    Example:
        result = train("own", data="faces", out="runs/mine", overrides={"run.epochs": 5})
        print(result.accuracy, result.checkpoint)
    """
    folder = Path(resume or out or "runs/last")
    options = _with_data(overrides, data)
    with raise_on_rank_zero():
        resolved, notes = _recipe_of_run(recipe, options, out, resume)
        if not resume:
            if (folder / LAST).is_file():
                raise DataError(
                    f"--out {folder}: contains a run already; continue it with --resume {folder}, or choose another "
                    "folder"
                )
            check_initial_files(resolved, folder)
    if not resume and initial_checkpoint(resolved, folder) == folder / INIT_RUN:
        first = _train_first(resolved.run.init_from, options, folder / INIT_RUN, progress)
        if not first.finished:
            return first
    with _loaded(resolved, folder / SPLIT if resume else None, notes, progress) as (context, training_data, found):
        shown = progress if context.is_main else SILENT
        with context.synchronized():
            if context.is_main and not resume:
                _start_folder(folder, resolved)
        training = Training(resolved, training_data, context, folder, resumed=resume is not None)
        if resume:
            training.restore()
            for partial in folder.glob(".*.part") if context.is_main else ():  # left by a process that was killed
                partial.unlink()
        finished = _fit(training, context, "resume" if resume else "start", shown.console)
        report = write_report(folder) if finished and context.is_main else None
        result = _train_result(folder, training_data.labels, finished, report, found)
        shown.finished(result)
    return result


def plan(
    recipe: Recipe | str | Path | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> RunPlan:
    """Measure what ``train`` with the same arguments would use: data, parameters, time and memory. Writes no run.

    Raises:
        LeafError: See ``train``.
    """
    folder = Path(resume or out or "runs/last")
    with raise_on_rank_zero():
        resolved, notes = _recipe_of_run(recipe, _with_data(overrides, data), out, resume)
        if not resume:
            check_initial_files(resolved, folder)
    with _loaded(resolved, folder / SPLIT if resume else None, notes, progress) as (context, training_data, found):
        return plan_run(resolved, training_data, context, found)


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: Literal["validation", "test", "all"] = "validation",
    recipe: Recipe | str | Path | None = None,
    backend: str = "auto",
    flip: bool = False,
    protocol: str = "all",
    prior: Prior = "natural",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Measure a run, a checkpoint or an exported model on labelled images.

    Args:
        model: A run's folder, a checkpoint (.pt) or an exported model (.onnx, .plan, .xml).
        data: Folder or list file of the data set; by default that of the run.
        split: "validation" (if the data has none: the images that the run held out), "test" or "all".
        recipe: Describes the data; by default the recipe of the run.
        backend: Of the runtime, for exported models.
        flip: Average over mirror images, for runs and checkpoints.
        protocol: Which pictures count, by the agreement of their annotators: "all", "majority" (as most published
            figures of FERPlus) or "strict". The last two need data with votes.
        prior: For exported models: how frequent the classes are taken to be, "natural" or "balanced".
        overrides: Option ("section.key") to value.
        progress: Receives what happens.

    Raises:
        LeafError: Model or data are missing or broken, or their classes differ.
        ValueError: ``split`` or ``protocol`` is none of the three.
    """
    path, resolved = Path(model), evaluation.recipe_of_model(model, recipe, _with_data(overrides, data))
    with progress.crops() as crops:
        return evaluation.evaluate(
            path, resolved, split, backend=backend, flip=flip, protocol=protocol, prior=prior, progress=crops
        )


def evaluate_degraded(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: Literal["validation", "test", "all"] = "validation",
    recipe: Recipe | str | Path | None = None,
    backend: str = "auto",
    flip: bool = False,
    protocol: str = "all",
    prior: Prior = "natural",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> DegradedResult:
    """Measure a model on every third picture of a split, clean and degraded: blurred, small, noisy, dark, covered.

    The arguments are those of ``evaluate``.

    Raises:
        LeafError: Model or data are missing or broken, or their classes differ.
        ValueError: ``split`` or ``protocol`` is none of the three.
    """
    path, resolved = Path(model), evaluation.recipe_of_model(model, recipe, _with_data(overrides, data))
    with progress.crops() as crops:
        return degraded.evaluate_degraded(
            path, resolved, split, backend=backend, flip=flip, protocol=protocol, prior=prior, progress=crops
        )


def prepare(
    recipe: Recipe | str | Path | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> PrepareResult:
    """Find, crop and cache the faces of a data set, and count them.

    Args:
        recipe: Describes data and crops.
        data: Folder or list file of the data set.
        out: Folder of the cache; short for the override "data.cache".
        overrides: Option ("section.key") to value.
        progress: Receives what happens.

    Raises:
        LeafError: The data is missing or broken, or the cache cannot be written.
    """
    options = _with_data(overrides, data)
    if out:
        options["data.cache"] = str(out)
    resolved = load_recipe(recipe, options).data
    with progress.crops() as report:
        index, crops = open_crops(resolved, report)
    classes = (*range(len(index.labels)), -1)
    readable = crops.row >= 0
    found = int(crops.found[crops.row[readable]].sum()) if resolved.align else 0
    hashes = [crops.pixels[row] for row in crops.row[readable].tolist()]
    return PrepareResult(
        name=index.name,
        labels=index.labels,
        counts={
            name: tuple(int(((index.split == n) & (index.label == c)).sum()) for c in classes)
            for n, name in enumerate(SPLITS)
        },
        crops=crop_spec(resolved),
        aligned=found,
        whole=int(readable.sum()) - found,
        unreadable=crops.unreadable,
        duplicates=len(hashes) - len(set(hashes)),
        leaked=int(copies(index, crops).sum()),
        notes=tuple(index.notes),
    )


def merge(
    models: Sequence[str | Path],
    *,
    out: str | Path,
    shares: Sequence[float] = (),
    mean: Literal["logits", "weights"] = "logits",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> MergeResult:
    """Merge several runs into one model. Recipes are trained first, in folders inside ``out``.

    A run that several recipes start from is trained once.

    Args:
        models: Folders of runs, checkpoints, or recipes.
        out: Folder of the merged model.
        shares: Weight of each model; equal if empty.
        mean: Average the logits of the models, or their weights.
        overrides: Option ("section.key") to value, for recipes: those that do not change the result.
        progress: Receives what happens.

    Raises:
        LeafError: The models do not fit together, or see ``train``.
    """
    options = dict(overrides or {})
    runs = []
    for model in models:
        run = Path(model)
        if run.suffix == ".toml" or not run.exists():
            init_from = load_recipe(model).run.init_from
            if init_from and Path(init_from).suffix != ".pt":
                start = Path(out) / Path(init_from).stem
                if not _train_first(init_from, options, start, progress).finished:
                    return MergeResult(None, finished=False)
                init_from = str(start / LAST)
            run = Path(out) / run.stem
            if not _train_first(model, options, run, progress, init_from).finished:
                return MergeResult(None, finished=False)
        runs.append(run)
    return MergeResult(merging.merge(runs, Path(out), shares, mean), finished=True)


def _with_data(overrides: Mapping[str, Any] | None, data: str | Path | None) -> dict[str, Any]:
    return {**(overrides or {}), **({} if data is None else {"data.path": str(data)})}


def _recipe_of_run(
    source: Recipe | str | Path | None,
    overrides: Mapping[str, Any],
    out: str | Path | None,
    resume: str | Path | None,
) -> tuple[Recipe, list[str]]:
    """The recipe of a new or resumed run, and notes on what was chosen."""
    if resume:
        if out or source:
            raise DataError("--resume continues a run in its own folder with its own recipe; omit --out and --recipe")
        return _resumed_recipe(Path(resume), overrides), []
    notes = []
    if source is None:
        kind = pick_device(str(overrides.get("run.device", "auto"))).type
        source = DEFAULT_RECIPES[kind]
        if kind == "cpu":
            large = DEFAULT_RECIPES["cuda"]
            notes.append(f"no GPU here: recipe {source}, smaller than {large}; select that with --recipe {large}")
    recipe = load_recipe(source, overrides)
    if "run.batch" in overrides and "run.batch_unlabelled" not in overrides:
        usual = load_recipe(source, {k: v for k, v in overrides.items() if k != "run.batch"}).run
        scaled = max(1, round(usual.batch_unlabelled * recipe.run.batch / usual.batch))
        if scaled != recipe.run.batch_unlabelled:
            notes.append(f"run.batch_unlabelled is {scaled}, in the recipe's proportion to --batch")
            recipe = load_recipe(source, {**overrides, "run.batch_unlabelled": scaled})
    return recipe, notes


def _resumed_recipe(folder: Path, overrides: Mapping[str, Any]) -> Recipe:
    path = folder / RECIPE
    if not path.is_file():
        raise NotFound(f"--resume {folder}: contains no run ({RECIPE} is missing)")
    recipe = load_recipe(path, overrides)
    fixed = [key for key in changed_options(load_recipe(path), recipe) if not OPTIONS[key].resumable]
    if fixed:
        raise DataError(f"--resume {folder}: {', '.join(fixed)} differ from the run's own recipe; start a new run")
    return recipe


@contextmanager
def _loaded(
    recipe: Recipe, saved_split: Path | None, notes: Sequence[str], progress: Progress
) -> Iterator[tuple[DistributedContext, TrainingData, tuple[str, ...]]]:
    """Connect the processes and load the data; the value is the context, the data, and all notes."""
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with distributed_context(recipe.run.device) as context:
        shown = progress if context.is_main else SILENT
        for main_turn in (True, False):  # the main process fills the cache for all
            with context.synchronized():
                if context.is_main == main_turn:
                    with shown.crops() as crops:
                        data = load_data(recipe.data, recipe.split, saved_split, crops)
        found = [*notes, *data.notes]
        if len(data.labelled) < recipe.run.batch:
            found.append(f"{len(data.labelled)} labelled images: each batch of {recipe.run.batch} repeats some of them")
        if not (recipe.model.weights or recipe.run.init_from):
            found.append(
                "the network starts from random weights; with --weights of a face-recognition network it learns faster"
            )
        for note in found:
            shown.note(note)
        yield context, data, tuple(found)


def _start_folder(folder: Path, recipe: Recipe) -> None:
    make_folder(folder)
    (folder / BEST).unlink(missing_ok=True)  # of a run that was killed before its first last.pt
    write_whole(folder / RECIPE, to_toml(recipe).encode(), parents=True)


def _fit(training: Training, context: DistributedContext, event: str, console: Console | None) -> bool:
    """Run the training loop with log and stop signal; False if a signal stopped it."""
    recipe, data = training.recipe, training.data
    batch = recipe.run.batch + (recipe.run.batch_unlabelled if uses_unlabelled(recipe.method) else 0)
    with ExitStack() as stack:
        stop = StopSignal(started=True)
        stack.enter_context(stop_on_signals(stop, raise_on_second=True))
        reporter = None
        if context.is_main:
            reporter = Reporter(training.out, data.labels, batch, recipe.run.log_every, console)
            stack.enter_context(reporter)
            facts = {"recipe": to_dict(recipe), "labels": list(data.labels), "split": data.split.hash}
            reporter.event(event, step=training.state.step, **facts)
        return training.fit(reporter, stop)


def _train_result(
    folder: Path, labels: tuple[str, ...], finished: bool, report: Path | None, notes: tuple[str, ...]
) -> TrainResult:
    """The result. Only the main process reads the checkpoint: it may still be writing the file."""
    checkpoint = find(folder)
    metrics = describe(load(checkpoint), checkpoint).metrics if report else {}
    return TrainResult(
        folder=folder,
        checkpoint=checkpoint,
        finished=finished,
        labels=labels,
        accuracy=metrics.get("accuracy"),
        balanced_accuracy=metrics.get("balanced_accuracy"),
        confusion=tuple(tuple(row) for row in metrics.get("confusion", ())),
        report=report,
        notes=notes,
    )


def _train_first(
    recipe: str | Path, overrides: Mapping[str, Any], folder: Path, progress: Progress, init_from: str = ""
) -> TrainResult:
    """Return the finished run of a recipe that another run or a merged model needs; train or continue it first."""
    given = {key: value for key, value in overrides.items() if key in OPTIONS and OPTIONS[key].resumable}
    if (folder / LAST).is_file():
        return train(resume=folder, overrides=given, progress=progress)
    if init_from:
        given["run.init_from"] = init_from
    return train(recipe, out=folder, overrides=given, progress=progress)
