"""Accuracy of a run or of an exported model on labelled images.

Only this part of training reads a test split. Exported models run in the runtime's own backends, on crops with the
model's own geometry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

MODELS = (".onnx", ".plan", ".xml")  # exported models


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How well a model classifies the images of a split.

    Attributes:
        model: Path as given.
        data: Path of the data set.
        split: "validation", "test" or "all".
        pictures: The split in words.
        labels: C class names.
        n: Number of images.
        accuracy: Share of correct answers, 0 to 1.
        balanced_accuracy: Mean recall of the classes that occur, 0 to 1.
        calibration_error: Expected calibration error, 0 to 1.
        recall: Class to recall, 0 to 1; None for a class that does not occur.
        confusion: C rows of C counts; row: label, column: answer.
        details: Facts of the run: "backend", "sha256" and "precision" of exported models; "flip" and "amp" of others.
    """

    model: str
    data: str
    split: str
    pictures: str
    labels: tuple[str, ...]
    n: int
    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    recall: Mapping[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    details: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``leaf-rt evaluate --json``."""
        fields = dataclasses.asdict(self)
        for name in ("labels", "details"):
            fields.pop(name)
        head = {name: fields.pop(name) for name in ("model", "data", "split", "pictures")}
        return {**head, **self.details, **fields, "confusion": [list(row) for row in self.confusion]}


def evaluate(
    model: Path,
    recipe: Recipe,
    split: str,
    *,
    backend: str = "auto",
    flip: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationResult:
    """Measure a model.

    Args:
        model: An exported model, a run's folder or a checkpoint.
        recipe: Its section "data" says where the images are; crops have the model's own geometry.
        split: "validation" (if the data has none: the images that the run held out), "test" or "all".
        backend: For exported models, see ``open_backend``.
        flip: For checkpoints: average over mirror images. Exported models do what their description says.
        progress: Called with finished and total images while faces are cropped.

    Raises:
        LeafError: Model or data are missing or broken, or their classes differ.
    """
    if model.suffix in MODELS:
        labels, probs, split_labels, truth, details = _exported(model, recipe.data, split, backend, progress)
    else:
        if backend != "auto":
            raise DataError(
                f"--backend {backend}: {model} is no exported model; runs and checkpoints are evaluated with PyTorch"
            )
        labels, probs, split_labels, truth, details = _checkpoint(model, recipe, split, flip, progress)
    metrics = measure(probs[:, _columns(labels, split_labels, model)], truth, split_labels)
    confusion = tuple(tuple(row) for row in metrics.pop("confusion"))
    pictures = details.pop("pictures", split)
    return EvaluationResult(
        str(model), recipe.data.path, split, pictures, split_labels, confusion=confusion, details=details, **metrics
    )


Answers = tuple[tuple[str, ...], F32, tuple[str, ...], np.ndarray[tuple[int], np.dtype[np.int64]], dict[str, Any]]


def _exported(model: Path, data: Data, split: str, name: str, progress: Callable[[int, int], None]) -> Answers:
    spec = load_spec(model)
    data = data.with_crops(spec.side, spec.margin, spec.color)
    labels, images, samples = load_split(data, split, progress)
    backend = open_backend(model, name, precision=spec.precision)  # exactly this file, no faster variant beside it
    try:
        parts = [backend.infer(_bgr(images[samples.row[i : i + 64]])).probs for i in range(0, len(samples), 64)]
    finally:
        backend.close()
    extra = {"backend": backend.name, "sha256": backend.spec.sha256, "precision": backend.spec.precision}
    extra |= _all(data, spec.training) if split == "all" else {}
    return spec.labels, np.concatenate(parts), labels, samples.label, extra


def _checkpoint(path: Path, recipe: Recipe, split: str, flip: bool, progress: Callable[[int, int], None]) -> Answers:
    model, meta = load_model(path)
    g = meta.geometry
    data = recipe.data.with_crops(g.side, g.margin, g.color)
    saved = (path if path.is_dir() else path.parent) / SPLIT
    extra: dict[str, Any] = {"flip": flip, "amp": recipe.run.amp}
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
    """What "all" means for a model with this training."""
    among = "training pictures among them"
    known = trained_on(data, training.get("data", ""))
    return {"pictures": f"all labelled pictures, {among if known else f'perhaps {among}'}"}


def _bgr(images: U8) -> U8:
    """Convert cached crops (N, 1 or 3, S, S) to the runtime's (N, S, S, 3) BGR."""
    planes = np.repeat(images, 3, 1) if images.shape[1] == 1 else images[:, ::-1]
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


def _columns(labels: tuple[str, ...], data_labels: tuple[str, ...], model: Path) -> list[int]:
    """The column of the model's answer for each class of the data."""
    missing = [name for name in data_labels if name not in labels]
    if missing:
        raise DataError(
            f"{model}: does not know the class {', '.join(missing)} of the data; it knows {', '.join(labels)}"
        )
    return [labels.index(name) for name in data_labels]
