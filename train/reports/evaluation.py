"""Accuracy of a run or of an exported model on the validation or test split, or on all labelled pictures.

The only part of training that reads a test split. An exported model goes through the runtime's own back end, on crops
cut by the runtime's geometry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leaf_rt.backends.opening import open_backend
from leaf_rt.errors import DataError
from leaf_rt.models.spec import load_spec
from leaf_rt.types import F32, U8
from train.augment.views import Views
from train.data.dataset import Images, load_split, load_validation, trained_on
from train.loop.checkpoint import load_model
from train.loop.distributed import pick_device
from train.loop.inference import predict
from train.loop.training import SPLIT
from train.metrics import measure
from train.recipes.schema import Augment, Data, Recipe

MODELS = (".onnx", ".plan", ".xml")  # what the runtime runs


def evaluate(
    model: Path,
    recipe: Recipe,
    split: str,
    *,
    backend: str = "auto",
    flip: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        model: An exported model, a run's folder or a checkpoint.
        recipe: Its data section says where the pictures are; crops follow the model's own geometry.
        split: "validation" (of a run: what it held out, where the data brings no such split), "test" or "all".
        backend: For exported models, see ``open_backend``.
        flip: For checkpoints: average over mirror images. Exported models do what their description says.
        progress: Of the crop cache.

    Returns:
        See ``metrics.measure``, with "model", "split", "pictures" (the split in words), "data" and, for exported
        models, "backend" and "sha256".

    Raises:
        LeafError: Model or data are missing, broken, or their classes differ.
    """
    if model.suffix in MODELS:
        labels, probs, split_labels, truth, extra = _exported(model, recipe.data, split, backend, progress)
    else:
        if backend != "auto":
            raise DataError(f"--backend {backend}: {model} is no exported model; a run or a checkpoint runs in torch")
        labels, probs, split_labels, truth, extra = _checkpoint(model, recipe, split, flip, progress)
    order = _columns(labels, split_labels, model)
    result = measure(probs[:, order], truth, split_labels)
    return {"model": str(model), "data": recipe.data.path, "split": split, "pictures": split, **extra, **result}


Answers = tuple[tuple[str, ...], F32, tuple[str, ...], np.ndarray[tuple[int], np.dtype[np.int64]], dict[str, Any]]


def _exported(model: Path, data: Data, split: str, name: str, progress: Callable[[int, int], None]) -> Answers:
    spec = load_spec(model)
    data = dataclasses.replace(data, side=spec.side, margin=spec.margin, color=spec.color)
    labels, images, samples = load_split(data, split, progress)
    backend = open_backend(model, name, precision=spec.precision)  # this very file, not a quicker one beside it
    try:
        parts = [
            backend.infer(_bgr(images[samples.row[i : i + 64]])).probs for i in range(0, len(samples), 64)
        ]  # fmt: skip
    finally:
        backend.close()
    extra = {"backend": backend.name, "sha256": backend.spec.sha256, "precision": backend.spec.precision}
    extra |= _all(data, spec.training) if split == "all" else {}
    return spec.labels, np.concatenate(parts), labels, samples.label, extra


def _checkpoint(path: Path, recipe: Recipe, split: str, flip: bool, progress: Callable[[int, int], None]) -> Answers:
    model, meta = load_model(path)
    g = meta.geometry
    data = dataclasses.replace(recipe.data, side=g.side, margin=g.margin, color=g.color)
    saved = (path if path.is_dir() else path.parent) / SPLIT
    extra = {"flip": flip, "amp": recipe.run.amp}
    if split == "validation" and saved.is_file():
        (labels, images, samples), held = load_validation(data, recipe.split, saved, progress)
        extra |= {"pictures": "the validation pictures that the run held out"} if held else {}
    else:
        labels, images, samples = load_split(data, split, progress)
        extra |= _all(data, meta.training) if split == "all" else {}
    device = pick_device(recipe.run.device)
    views = Views(Augment(), device, channels_last=True)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    probs = predict(model, Images(images, device), samples.row, g.net_side, views, recipe.run.amp, flip=flip)
    return meta.labels, probs, labels, samples.label, extra


def _all(data: Data, training: dict[str, Any]) -> dict[str, str]:
    """What "all" means for a model with these notes of its training."""
    among = "training pictures among them"
    known = trained_on(data, training.get("data", ""))
    return {"pictures": f"all labelled pictures, {among if known else f'perhaps {among}'}"}


def _bgr(images: U8) -> U8:
    """Cached crops (N, 1 or 3, S, S) as the runtime's (N, S, S, 3) BGR."""
    planes = np.repeat(images, 3, 1) if images.shape[1] == 1 else images[:, ::-1]
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


def _columns(labels: tuple[str, ...], wanted: tuple[str, ...], model: Path) -> list[int]:
    missing = [name for name in wanted if name not in labels]
    if missing:
        raise DataError(
            f"{model}: does not know the class {', '.join(missing)} of the data; it knows {', '.join(labels)}"
        )
    return [labels.index(name) for name in wanted]
