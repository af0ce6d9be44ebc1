"""Optimiser, learning rate and the moving average of the weights.

Knows parameters and step numbers; must not know data or losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from train.models.face_model import FaceModel
from train.recipes.schema import Optim


def build_optimizer(model: FaceModel, options: Optim) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with a group each for: kernels of the encoder, its vectors (no decay), everything after it.

    Each group's "multiple" of the learning rate stands in the group.
    """
    encoder = list(model.encoder.parameters())
    # Depthwise kernels (one input channel) count as vectors: they have as few values as a batch norm.
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
    """Of step 0 .. total - 1: linear warm-up, then constant or a half cosine down to a millionth."""
    rate = options.lr
    if options.warmup:
        rate *= min(1.0, (step + 1) / options.warmup)
    if options.schedule == "cosine":
        rate = rate * (0.5 + 0.5 * math.cos(math.pi * step / total)) + 1e-6
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its multiple of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiple"]


def ema_decay(step: int, options: Optim) -> float:
    """The share of the average that stays at this step."""
    return min(options.ema_decay, (step + 1) / (step + 10)) if options.ema_ramp else options.ema_decay


@torch.no_grad()
def update_ema(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the average towards the student, parameters and buffers; what is no float is copied."""
    ours, theirs = _entries(average), _entries(student)
    floats = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1.0 - decay)
    for a, b in zip(ours, theirs, strict=True):
        if not a.is_floating_point():
            a.copy_(b)


@torch.no_grad()
def shrink(student: nn.Module, factor: float) -> None:
    """Multiply every float entry of the student, buffers included, as the published code does after each step."""
    torch._foreach_mul_([e for e in _entries(student) if e.is_floating_point()], factor)


def _entries(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
