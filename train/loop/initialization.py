"""The checks before a run starts, and the network at step 0.

Knows recipes, data and models; must not know losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from leaf_rt.errors import DataError, NotFound
from train.augment.transforms import draw_numbers
from train.augment.views import Views, labelled_numbers
from train.data.dataset import Images, TrainingData
from train.loop.checkpoint import find, load, load_weights
from train.loop.inference import autocast
from train.methods.objective import uses_unlabelled
from train.models.backbones import build_backbone, fold_batch_norm, load_backbone
from train.models.bundled import known_classes, load_bundled
from train.models.face_model import FaceModel, build_model, model_options
from train.recipes.schema import BUNDLED, BUNDLED_BACKBONE, Recipe

INIT_RUN = "before"  # folder, inside the folder of a run, of the run that ``run.init_from`` names


def initial_checkpoint(recipe: Recipe, out: Path) -> Path | None:
    """The run or checkpoint whose EMA model a run starts from; None if it starts from ``model.weights`` or at random.

    Args:
        recipe: Of the run.
        out: Folder of the run.
    """
    init_from = recipe.run.init_from
    if not init_from:
        return None
    return Path(init_from) if Path(init_from).suffix == ".pt" else out / INIT_RUN


def check_initial_files(recipe: Recipe, out: Path) -> None:
    """Check that the files exist that a new run starts from, before any slow work.

    Raises:
        NotFound: A file is missing.
    """
    path, weights = initial_checkpoint(recipe, out), recipe.model.weights
    if path is not None and path != out / INIT_RUN:
        if not path.is_file():
            raise NotFound(f"run.init_from {path}: no such file; give the checkpoint of a finished run, or a recipe")
    elif weights == BUNDLED and path is None:
        if recipe.model.backbone != BUNDLED_BACKBONE or not recipe.model.fold_batch_norm:
            raise DataError(
                f"model.weights {BUNDLED}: needs --model.backbone {BUNDLED_BACKBONE} and --model.fold_batch_norm true, "
                "because the batch norms of the bundled model are folded"
            )
    elif weights and path is None and not Path(weights).is_file():
        raise NotFound(f"model.weights {weights}: no such file")


def describe_start(recipe: Recipe, labels: Sequence[str]) -> str:
    """What the network of a new run starts from, in one sentence.

    Args:
        recipe: Of the run.
        labels: C class names of the data.
    """
    if recipe.run.init_from:
        return f"the network starts from {recipe.run.init_from}"
    if recipe.model.weights == BUNDLED:
        known = known_classes(labels)
        new = [label for label in labels if label not in known]
        return (
            "the network starts from the bundled model, which "
            + (f"knows {', '.join(known)}" if known else "knows none of the classes")
            + (f"; new: {', '.join(new)}" if new else "")
        )
    if recipe.model.weights:
        return f"the network starts from {Path(recipe.model.weights).name}"
    return "the network starts from random weights; from the bundled model (--weights bundled) it learns much faster"


def check_data(recipe: Recipe, data: TrainingData, processes: int) -> None:
    """Check that the recipe fits the data and the number of processes.

    Raises:
        DataError: It does not.
    """
    run, method = recipe.run, recipe.method
    semi_supervised = uses_unlabelled(method)
    if semi_supervised and not len(data.unlabelled):
        raise DataError(f"method {method.name}: there is no unlabelled image; add some, or use supervised")
    if semi_supervised and "category" in method.levels and len(data.labels) <= method.max_positives:
        raise DataError(
            f"ambiguous pseudo-labels need more than {method.max_positives} classes, the data has "
            f"{len(data.labels)}: remove category from --method.levels, or lower --method.max_positives"
        )
    if not len(data.labelled):
        raise DataError("there is no labelled training image; see --labels and the split options")
    if run.select == "validation" and not len(data.validation):
        raise DataError(
            "run.select validation: there is no validation image; hold some out (--data.validation), or use last"
        )
    for name, n in (("run.batch", run.batch), ("run.batch_unlabelled", run.batch_unlabelled if semi_supervised else 0)):
        if n % (processes * recipe.optim.accumulate):
            raise DataError(f"{name}: wanted a multiple of processes x accumulate, got {n}")


def start_model(
    recipe: Recipe,
    data: TrainingData,
    images: Images,
    views: Views,
    init_from: Path | None = None,
    *,
    random: bool = False,
) -> FaceModel:
    """Build the model that training starts from, on the device of the images. The seed fixes all random weights.

    Args:
        recipe: Of the run.
        data: Its training images recalibrate the batch norms.
        images: The crops.
        views: Makes views of the crops.
        init_from: A finished run of the same network, or its checkpoint, whose EMA model is the start.
        random: Read no file and keep random weights, because a checkpoint is loaded afterwards.
    """
    torch.manual_seed(recipe.run.seed)
    memory = torch.channels_last if recipe.run.channels_last else torch.contiguous_format
    encoder = build_backbone(recipe.model.backbone)
    from_backbone = init_from is None and not random
    bundled = recipe.model.weights == BUNDLED and from_backbone
    if recipe.model.weights and from_backbone and not bundled:
        load_backbone(encoder, recipe.model.backbone, Path(recipe.model.weights))
    encoder = encoder.to(images.device, memory_format=memory)  # type: ignore[call-overload]
    if recipe.model.recalibrate and from_backbone and not bundled:
        recalibrate(encoder, recipe, data, images, views)
    if recipe.model.fold_batch_norm:
        fold_batch_norm(encoder.eval())
    options = model_options(recipe.model, recipe.method, len(data.labels), int(encoder.dim))
    model = build_model(**options)
    model.encoder = encoder
    if init_from is not None and not random:
        path = find(init_from)
        load_weights(model, load(path)["ema"], path)
    elif recipe.model.zero_head:
        nn.init.zeros_(model.classifier.weight)
        nn.init.zeros_(model.classifier.bias)
    if bundled:
        load_bundled(model.encoder, model.classifier, data.labels)
    model.to(images.device, memory_format=memory)  # type: ignore[call-overload]
    return model.train()


@torch.no_grad()
def recalibrate(encoder: nn.Module, recipe: Recipe, data: TrainingData, images: Images, views: Views) -> None:
    """Recompute the batch-norm statistics, as the plain mean over ``model.recalibrate`` batches of training views."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    rows = np.concatenate([data.labelled.row, data.unlabelled.row])
    source = np.random.default_rng([recipe.run.seed, 1])
    rng = torch.Generator().manual_seed(int(source.integers(2**62)))
    encoder.train()
    with autocast(images.device, recipe.run.amp):
        for _ in range(recipe.model.recalibrate):
            crops = images[source.choice(rows, min(64, len(rows)))]
            numbers = draw_numbers(len(crops), labelled_numbers(recipe.augment), rng)
            encoder(views.finish(views.labelled(crops, numbers, recipe.run.input_sizes[0])))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
