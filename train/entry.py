"""The commands from start to end: recipe, data, run, report. Talks to people; the loop does the work."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from leaf_rt.errors import DataError, NotFound, OutputError
from leaf_rt.system.files import make_folder, save_json, write_whole
from leaf_rt.system.signals import StopSignal, stop_on_signals
from train.data.dataset import TrainingData, copies, crop_spec, load_data, open_crops
from train.data.formats import SPLITS
from train.loop.checkpoint import BEST, LAST
from train.loop.distributed import DistributedContext, pick_device, said_once, world
from train.loop.initialization import BEFORE, earlier, need_start
from train.loop.merging import merge
from train.loop.run_log import Reporter
from train.loop.training import SPLIT, Training
from train.recipes.schema import RECIPE, Recipe, load_recipe, to_dict, to_toml
from train.reports.evaluation import evaluate

WIDE = 120  # columns of a terminal that holds the confusion of eight classes with their whole names
OWN = {"cuda": "own", "cpu": "own-cpu"}  # the recipe where none is named
# What may differ when a run goes on: where it runs and how much it says, nothing that changes its result.
FREE = {"data.path", "data.cache", "model.weights", "split.path", "run.device", "run.threads", "run.log_every",
        "run.checkpoint_steps"}  # fmt: skip


@contextmanager
def cropping(console: Console | None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for the crop cache; shown only when there is something to do for longer than a moment."""
    columns = (TextColumn("finding faces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None) as bar:
        task = bar.add_task("crops", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total) if done % 50 == 0 else None


def train_command(
    source: str | None,
    overrides: Mapping[str, Any],
    out: str | None,
    resume: str | None,
    *,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """``train``: a new run, a resumed one, or what it would be.

    Raises:
        LeafError: Anything that a person can mend.
    """
    folder = Path(resume or out or "runs/last")
    with said_once():
        recipe, notes = (_resumed(folder, overrides), []) if resume else _chosen(source, overrides)
        if not resume and not dry_run and (folder / LAST).is_file():
            raise DataError(
                f"--out {folder}: holds a run already; go on with --resume {folder}, or choose another folder"
            )
        if not resume:
            need_start(recipe, folder)
    if not resume and not dry_run and earlier(recipe, folder) == folder / BEFORE:
        code = _finish(recipe.run.before, overrides, folder / BEFORE, quiet=quiet)
        if code:
            return code
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with world(recipe.run.device) as here:
        console = Console(stderr=True) if here.main and not quiet else None
        data = _load(recipe, here, console, folder / SPLIT if resume else None)
        notes += data.notes
        if len(data.labelled) < recipe.run.batch:
            notes.append(f"{len(data.labelled)} labelled pictures fill a batch of {recipe.run.batch} more than once")
        if not (recipe.model.weights or recipe.run.before):
            notes.append(
                "the network starts from random weights; --weights with a face-recognition one learns far faster"
            )
        for note in notes if console else ():
            Console(stderr=True).print(f"note: {note}", soft_wrap=True)
        if dry_run:
            from train.reports.dry_run import dry_run as describe

            describe(recipe, data, here, Console(stderr=True) if here.main else None)
            return 0
        with here.together():
            if here.main and not resume:
                make_folder(folder)
                (folder / BEST).unlink(missing_ok=True)  # of a run that was killed before its first whole state
                write_whole(folder / RECIPE, lambda f: f.write(to_toml(recipe).encode()), parents=True)
        training = Training(recipe, data, here, folder, resumed=resume is not None)
        if resume:
            training.restore()
            if here.main:
                for torn in folder.glob(".*.part"):  # left by a process that was killed while it wrote
                    torn.unlink()
        batch = recipe.run.batch + (recipe.run.batch_unlabelled if training.semi else 0)
        with ExitStack() as stack:
            stop = StopSignal(started=True)
            stack.enter_context(stop_on_signals(stop, raise_on_second=True))
            reporter = None
            if here.main:
                made = Reporter(folder, data.labels, batch, recipe.run.log_every, console)
                reporter = stack.enter_context(made)
                reporter.event("resume" if resume else "start", step=training.step, recipe=to_dict(recipe),
                               labels=list(data.labels), split=data.split.hash)  # fmt: skip
            done = training.fit(reporter, stop)
        if here.main and not done:
            sys.stderr.write(f"stopped; go on with: leaf-rt train --resume {folder}\n")
        if here.main and done:
            from train.reports.run_report import write_report

            page = write_report(folder)
            if console:
                console.print(f"done: {folder / LAST}, report {page}")
        return 0 if done else 130


def _chosen(source: str | None, overrides: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """The recipe of a new run, and what was chosen for the person who said nothing of it."""
    notes = []
    if source is None:
        kind = pick_device(str(overrides.get("run.device", "auto"))).type
        source = OWN[kind]
        if kind == "cpu":
            notes.append(
                f"no GPU here: recipe {source}, smaller than {OWN['cuda']} (--recipe {OWN['cuda']} takes that)"
            )
    recipe = load_recipe(source, overrides)
    if "run.batch" in overrides and "run.batch_unlabelled" not in overrides:
        usual = load_recipe(source, {k: v for k, v in overrides.items() if k != "run.batch"}).run
        follows = max(1, round(usual.batch_unlabelled * recipe.run.batch / usual.batch))
        if follows != recipe.run.batch_unlabelled:
            notes.append(f"run.batch_unlabelled is {follows}, in the recipe's proportion to --batch")
            recipe = load_recipe(source, {**overrides, "run.batch_unlabelled": follows})
    return recipe, notes


def _load(recipe: Recipe, here: DistributedContext, console: Console | None, saved: Path | None) -> TrainingData:
    """Load the data, the main process first, so that one alone fills the cache."""
    for turn in (True, False):
        with here.together():
            if here.main == turn:
                with cropping(console) as progress:
                    data = load_data(recipe.data, recipe.split, saved, progress)
    return data


def _finish(recipe: str, overrides: Mapping[str, Any], folder: Path, *, quiet: bool, before: str = "") -> int:
    """Do, go on with, or find done the run of a recipe that another run or model starts from, or goes into."""
    given = {k: v for k, v in overrides.items() if k in FREE}
    resume = str(folder) if (folder / LAST).is_file() else None
    if before and not resume:
        given["run.before"] = before
    return train_command(recipe, given, str(folder), resume, quiet=quiet)


def merge_command(
    models: Sequence[str],
    overrides: Mapping[str, Any],
    out: str,
    shares: Sequence[float],
    *,
    mean: Literal["logits", "weights"] = "logits",
    quiet: bool = False,
) -> int:
    """``merge``: one model of several runs; those named by a recipe are trained first, in folders inside ``out``.

    A run that several of them start from is done once.

    Raises:
        LeafError: Anything that a person can mend.
    """
    runs = []
    for model in models:
        run = Path(model)
        if run.suffix == ".toml" or not run.exists():
            before = load_recipe(model).run.before
            if before and Path(before).suffix != ".pt":
                start = Path(out) / Path(before).stem
                code = _finish(before, overrides, start, quiet=quiet)
                if code:
                    return code
                before = str(start / LAST)
            run = Path(out) / run.stem
            code = _finish(model, overrides, run, quiet=quiet, before=before)
            if code:
                return code
        runs.append(run)
    path = merge(runs, Path(out), shares, mean)
    sys.stderr.write(f"written: {path}\n")
    return 0


def _resumed(folder: Path, overrides: Mapping[str, Any]) -> Recipe:
    path = folder / RECIPE
    if not path.is_file():
        raise NotFound(f"--resume {folder}: holds no run ({RECIPE} is missing)")
    before, after = load_recipe(path), load_recipe(path, overrides)
    old, new = to_dict(before), to_dict(after)
    changed = [f"{s}.{k}" for s in old for k in old[s] if old[s][k] != new[s][k] and f"{s}.{k}" not in FREE]
    if changed:
        raise DataError(f"--resume {folder}: {', '.join(changed)} differ from the run's own recipe; start a new run")
    return after


def prepare_command(source: str | None, overrides: Mapping[str, Any], out: str | None) -> int:
    """``prepare``: fill a crop cache and say what is in the data."""
    given = dict(overrides)
    if out:
        given["data.cache"] = out
    recipe = load_recipe(source, given)
    console = Console(stderr=True)
    with cropping(console) as progress:
        listing, crops = open_crops(recipe.data, progress)
    table = Table("class", *SPLITS, title=listing.name)  # a class per line: many names side by side are cut off
    for c, name in [*enumerate(listing.labels), (-1, "unlabelled")]:
        table.add_row(
            name, *(str(int(((listing.split == n) & (listing.label == c)).sum())) for n in range(len(SPLITS)))
        )
    table.add_row("all", *(str(int((listing.split == n).sum())) for n in range(len(SPLITS))))
    console.print(table)
    readable = crops.row >= 0
    found = crops.found[crops.row[readable]]
    console.print(f"crops: {crop_spec(recipe.data)}")
    if recipe.data.align:
        console.print(f"face found and aligned: {int(found.sum())}; whole picture: {int((~found).sum())}")
    console.print(f"unreadable: {len(crops.unreadable)} {', '.join(crops.unreadable[:10])}")
    hashes = [crops.pixels[r] for r in crops.row[readable].tolist()]
    console.print(f"exact copies of an earlier picture: {len(hashes) - len(set(hashes))}; "
                  f"training pictures that are copies of validation or test pictures: "
                  f"{int(copies(listing, crops).sum())}")  # fmt: skip
    for note in listing.notes:
        console.print(f"note: {note}")
    return 0


def evaluate_command(
    source: str | None,
    overrides: Mapping[str, Any],
    model: str,
    split: str,
    *,
    backend: str,
    flip: bool,
    json_path: str | None,
) -> int:
    """``evaluate``: accuracy, recall per class, confusion; as a table and, if asked, JSON."""
    path = Path(model)
    own = path / RECIPE if path.is_dir() else path.parent / RECIPE
    if source is None and own.is_file() and path.suffix not in (".onnx", ".plan", ".xml"):
        source = str(own)
    recipe = load_recipe(source, overrides)
    silent = json_path == "-"
    if json_path and not silent:
        _need_free(Path(json_path))
    console = Console(stderr=True)
    with cropping(None if silent else console) as progress:
        result = evaluate(path, recipe, split, backend=backend, flip=flip, progress=progress)
    if silent:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    if json_path:
        save_json(Path(json_path), result)
    labels = list(result["recall"])
    width = shutil.get_terminal_size((120, 20)).columns
    heads = labels if width >= WIDE else [name[:4] for name in labels]  # in the order of the rows
    table = Table("label \\ answer", *heads, "recall", title=f"{result['model']} on {result['pictures']}")
    for name, row in zip(labels, result["confusion"], strict=True):
        recall = result["recall"][name]
        table.add_row(name, *map(str, row), "-" if recall is None else f"{100 * recall:.1f} %")
    out = Console(width=width)
    out.print(table)
    out.print(
        f"accuracy {100 * result['accuracy']:.2f} % of {result['n']}, balanced "
        f"{100 * result['balanced_accuracy']:.2f} %, calibration error {result['calibration_error']:.4f}"
    )
    return 0


def _need_free(path: Path) -> None:
    """Raise OutputError where a result would take the place of anything but an earlier result."""
    if not path.exists():
        return
    try:
        earlier = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size < 1 << 20 else None
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict) or "confusion" not in earlier:
        raise OutputError(
            f"--json {path}: is something else than an earlier result; choose another place, or - to print"
        )
