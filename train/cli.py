"""The command line: ``python -m train [train] ...``, ``prepare``, ``evaluate``, ``study``, ``bench``.

Parses options and talks to people; heavy imports stay inside the commands.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leaf_rt.errors import DataError, run_command

# Short names of what is said most often.
SHORT = {
    "data": "data.path",
    "layout": "data.layout",
    "labels": "split.labels",
    "method": "method.name",
    "mode": "method.mode",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "epochs": "run.epochs",
    "steps": "run.steps",
    "batch": "run.batch",
    "input-sizes": "run.input_sizes",
    "seed": "run.seed",
    "device": "run.device",
    "amp": "run.amp",
    "threads": "run.threads",
}
_USAGE = {
    "train": "--data DATA --out DIR",
    "prepare": "--data DATA",
    "evaluate": "MODEL --data DATA",
    "merge": "RUN|RECIPE ... --out DIR",
    "study": "--table N --data DATA",
    "bench": "--recipe NAME",
}
COMMANDS = tuple(_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; ``train`` where none is named.

    Args:
        argv: Without the program's name; the process's own if None.

    Returns:
        The exit code; 0 is success, 130 an interruption whose state was saved, others as in ``leaf_rt.errors``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"] and arguments[1:2] and arguments[1] in COMMANDS:
        del arguments[0]  # `leaf-rt train prepare ...`
    if not arguments or arguments[0] not in COMMANDS:
        if arguments and not arguments[0].startswith("-"):
            sys.stderr.write(f"unknown command {arguments[0]}; there are {', '.join(COMMANDS)}\n")
            return 2
        arguments.insert(0, "train")
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return run_command(lambda: int(options.run(options)), options.debug)


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(prog="leaf-rt train", description="Train and measure expression recognisers.")
    commands = top.add_subparsers(required=True, metavar="{" + ",".join(COMMANDS) + "}")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, *, recipe: bool = True) -> Any:
        typed = f"leaf-rt {'' if name in ('train', 'evaluate') else 'train '}{name}"
        sub = commands.add_parser(
            name, help=text, description=text, prog=typed, usage=f"{typed} {_USAGE[name]} [options]"
        )
        sub.set_defaults(run=run)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        if recipe:
            _recipe_options(sub)
        return sub

    sub = add("train", _train, "Train a model.")
    sub.add_argument("--out", metavar="DIR", help="the run's folder")
    sub.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    sub.add_argument("--dry-run", action="store_true", help="say what would be done, and what it would cost")
    sub.add_argument("--quiet", action="store_true", help="no progress view")
    sub = add("prepare", _prepare, "Find, cut and cache the faces of a data set.")
    sub.add_argument("--out", metavar="DIR", help="folder of the cache")
    sub = add("evaluate", _evaluate, "Measure a run, a checkpoint or an exported model.")
    sub.add_argument("model", help="a run's folder, a checkpoint, or an .onnx file with its JSON")
    sub.add_argument("--split", choices=("validation", "test", "all"), default="validation",
                     help="validation (the default; of a run, what it held out where the data brings none), test, or "
                          "all labelled pictures")  # fmt: skip
    sub.add_argument("--backend", default="auto", help="for exported models")
    sub.add_argument("--flip", action="store_true", help="average over mirror images (checkpoints)")
    sub.add_argument("--json", metavar="FILE", help="write the result as JSON too; - prints it alone")
    sub = add("merge", _merge, "Several runs as one model: the mean of their logits, or of their weights.")
    sub.add_argument("model", nargs="+", help="a run's folder, a checkpoint, or a recipe that is trained first")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder of the merged checkpoint")
    sub.add_argument("--shares", metavar="A,B", default="", help="what each run counts, in proportion (default equal)")
    sub.add_argument("--mean", choices=("logits", "weights"), default="logits", help="of what (default logits)")
    sub.add_argument("--quiet", action="store_true", help="no progress view")
    sub = add("study", _study, "Do the runs of a table of docs/results.md, and print it.")
    sub.add_argument("--table", type=int, choices=(1, 2, 3), required=True)
    sub.add_argument("--runs", metavar="DIR", default="runs/study", help="where finished runs are noted")
    sub.add_argument("--seeds", type=int, default=3, help="runs per row (default 3)")
    sub.add_argument("--rows", metavar="NAME,...", default="", help="some rows of the table alone")
    sub.add_argument("--show", action="store_true", help="print the table of what is finished, run nothing")
    sub = add("bench", _bench, "Measure the training step; the last line is JSON.")
    sub.add_argument("--count", type=int, default=12, help="steps to measure (default 12)")
    return top


def _recipe_options(sub: argparse.ArgumentParser) -> None:
    from train.recipes.schema import ALIASES, CHOICES, option_types, recipe_names

    sub.add_argument("--recipe", metavar="NAME|FILE", help=f"a TOML file, or one of {', '.join(recipe_names())}")
    for short, key in SHORT.items():
        sub.add_argument(f"--{short}", dest=key, metavar="VALUE", help=f"the same as --{key}")
    group = sub.add_argument_group("every value of a recipe")
    for key, kind in option_types().items():
        choices = CHOICES.get(key)
        name = kind.__name__ if hasattr(kind, "__name__") else str(kind)
        text = ", ".join(choices) if choices else "values with commas" if name == "tuple" else name
        group.add_argument(f"--{key}", dest=key, metavar="VALUE", help=text)
    for old, key in {**ALIASES, "sides": "run.input_sizes"}.items():
        sub.add_argument(f"--{old}", dest=key, help=argparse.SUPPRESS)


def _overrides(options: argparse.Namespace) -> dict[str, str]:
    return {key: value for key, value in vars(options).items() if "." in key and value is not None}


def _train(options: argparse.Namespace) -> int:
    from train.entry import train_command

    if options.resume and (options.out or options.recipe):
        raise DataError(
            "--resume goes on with a run in its own folder, by its own recipe; leave out --out and --recipe"
        )
    return train_command(options.recipe, _overrides(options), options.out, options.resume,
                         dry_run=options.dry_run, quiet=options.quiet)  # fmt: skip


def _prepare(options: argparse.Namespace) -> int:
    from train.entry import prepare_command

    return prepare_command(options.recipe, _overrides(options), options.out)


def _merge(options: argparse.Namespace) -> int:
    from train.entry import merge_command

    try:
        shares = [float(share) for share in options.shares.split(",") if share]
    except ValueError as e:
        raise DataError(f"--shares {options.shares}: wanted numbers with commas, one per run") from e
    return merge_command(
        options.model, _overrides(options), options.out, shares, mean=options.mean, quiet=options.quiet
    )


def _study(options: argparse.Namespace) -> int:
    from experiments.study import markdown, run_study

    overrides, runs = _overrides(options), Path(options.runs)
    if options.seeds < 1:
        raise DataError(f"--seeds: wanted 1 or more, got {options.seeds}")
    if options.recipe:
        raise DataError("study: the tables bring their own recipes; leave --recipe out")
    if not options.show:
        run_study(options.table, overrides, runs, options.seeds, [r for r in options.rows.split(",") if r])
    sys.stdout.write(markdown(options.table, overrides, runs, options.seeds))
    return 0


def _bench(options: argparse.Namespace) -> int:
    import json

    from experiments.training_step import bench
    from train.recipes.schema import load_recipe

    if options.count < 1:
        raise DataError(f"--count: wanted 1 or more, got {options.count}")
    sys.stdout.write(json.dumps(bench(load_recipe(options.recipe, _overrides(options)), options.count)) + "\n")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from train.entry import evaluate_command

    return evaluate_command(
        options.recipe, _overrides(options), options.model, options.split,
        backend=options.backend, flip=options.flip, json_path=options.json,
    )  # fmt: skip
