"""The precision of the training step on this machine, for ``run.amp`` "auto": bf16 where it is quicker than fp32.

Processors without bf16 instructions compute bf16 many times more slowly than fp32, so a step is measured.
Knows networks and devices; must not know data or losses.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

import torch
from torch import Tensor

from train.loop.distributed import DistributedContext
from train.loop.inference import autocast
from train.models.face_model import FaceModel, build_model
from train.recipes.schema import Recipe

AUTO = "auto"
AMPERE = (8, 0)  # first compute capability of CUDA with bf16 instructions; older cards emulate them
_PICTURES = 8  # of a measured step; the ratio of both precisions hardly depends on it
_ROUNDS = 3
_MARGIN = 0.9  # bf16 rounds to 8 bits, so a smaller gain in time is not worth it
_CLASSES = 8


def resolve_amp(recipe: Recipe, context: DistributedContext) -> tuple[Recipe, str]:
    """Replace ``run.amp`` "auto" by the quicker precision: "bf16" or "off". All processes choose the same.

    On a CPU one step is measured in both. On CUDA it is bf16 if every card has bf16 instructions.

    Args:
        recipe: Of a new run. With another value of ``run.amp`` it is returned as it is.
        context: This process among all processes.

    Returns:
        The recipe, and one sentence on what was chosen and why; empty if nothing was to choose.
    """
    if recipe.run.amp != AUTO:
        return recipe, ""
    if context.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(context.device)
        amp: Literal["bf16", "off"] = "off" if context.any((major, minor) < AMPERE) else "bf16"
        has = "has" if amp == "bf16" else "has no"
        reason = f"a GPU of compute capability {major}.{minor} {has} bf16 instructions"
    else:
        fp32 = bf16 = 0.0
        if context.is_main:
            fp32, bf16 = step_seconds(recipe, context.device)
        amp = "bf16" if context.any(bf16 < _MARGIN * fp32) else "off"
        reason = f"a step of few pictures takes {fp32:.3g} s in fp32 and {bf16:.3g} s in bf16 here"
    chosen = "bf16" if amp == "bf16" else "off (fp32)"
    note = f"run.amp auto: {chosen}, because {reason}"
    return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, amp=amp)), note


def step_seconds(recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Seconds of a forward and backward pass of the recipe's network in fp32 and in bf16, on a few random pictures."""
    memory = torch.channels_last if recipe.run.channels_last else torch.contiguous_format
    model = build_model(recipe.model.backbone, _CLASSES, folded=recipe.model.fold_batch_norm)
    model = model.to(device, memory_format=memory).train()  # type: ignore[call-overload]
    side, n = max(recipe.run.input_sizes), max(2, min(_PICTURES, recipe.run.batch))
    x = torch.rand(n, 3, side, side, device=device).contiguous(memory_format=memory)
    fp32, bf16 = _pass_seconds(model, x, "off"), _pass_seconds(model, x, "bf16")  # the first ones prepare kernels
    if bf16 > 4 * fp32 + 1.0:  # emulated: do not wait for more of it
        return fp32, bf16
    rounds = [(_pass_seconds(model, x, "off"), _pass_seconds(model, x, "bf16")) for _ in range(_ROUNDS)]
    return min(a for a, _ in rounds), min(b for _, b in rounds)  # the least disturbed by other programs


def _pass_seconds(model: FaceModel, x: Tensor, amp: str) -> float:
    start = time.perf_counter()
    with autocast(x.device, amp):
        loss = model(x).logits.float().square().mean()
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - start
