"""The parts of a training run in their order: load, start the folder, train.

Knows the training loop and what a caller can watch; must not know reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from leaf_rt.errors import DataError
from leaf_rt.system.files import make_folder, write_whole
from leaf_rt.system.signals import StopSignal, stop_on_signals
from train.data.dataset import TrainingData, load_data
from train.loop.checkpoint import BEST, find
from train.loop.distributed import DistributedContext, distributed_context
from train.loop.initialization import describe_start
from train.loop.precision import resolve_amp
from train.loop.run_log import Reporter
from train.loop.training import SPLIT, Training
from train.methods.objective import uses_unlabelled
from train.recipes.choice import is_for_own_faces, supervised_instead
from train.recipes.loading import to_dict, to_toml
from train.recipes.schema import RECIPE, Recipe
from train.results import SILENT, Progress, TrainResult

if TYPE_CHECKING:
    from rich.console import Console

SUPERVISED = "supervised"  # value of run.compare, and the folder of that run inside the folder of the other


def is_open(source: Recipe | str | Path | None, overrides: Mapping[str, Any]) -> bool:
    """Whether the user left the method to a recipe for own faces, so that it may follow from the data."""
    return is_for_own_faces(source) and "method.name" not in overrides


@contextmanager
def loaded(
    recipe: Recipe, resumed: Path | None, notes: Sequence[str], progress: Progress, *, own: bool
) -> Iterator[tuple[DistributedContext, Recipe, TrainingData, tuple[str, ...]]]:
    """Connect the processes and load the data.

    Args:
        recipe: Of the run.
        resumed: Folder of a run that is continued.
        notes: So far.
        progress: Receives the notes.
        own: Learn from the labelled images alone if there are no others.

    Returns:
        The context, the recipe, the data, and all notes.
    """
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with distributed_context(recipe.run.device) as context:
        shown = progress if context.is_main else SILENT
        for main_turn in (True, False):  # the main process fills the cache for all
            with context.synchronized():
                if context.is_main == main_turn:
                    with shown.crops() as crops:
                        data = load_data(recipe.data, recipe.split, resumed and resumed / SPLIT, crops)
        found = [*notes, *data.notes]
        if own and not len(data.unlabelled) and uses_unlabelled(recipe.method):
            recipe = supervised_instead(recipe)
            found.append("there is no unlabelled image: the run learns from the labelled ones alone (supervised)")
        elif own and len(data.unlabelled) and not (uses_unlabelled(recipe.method) or recipe.distill.teacher):
            found.append(f"{len(data.unlabelled)} unlabelled images are not used; --method leaf learns from them too")
        if recipe.run.compare == SUPERVISED and not uses_unlabelled(recipe.method):
            raise DataError("--compare supervised: this run is supervised itself; use --compare bundled")
        recipe, precision = resolve_amp(recipe, context)
        if precision:
            found.append(precision)
        if len(data.labelled) < recipe.run.batch:
            found.append(f"{len(data.labelled)} labelled images: each batch of {recipe.run.batch} repeats some of them")
        if not resumed:
            found.append(describe_start(recipe, data.labels))
        for note in found:
            shown.note(note)
        yield context, recipe, data, tuple(found)


def start_folder(folder: Path, recipe: Recipe) -> None:
    """Make the folder of a new run, with its recipe."""
    make_folder(folder)
    (folder / BEST).unlink(missing_ok=True)  # of a run that was killed before its first last.pt
    write_whole(folder / RECIPE, to_toml(recipe).encode(), parents=True)


def fit(training: Training, context: DistributedContext, event: str, console: Console | None) -> bool:
    """Run the training loop with log and stop signal; False if a signal stopped it."""
    recipe, data = training.recipe, training.data
    batch = recipe.run.batch + (recipe.run.batch_unlabelled if uses_unlabelled(recipe.method) else 0)
    with ExitStack() as stack:
        stop = StopSignal(started=True)
        stack.enter_context(stop_on_signals(stop, raise_on_second=True))
        reporter = None
        if context.is_main:
            reporter = Reporter(training.out, data.labels, batch, console)
            stack.enter_context(reporter)
            facts = {"recipe": to_dict(recipe), "labels": list(data.labels), "split": data.split.hash}
            reporter.event(event, step=training.state.step, **facts)
        return training.fit(reporter, stop)


def trained_result(training: Training, trained: bool, notes: tuple[str, ...]) -> TrainResult:
    """The result of the training loop, before anything is measured."""
    return TrainResult(
        folder=training.out,
        checkpoint=find(training.out),
        finished=False,
        trained=trained,
        step=training.state.step,
        steps=training.schedule.end,
        labels=training.data.labels,
        accuracy=None,
        balanced_accuracy=None,
        confusion=(),
        report=None,
        comparison=None,
        notes=notes,
    )
