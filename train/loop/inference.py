"""Predictions of a model without augmentation. Knows models and images; must not know losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from leaf_rt.errors import ModelError
from leaf_rt.types import F32, I64
from train.augment.transforms import resize, to_float
from train.augment.views import Views
from train.data.dataset import Images


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The autocast context of "off", "bf16" or "fp16".

    Raises:
        ValueError: ``amp`` is another text, such as "auto", which ``precision.resolve_amp`` replaces.
    """
    if amp not in ("off", "bf16", "fp16"):
        raise ValueError(f"amp: wanted 'off', 'bf16' or 'fp16', got {amp!r}")
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=amp != "off")


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Images,
    rows: I64,
    side: int,
    views: Views,
    amp: str,
    batch: int = 128,
    *,
    flip: bool = False,
) -> F32:
    """Probabilities of a model in eval mode. Its former mode is restored.

    Args:
        model: Returns ``face_model.Output``.
        images: The crops.
        rows: (N,) int64, rows of the crops.
        side: Of the network's input, px.
        views: Normalises the crops.
        amp: See ``autocast``.
        batch: Number of faces per forward pass.
        flip: Average over each face and its mirror image.

    Returns:
        (N, C) float32.

    Raises:
        ModelError: A probability is not finite.
    """
    training = model.training
    model.eval()
    collected: list[Tensor] = []
    with autocast(images.device, amp):
        for start in range(0, len(rows), batch):
            x = views.finish(resize(to_float(images[rows[start : start + batch]]), side))
            probs = model(x).logits.float().softmax(1)
            if flip:
                probs = (probs + model(x.flip(3)).logits.float().softmax(1)) / 2
            collected.append(probs.cpu())
    model.train(training)
    joined = np.asarray(torch.cat(collected).numpy() if collected else np.zeros((0, 0)), np.float32)
    if not np.isfinite(joined).all():
        raise ModelError("the model's probabilities are not finite: its training diverged; lower --optim.lr")
    return joined
