"""The cost of a run before it starts: data, parameters, and time and memory of a few real steps. Writes nothing."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from train.data.dataset import TrainingData
from train.loop.distributed import DistributedContext
from train.loop.training import Training
from train.methods.objective import uses_unlabelled
from train.recipes.schema import Recipe

STEPS = 3  # measured, after one step of warm-up


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would use.

    Attributes:
        labels: C class names.
        counts: Part of the data ("labelled", "unlabelled", "validation") to its number of images per class, C + 1
            numbers; the last is of images without a label.
        split: Hash of the split.
        data: Hash of the training images.
        parameters: Part of the network to its number of parameters; "all" is the whole network.
        processes: Number of processes.
        device: Device of this process.
        epochs: Number of epochs.
        steps_per_epoch: Number of steps.
        batch: Labelled images per step.
        batch_unlabelled: Unlabelled images per step.
        input_size: Largest side of the network's input, px.
        seconds_per_step: Median time of a step at ``input_size``, s.
        seconds: Estimated time of all steps, s.
        memory: Peak memory of this process, bytes.
        notes: Findings about the data and the recipe, one sentence each.
    """

    labels: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    split: str
    data: str
    parameters: Mapping[str, int]
    processes: int
    device: str
    epochs: int
    steps_per_epoch: int
    batch: int
    batch_unlabelled: int
    input_size: int
    seconds_per_step: float
    seconds: float
    memory: int
    notes: tuple[str, ...] = ()


def plan_run(recipe: Recipe, data: TrainingData, context: DistributedContext, notes: tuple[str, ...] = ()) -> RunPlan:
    """Measure a few steps of a run at its largest input size.

    Args:
        recipe: Of the run.
        data: Loaded data of the recipe.
        context: This process among all processes.
        notes: Copied into the plan.
    """
    run = recipe.run
    # The start model does not change the cost, and it may not exist yet.
    training = Training(dataclasses.replace(recipe, run=dataclasses.replace(run, init_from="")), data, context, Path())
    size = max(run.input_sizes)
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        training.train_step(size)
        if context.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        training.state.step += 1
    parts = {"labelled": data.labelled, "unlabelled": data.unlabelled, "validation": data.validation}
    classes = (*range(len(data.labels)), -1)
    student = training.state.student
    modules = {name: getattr(student, name) for name in ("encoder", "semantic", "instance")}
    step = statistics.median(seconds[1:])
    sizes = run.input_sizes * run.epochs if len(run.input_sizes) == 1 else run.input_sizes
    steps = training.schedule.steps_per_epoch
    return RunPlan(
        labels=data.labels,
        counts={name: tuple(int((part.label == c).sum()) for c in classes) for name, part in parts.items()},
        split=data.split.hash,
        data=data.split.data,
        parameters={n: _parameters(m) for n, m in {"all": student, **modules}.items() if m is not None},
        processes=context.size,
        device=str(context.device),
        epochs=run.epochs,
        steps_per_epoch=steps,
        batch=run.batch,
        batch_unlabelled=run.batch_unlabelled if uses_unlabelled(recipe.method) else 0,
        input_size=size,
        seconds_per_step=step,
        seconds=step * steps * sum((s / size) ** 2 for s in sizes),
        memory=_peak_memory(context.device),
        notes=notes,
    )


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
