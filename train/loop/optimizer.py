"""Optimizer, learning rate and the moving average of the weights.

Knows parameters and step numbers; must not know data or losses.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from train.models.face_model import FaceModel
from train.recipes.schema import Optim


def build_optimizer(model: FaceModel, options: Optim, *, fused: bool = False) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with three groups: kernels of the encoder, its vectors (no weight decay), later layers.

    Each group has the key "multiple", its factor on the learning rate.

    Args:
        model: The student.
        options: Section of the recipe.
        fused: One kernel per step, with its counters on the device, for GPUs. On CPUs the other form rounds as before.
    """
    form: dict[str, Any] = {"foreach": not fused, "fused": fused}
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
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True, **form)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, **form)


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


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of the optimizer. It keeps its own form, fused or not, whatever the device that wrote the state."""
    own = optimizer.param_groups[0]
    form = {name: own[name] for name in ("foreach", "fused")}
    optimizer.load_state_dict({**state, "param_groups": [{**group, **form} for group in state["param_groups"]]})


class Average:
    """The exponential moving average (EMA) of a student.

    Args:
        average: The model that holds it, a copy of the student.
        student: Both keep their tensors from now on.
    """

    def __init__(self, average: nn.Module, student: nn.Module) -> None:
        pairs = list(zip(_entries(average), _entries(student), strict=True))
        floats, others = ([p for p in pairs if p[0].is_floating_point() == kind] for kind in (True, False))
        self._floats = [a for a, _ in floats], [b for _, b in floats]
        self._others = [a for a, _ in others], [b for _, b in others]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move parameters and buffers towards the student. Integer buffers are copied."""
        torch._foreach_lerp_(*self._floats, 1.0 - decay)
        if self._others[0]:
            torch._foreach_copy_(*self._others)

    @torch.no_grad()
    def shrink_student(self, factor: float) -> None:
        """Multiply every float parameter and buffer of the student, as the published code does after each step."""
        torch._foreach_mul_(self._floats[1], factor)


def _entries(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
