"""Benchmark of the training step: against a plain loop with the same network, and the share of each part.

Knows the training loop; must not know data sets: it trains on noise.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from train.data.dataset import Samples, TrainingData
from train.data.splits import Partition
from train.loop.distributed import DistributedContext, pick_device
from train.loop.inference import autocast
from train.loop.precision import resolve_amp
from train.loop.training import Training
from train.models.face_model import build_model
from train.recipes.schema import Recipe

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def noise(recipe: Recipe, n: int = 512) -> TrainingData:
    """Random images with random labels, half of them labelled."""
    rng = np.random.default_rng(0)
    channels = 1 if recipe.data.color == "grey" else 3
    images = rng.integers(0, 255, (n, channels, recipe.data.side, recipe.data.side), dtype=np.uint8)
    label = rng.integers(0, len(CLASSES), n)
    half = np.arange(n) < n // 2

    def part(where: Any) -> Samples:
        rows = np.flatnonzero(where)
        return Samples(rows, np.eye(len(CLASSES), dtype=np.float32)[label[rows]], label[rows])

    empty = Partition((), (), (), "noise", {})
    return TrainingData(CLASSES, images, part(half), part(~half), part(np.zeros(n, bool)), empty, ())


def bench(recipe: Recipe, steps: int = 12) -> dict[str, Any]:
    """Measure training steps after three warm-up steps.

    Args:
        recipe: The recipe; its data options are only used for the size and colour of the images.
        steps: Number of steps to measure.

    Returns:
        "images_per_s": Views through the student per second, in the whole step.
        "plain_images_per_s": The same for a plain loop: forward, backward and Adam step of the same encoder with a
        linear layer, in float32, on as many ready views per step.
        "speedup": The ratio of both.
        "alike_images_per_s", "against_alike": The same for a plain loop with the recipe's precision, memory format
        and folded batch norms, but without experts and teacher.
        "input_share": Share of the step that makes the views.
        "outside_share": Share of the step outside forward and backward of student and teacher. These are measured
        separately, so that the loss counts as outside.
        "views_per_step", "recipe": What was measured.
    """
    device = pick_device(recipe.run.device)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    context = DistributedContext(0, 1, device)
    recipe, _ = resolve_amp(recipe, context)
    training = Training(recipe, noise(recipe), context, Path())
    training.state.step = recipe.method.unsupervised_start_step
    side = training.schedule.input_size(0)
    step_seconds, input_shares, core_shares = [], [], []
    views = 0
    for i in range(steps + 3):
        start = _now(device)
        _, seconds_input = training.train_step(side)
        seconds = _now(device) - start
        batch = training.batches.micro_batch(training.state.step, 0, side)
        views = len(batch.inputs) * recipe.optim.accumulate
        start = _now(device)
        outputs = training.forward(batch)
        total = outputs.labelled.sum() + outputs.strong.sum()
        total.backward()  # type: ignore[no-untyped-call]
        core = (_now(device) - start) * recipe.optim.accumulate
        training.state.step += 1
        if i >= 3:
            step_seconds.append(seconds)
            input_shares.append(seconds_input / seconds)
            core_shares.append(core / seconds)
    plain, alike = (_plain(recipe, views, side, device, steps, alike=alike) for alike in (False, True))
    rate = views / statistics.median(step_seconds)
    return {
        "images_per_s": round(rate, 1),
        "plain_images_per_s": round(plain, 1),
        "speedup": round(rate / plain, 2),
        "alike_images_per_s": round(alike, 1),
        "against_alike": round(rate / alike, 2),
        "input_share": round(statistics.median(input_shares), 4),
        "outside_share": round(max(0.0, 1.0 - statistics.median(core_shares)), 4),
        "views_per_step": views,
        "recipe": f"{recipe.method.name} {recipe.model.backbone} {side} px {recipe.run.amp}, folded batch norm "
        f"{recipe.model.fold_batch_norm}, {device}, {torch.get_num_threads()} threads",
    }


def _plain(recipe: Recipe, n: int, side: int, device: torch.device, steps: int, *, alike: bool) -> float:
    """Images per second of a plain loop; with ``alike`` in the recipe's precision, memory format and batch norms."""
    folded = alike and recipe.model.fold_batch_norm
    model = build_model(recipe.model.backbone, len(CLASSES), folded=folded).to(device).train()
    layout = torch.channels_last if alike and recipe.run.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(n, 3, side, side, device=device).contiguous(memory_format=layout)
    y = torch.randint(0, len(CLASSES), (n,), device=device)
    seconds = []
    for _ in range(steps + 3):
        start = _now(device)
        optimizer.zero_grad()
        with autocast(device, recipe.run.amp if alike else "off"):
            loss = F.cross_entropy(model(x).logits, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(_now(device) - start)
    return n / statistics.median(seconds[3:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
