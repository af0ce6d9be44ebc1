"""The commands ``study``, ``step`` and ``gpu``. Knows typer; must not know the training loop."""

from __future__ import annotations

import json
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
add_recipe_command(app, "step", step)
