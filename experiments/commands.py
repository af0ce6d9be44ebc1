"""The commands of the experiments: on the trainer, with the options of a recipe, and on a GPU.

Knows typer; must not know the training loop.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from leaf_rt.cli import options as opt
from leaf_rt.cli.training import Overrides, RecipeName, add_recipe_command
from leaf_rt.errors import BackendError, DataError

app = typer.Typer(
    help="Experiments on the trainer.", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)


def study(
    overrides: Overrides,
    table: Annotated[int, typer.Option(metavar="N", min=1, max=3, help="Number of the table in docs/results.md.")],
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path("runs/study"),
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per row.")] = 3,
    rows: Annotated[str, typer.Option(metavar="NAME,...", help="Only these rows of the table.")] = "",
    show: Annotated[bool, typer.Option("--show", help="Only print the table of the finished runs.")] = False,
    debug: opt.Debug = False,
) -> None:
    """Train and evaluate the runs of a table, and print it."""
    from experiments.study import markdown, run_study

    if seeds < 1:
        raise DataError(f"--seeds: wanted 1 or more, got {seeds}")
    if not show:
        run_study(table, overrides, runs, seeds, [row for row in rows.split(",") if row])
    typer.echo(markdown(table, overrides, runs, seeds), nl=False)


def protocol(
    overrides: Overrides,
    methods: Annotated[
        str, typer.Option(metavar="NAME,...", help="Methods; usual: all baselines and ramps.")
    ] = "usual",
    labels: Annotated[str, typer.Option("--budgets", metavar="N,...", help="Numbers of labels.")] = "400,2000",
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per method with its best learning rate.")] = 3,
    rates: Annotated[str, typer.Option(metavar="RATE,...", help="Learning rates of the grid.")] = "1.5e-4,3e-4,6e-4",
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path("runs/protocol"),
    packed: Annotated[Path | None, typer.Option(metavar="FILE", help="Faces and start weights from `pack`.")] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Outputs of frozen early layers, from `freeze`.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Runs side by side.")] = 1,
    minutes: Annotated[float, typer.Option(metavar="M", help="Stop after this time; 0: no limit.")] = 0.0,
    test: Annotated[bool, typer.Option("--test", help="Only measure the chosen runs on the test split.")] = False,
    others: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="Only measure the chosen runs on labelled images of another source."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only print the tables of the finished runs.")] = False,
    debug: opt.Debug = False,
) -> None:
    """Compare methods: learning rates by validation, seeds, curves. Can be stopped and started again."""
    from experiments.forms import USUAL
    from experiments.frozen import Features
    from experiments.protocol import Protocol, markdown, measure_others, measure_test, run_beside, run_protocol

    for name, value in (("--seeds", seeds), ("--jobs", jobs)):
        if value < 1:
            raise DataError(f"{name}: wanted 1 or more, got {value}")
    try:
        numbers, steps = [int(n) for n in labels.split(",")], [float(rate) for rate in rates.split(",")]
    except ValueError as e:
        raise DataError(f"--budgets, --rates: wanted numbers with commas between them ({e})") from e
    names = list(USUAL) if methods == "usual" else methods.split(",")
    stored = Features(features) if features is not None else None
    study = Protocol(runs, names, numbers, seeds, steps, overrides, packed, stored)
    if test:
        measure_test(study)
    elif others is not None:
        measure_others(study, others)
    elif not show and jobs > 1:
        run_beside(jobs, sys.argv[1:])
    elif not show:
        run_protocol(study, minutes)
    typer.echo(markdown(study, on="" if others is None else "others"), nl=False)


def pack(
    overrides: Overrides,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")] = Path("runs/study.zip"),
    pictures: Annotated[int, typer.Option(metavar="N", help="Training pictures.")] = 20000,
    validation: Annotated[int, typer.Option("--held-out", metavar="N", help="Validation pictures.")] = 3500,
    debug: opt.Debug = False,
) -> None:
    """Write faces and start weights of the long protocol into one file, for a machine without them."""
    from experiments.packed import pack as write
    from experiments.protocol import RECIPE
    from train.recipes.loading import load_recipe

    typer.echo(json.dumps(write(load_recipe(RECIPE, overrides), out, pictures, validation)))


def freeze(
    overrides: Overrides,
    packed: Annotated[Path, typer.Option(metavar="FILE", help="Faces and start weights from `pack`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")] = Path("runs/features.pt"),
    debug: opt.Debug = False,
) -> None:
    """Store the outputs of the early layers of the long protocol, for quicker runs with these layers frozen."""
    from experiments.frozen import freeze as write
    from experiments.protocol import RECIPE
    from train.recipes.loading import load_recipe

    typer.echo(json.dumps(write(load_recipe(RECIPE, overrides), packed, out)))


def step(
    overrides: Overrides,
    recipe: RecipeName = None,
    count: Annotated[int, typer.Option(metavar="N", help="Number of steps to measure.")] = 12,
    debug: opt.Debug = False,
) -> None:
    """Measure the training step; the last line is JSON."""
    from experiments.training_step import bench
    from train.recipes.loading import load_recipe

    if count < 1:
        raise DataError(f"--count: wanted 1 or more, got {count}")
    typer.echo(json.dumps(bench(load_recipe(recipe, overrides), count)))


@app.command()
def gpu(
    cpu: Annotated[bool, typer.Option("--cpu", help="Measure a small part on the CPU, to try the command.")] = False,
    clip: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Video for whole runs (default: without whole runs).")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of the training to measure.")] = 20,
    debug: opt.Debug = False,
) -> None:
    """Measure training and inference on the GPU; a Markdown table, then one line of JSON."""
    import torch

    from experiments.gpu import machine, measure_gpu, report

    if not cpu and not torch.cuda.is_available():
        raise BackendError("gpu: PyTorch finds no NVIDIA GPU here; check nvidia-smi, or try the command with --cpu")
    rows = []
    for row in measure_gpu(cpu=cpu, clip=clip, steps=count):
        typer.echo(f"{row.part}: {row.what}: {row.figure}", err=True)
        rows.append(row)
    typer.echo(report(rows, **machine(cpu=cpu)))


add_recipe_command(app, "study", study)
add_recipe_command(app, "protocol", protocol)
add_recipe_command(app, "pack", pack)
add_recipe_command(app, "freeze", freeze)
add_recipe_command(app, "step", step)
