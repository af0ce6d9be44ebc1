"""Optimizer, learning rate and the moving average of the weights.

Knows parameters and step numbers; must not know data or losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from train.models.face_model import FaceModel
from train.recipes.schema import Optim


def build_optimizer(model: FaceModel, options: Optim) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with three groups: kernels of the encoder, its vectors (no weight decay), later layers.

    Each group has the key "multiple", its factor on the learning rate.
    """
    encoder = list(model.encoder.parameters())
    # Depthwise kernels (one input channel) count as vectors: they have few values, as a batch norm.
    kernels = [p for p in encoder if p.ndim > 1 and p.shape[1] > 1]
    vectors = [p for p in encoder if not (p.ndim > 1 and p.shape[1] > 1)]
    known = {id(p) for p in encoder}
    head = [p for p in model.parameters() if id(p) not in known]
    decay = options.weight_decay
    groups = [
        {"params": kernels, "weight_decay": decay, "multiple": 1.0},
        {"params": vectors, "weight_decay": 0.0, "multiple": 1.0},
        {"params": head, "weight_decay": decay, "multiple": options.head_lr},
    ]
    groups = [g for g in groups if g["params"]]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True, foreach=True)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, foreach=True)


def learning_rate(step: int, total: int, options: Optim) -> float:
    """The learning rate of step 0 .. total - 1: linear warm-up, then constant or half a cosine down to 1e-6."""
    rate = options.lr
    if options.warmup:
        rate *= min(1.0, (step + 1) / options.warmup)
    if options.schedule == "cosine":
        rate = rate * (0.5 + 0.5 * math.cos(math.pi * step / total)) + 1e-6
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, times its multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiple"]


def ema_decay(step: int, options: Optim) -> float:
    """The decay of the moving average at a step, from 0."""
    return min(options.ema_decay, (step + 1) / (step + 10)) if options.ema_ramp else options.ema_decay


@torch.no_grad()
def update_ema(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move parameters and buffers of the average towards the student. Integer buffers are copied."""
    pairs = list(zip(_entries(average), _entries(student), strict=True))
    floats = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1.0 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


@torch.no_grad()
def shrink(student: nn.Module, factor: float) -> None:
    """Multiply every float parameter and buffer of the student, as the published code does after each step."""
    torch._foreach_mul_([e for e in _entries(student) if e.is_floating_point()], factor)


def _entries(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
