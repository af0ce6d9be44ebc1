"""The network at step 0: built, loaded, its batch norms brought to the data and folded.

Knows recipes and models; must not know losses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from leaf_rt.errors import NotFound
from train.augment.transforms import SUPERVISED_DRAWS, WEAK_DRAWS, draw
from train.augment.views import Views
from train.data.dataset import Images, TrainingData
from train.loop.checkpoint import find, load, load_weights
from train.loop.inference import autocast
from train.models.backbones import build_backbone, fold_batch_norm, load_backbone
from train.models.face_model import FaceModel, build_model, model_options
from train.recipes.schema import Recipe

BEFORE = "before"  # folder of the run that came before, in a run's folder


def earlier(recipe: Recipe, out: Path) -> Path | None:
    """Where the model lies that the run into ``out`` starts from: a run's folder or a checkpoint; None: nowhere."""
    before = recipe.run.init_from
    if not before:
        return None
    return Path(before) if Path(before).suffix == ".pt" else out / BEFORE


def need_start(recipe: Recipe, out: Path) -> None:
    """See that the files are there that a new run into ``out`` starts from, before anything dear is done.

    Raises:
        NotFound: One is not.
    """
    before, weights = earlier(recipe, out), recipe.model.weights
    if before is not None and before != out / BEFORE:
        if not before.is_file():
            raise NotFound(f"run.init_from {before}: no such file; give the checkpoint of a finished run, or a recipe")
    elif weights and before is None and not Path(weights).is_file():
        raise NotFound(f"model.weights {weights}: no such file")


def start_model(
    recipe: Recipe,
    data: TrainingData,
    images: Images,
    views: Views,
    before: Path | None = None,
    *,
    bare: bool = False,
) -> FaceModel:
    """The model that training starts from, on the device of the images; the seed decides all that is random.

    Args:
        recipe: Of the run.
        data: The training pictures are what batch norms are brought to.
        images: The crops.
        views: Makes views of them.
        before: A finished run of the same network, or its checkpoint, whose EMA model is the start.
        bare: The weights come from elsewhere: read no file, leave them random.
    """
    torch.manual_seed(recipe.run.seed)
    memory = torch.channels_last if recipe.run.channels_last else torch.contiguous_format
    encoder = build_backbone(recipe.model.backbone)
    if recipe.model.weights and before is None and not bare:
        load_backbone(encoder, recipe.model.backbone, Path(recipe.model.weights))
    encoder = encoder.to(images.device, memory_format=memory)  # type: ignore[call-overload]
    if recipe.model.recalibrate and before is None and not bare:
        recalibrate(encoder, recipe, data, images, views)
    if recipe.model.fold_batch_norm:
        fold_batch_norm(encoder.eval())
    options = model_options(recipe.model, recipe.method, len(data.labels), int(encoder.dim))
    model = build_model(**options)
    model.encoder = encoder
    if before is not None and not bare:
        path = find(before)
        load_weights(model, load(path)["ema"], path)
    elif recipe.model.zero_head:
        nn.init.zeros_(model.classifier.weight)
        nn.init.zeros_(model.classifier.bias)
    model.to(images.device, memory_format=memory)  # type: ignore[call-overload]
    return model.train()


@torch.no_grad()
def recalibrate(encoder: nn.Module, recipe: Recipe, data: TrainingData, images: Images, views: Views) -> None:
    """New batch-norm statistics: the plain mean over ``model.recalibrate`` batches of training views."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    rows = np.concatenate([data.labelled.row, data.unlabelled.row])
    source = np.random.default_rng([recipe.run.seed, 1])
    rng = torch.Generator().manual_seed(int(source.integers(2**62)))
    numbers = SUPERVISED_DRAWS if recipe.augment.labelled == "supervised" else WEAK_DRAWS
    encoder.train()
    with autocast(images.device, recipe.run.amp):
        for _ in range(recipe.model.recalibrate):
            crops = images[source.choice(rows, min(64, len(rows)))]
            encoder(views.finish(views.labelled(crops, draw(len(crops), numbers, rng), recipe.run.input_sizes[0])))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
