"""What a program calls: train, plan, evaluate, prepare and merge, each with a typed result.

These functions print nothing and end no process. A problem that a person can solve is a ``LeafError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from leaf_rt.errors import DataError, NotFound
from leaf_rt.models.calibration import Prior
from train.data.dataset import copies, crop_spec, open_crops
from train.data.formats import SPLITS
from train.loop import merging
from train.loop.checkpoint import LAST, describe, find, load
from train.loop.distributed import DistributedContext, pick_device, raise_on_rank_zero
from train.loop.initialization import INIT_RUN, check_initial_files, initial_checkpoint
from train.loop.training import Training
from train.recipes.choice import choose, supervised_instead
from train.recipes.loading import changed_options, load_recipe
from train.recipes.schema import BUNDLED, OPTIONS, RECIPE, Recipe
from train.reports import degraded, evaluation
from train.reports.comparison import compare
from train.reports.degraded import DegradedResult
from train.reports.dry_run import RunPlan, plan_run
from train.reports.evaluation import EvaluationResult
from train.reports.run_report import write_report
from train.results import SILENT, MergeResult, PrepareResult, Progress, TrainResult
from train.running import SUPERVISED, fit, is_open, loaded, start_folder, trained_result


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
    own = is_open(recipe, options) and not resume
    with loaded(resolved, folder if resume else None, notes, progress, own=own) as (context, resolved, samples, found):
        shown = progress if context.is_main else SILENT
        with context.synchronized():
            if context.is_main and not resume:
                start_folder(folder, resolved)
        training = Training(resolved, samples, context, folder, resumed=resume is not None)
        if resume:
            training.restore()
            shown.note(f"resumes {folder} after step {training.state.step} of {training.schedule.end}")
            for partial in folder.glob(".*.part") if context.is_main else ():  # left by a process that was killed
                partial.unlink()
        trained = fit(training, context, "resume" if resume else "start", shown.console)
        result = trained_result(training, trained, found)
    if trained:
        try:
            result = _finish(result, resolved, options, shown, context)
        except KeyboardInterrupt:  # the model is complete; only what is said about it is missing
            result = replace(result, finished=False)
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
    own = is_open(recipe, overrides or {}) and not resume
    with loaded(resolved, folder if resume else None, notes, progress, own=own) as (context, resolved, samples, found):
        return plan_run(resolved, samples, context, found)


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: Literal["validation", "test", "all"] = "validation",
    recipe: Recipe | str | Path | None = None,
    backend: str = "auto",
    flip: bool = True,
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
        flip: Average over mirror images, for runs and checkpoints; exported models do it unless exported without.
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
    flip: bool = True,
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
        models: Folders of runs, checkpoints, or recipes; "bundled" is the bundled model.
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
        if str(model) != BUNDLED and (run.suffix == ".toml" or not run.exists()):
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
    device = pick_device(str(overrides.get("run.device", "auto"))).type
    chosen, notes = choose(source, overrides, device)
    if device == "cpu" and torch.version.cuda and not torch.cuda.is_available():
        notes.append("this PyTorch is built for CUDA, but no GPU can be used; its CPU build takes 5 GB less")
    return chosen, notes


def _resumed_recipe(folder: Path, overrides: Mapping[str, Any]) -> Recipe:
    path = folder / RECIPE
    if not path.is_file():
        raise NotFound(f"--resume {folder}: contains no run ({RECIPE} is missing)")
    recipe = load_recipe(path, overrides)
    fixed = [key for key in changed_options(load_recipe(path), recipe) if not OPTIONS[key].resumable]
    if fixed:
        raise DataError(f"--resume {folder}: {', '.join(fixed)} differ from the run's own recipe; start a new run")
    return recipe


def _finish(
    result: TrainResult, recipe: Recipe, options: Mapping[str, Any], progress: Progress, context: DistributedContext
) -> TrainResult:
    """Compare the trained model with others if the recipe says so, and write the report.

    Only the main process reads the checkpoint: it may still be writing the file.
    """
    folder, rival = result.folder, None
    if recipe.run.compare == SUPERVISED:
        rival = folder / SUPERVISED
        start = initial_checkpoint(recipe, folder)
        changes = {"run.compare": "none", "run.init_from": "" if start is None else str(find(start))}
        other = load_recipe(supervised_instead(recipe), changes)
        progress.note("trains the supervised run to compare with")
        silent_end = replace(progress, finished=lambda result: None)
        if not _train_first(other, {**options, "run.compare": "none"}, rival, silent_end).finished:
            return result
    if not context.is_main:
        return replace(result, finished=True)
    comparison = None
    if recipe.run.compare != "none":
        with progress.crops() as crops:
            comparison = compare(folder, recipe, rival, crops)
    report = write_report(folder, comparison)
    checkpoint = find(folder)
    metrics = describe(load(checkpoint), checkpoint).metrics
    return replace(
        result,
        finished=True,
        checkpoint=checkpoint,
        accuracy=metrics.get("accuracy"),
        balanced_accuracy=metrics.get("balanced_accuracy"),
        confusion=tuple(tuple(row) for row in metrics.get("confusion", ())),
        report=report,
        comparison=comparison,
    )


def _train_first(
    recipe: Recipe | str | Path, overrides: Mapping[str, Any], folder: Path, progress: Progress, init_from: str = ""
) -> TrainResult:
    """Return the finished run of a recipe that another run or a merged model needs; train or continue it first."""
    given = {key: value for key, value in overrides.items() if key in OPTIONS and OPTIONS[key].resumable}
    if (folder / LAST).is_file():
        return train(resume=folder, overrides=given, progress=progress)
    if init_from:
        given["run.init_from"] = init_from
    return train(recipe, out=folder, overrides=given, progress=progress)
