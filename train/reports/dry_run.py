"""What a run would be: splits, parameters, and memory and time from a few real steps. Writes nothing."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from train.data.dataset import TrainingData
from train.loop.distributed import DistributedContext
from train.loop.training import Training
from train.methods.objective import uses_unlabelled
from train.recipes.schema import Recipe

STEPS = 3  # measured, after one to warm up


def dry_run(recipe: Recipe, data: TrainingData, context: DistributedContext, console: Console | None) -> None:
    """Print the plan of a run to ``console`` (None: other processes) after a few steps of it at its largest side."""
    alone = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, init_from=""))  # its start changes no cost
    training = Training(alone, data, context, Path())
    seconds = []
    side = max(recipe.run.input_sizes)
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        training.train_step(side)
        if context.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        training.state.step += 1
    if console is None:
        return
    parts_of_data = {"labelled": data.labelled, "unlabelled": data.unlabelled, "validation": data.validation}
    table = Table("class", *parts_of_data)  # a class per line: many names side by side are cut off
    for c, name in enumerate(data.labels):
        table.add_row(name, *(str(int((part.label == c).sum())) for part in parts_of_data.values()))
    table.add_row("not known", *(str(int((part.label < 0).sum())) for part in parts_of_data.values()))
    table.add_row("all", *(str(len(part)) for part in parts_of_data.values()))
    console.print(table)
    parts = {"all": training.state.student, "encoder": training.state.student.encoder}
    parts |= {n: m for n in ("semantic", "instance") if (m := getattr(training.state.student, n)) is not None}
    counts_text = ", ".join(f"{n} {sum(p.numel() for p in m.parameters()):,}" for n, m in parts.items())
    step = sorted(seconds[1:])[STEPS // 2]
    shares = [(s / side) ** 2 for s in (recipe.run.input_sizes * recipe.run.epochs)[: recipe.run.epochs]]
    steps = training.schedule.steps_per_epoch
    total = step * steps * sum(shares)
    if context.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(context.device) / 2**30
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    console.print(f"split {data.split.hash[:12]} of data {data.split.data[:12]}")
    console.print(f"parameters: {counts_text}")
    run, unlabelled = recipe.run, recipe.run.batch_unlabelled if uses_unlabelled(recipe.method) else 0
    console.print(f"{context.size} process(es) on {context.device}, {run.epochs} epochs of {steps} steps")
    console.print(f"each step sees {run.batch} labelled and {unlabelled} unlabelled pictures at up to {side} px")
    console.print(
        f"{step:.3f} s per step at {side} px, about {total / 60:.1f} minutes in all, {memory:.2f} GiB per process"
    )
