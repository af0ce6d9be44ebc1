"""Face crops for evaluation and calibration: from a data set of the trainer, or the crops stored with the package.

Knows the data sets, crop caches and runs of the trainer; must not know models or runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import DataError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import I64, U8, Prediction
from train.data.crop_cache import Crops
from train.data.dataset import labelled_of, load_validation, open_crops
from train.data.formats import DatasetIndex
from train.loop.training import SPLIT
from train.recipes.loading import load_recipe
from train.recipes.schema import OPTIONS, RECIPE, Data, Recipe

CALIBRATION_FACES = 512
EVALUATION_PART = 5  # if nothing is held out, 1 of this many labelled pictures is used for evaluation
BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Face crops with their labels.

    Attributes:
        images: (N, S, S, 3) uint8 BGR, cropped as in the runtime.
        label: (N,) int64, index into the model's labels; -1 if unknown.
        name: Where they come from, for reports.
    """

    images: U8
    label: I64
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def accuracy(self, probs: np.ndarray[Any, np.dtype[np.float32]]) -> float | None:
        """Share of correct predictions among the faces with a known label; None if no label is known.

        Args:
            probs: (N, C) float32, predictions on these faces.
        """
        known = self.label >= 0
        return float((probs[known].argmax(1) == self.label[known]).mean()) if known.any() else None


def predict(infer: Callable[[U8], Prediction], faces: U8) -> Prediction:
    """Run a model on many faces in batches.

    Args:
        infer: As ``Backend.infer``.
        faces: (N, S, S, 3) uint8 BGR, N at least 1.
    """
    parts = [infer(faces[i : i + BATCH]) for i in range(0, len(faces), BATCH)]
    return Prediction(np.concatenate([p.probs for p in parts]), np.concatenate([p.features for p in parts]))


def load_faces(
    path: Path,
    layout: str,
    split: str,
    spec: ModelSpec,
    *,
    cache: str = "",
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Faces:
    """Load the labelled faces of a split.

    Args:
        path: The data set.
        layout: Its layout, as for the trainer.
        split: "train", "validation" or "test".
        spec: Description of the model: crop geometry and labels.
        cache: Folder of the crop cache; "" means that of the trainer.
        limit: Draw at most this many at random; None loads all.
        seed: Seed of that draw.
        progress: Called with the numbers of finished pictures and of all pictures while faces are cropped.

    Raises:
        DataError: The data set or the split does not exist, or its labels differ from those of the model.
    """
    data = Data(layout=OPTIONS["data.layout"].convert(layout, "--layout"), path=str(path), cache=cache)
    index, crops = _open(data, spec, progress)
    rows = labelled_of(index, crops, split)
    if not len(rows):
        raise DataError(f"--data {path}: this data has no {split} split with labels")
    return _faces(index, crops, _draw(rows, limit, seed), spec, split)


def select_faces(
    path: Path | None,
    layout: str,
    spec: ModelSpec,
    *,
    run: Path | None = None,
    cache: str = "",
    limit: int | None = None,
    calibration: int = 0,
    seed: int = 0,
) -> tuple[Faces, Faces]:
    """Load faces to evaluate a model on, and different faces to calibrate it on.

    Evaluation uses the first of these that exists: the test split of the data, its validation split, the pictures that
    the run held out, a random fifth of the labelled pictures. Calibration uses the other training pictures.

    Args:
        path: The data set; None takes the crops stored with the package, without labels and without calibration faces.
        layout: Its layout, as for the trainer.
        spec: Description of the model: crop geometry and labels.
        run: Folder or checkpoint of the run that made the model, if known.
        cache: Folder of the crop cache; "" means that of the trainer.
        limit: Evaluate on at most this many, drawn at random; None takes all.
        calibration: Calibrate on at most this many, drawn at random.
        seed: Seed of these draws.

    Returns:
        The faces for evaluation and the faces for calibration.

    Raises:
        DataError: The data set does not exist, its labels differ from those of the model, or it is too small.
    """
    if path is None:
        images = golden_faces(spec.side)[:limit]
        stored = Faces(images, np.full(len(images), -1, np.int64), "stored crops")
        return stored, Faces(images[:0], stored.label[:0], "none")
    recipe = _recipe_of(run)
    checked_layout = OPTIONS["data.layout"].convert(layout, "--layout")
    data = replace(recipe.data, layout=checked_layout, path=str(path), cache=cache, align=True)
    index, crops = _open(data, spec)
    held_out, name = _held_out(index, crops, _with_geometry(data, spec), recipe, run)
    training = labelled_of(index, crops, "train")
    if not len(held_out):
        training = np.random.default_rng(seed).permutation(training)
        count = len(training) // EVALUATION_PART
        held_out, training = training[:count], training[count:]
        name = f"one in {EVALUATION_PART} of the labelled pictures, perhaps seen in training"
    training = training[~np.isin(crops.row[training], crops.row[held_out])]  # exact copies share a row of the cache
    if not len(held_out) or not len(training):
        raise DataError(
            f"--data {path}: too few labelled pictures for evaluation; at least {EVALUATION_PART} are needed"
        )
    return (
        _faces(index, crops, _draw(held_out, limit, seed), spec, name),
        _faces(index, crops, _draw(training, calibration, seed), spec, "train"),
    )


def _recipe_of(run: Path | None) -> Recipe:
    """The recipe of a run; the default recipe if the run has none."""
    path = None if run is None else _folder(run) / RECIPE
    return load_recipe(path if path is not None and path.is_file() else None)


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _held_out(index: DatasetIndex, crops: Crops, data: Data, recipe: Recipe, run: Path | None) -> tuple[I64, str]:
    """Pictures of the test split, the validation split, or those that the run held out: (M,) int64, and their name."""
    for name in ("test", "validation"):
        rows = labelled_of(index, crops, name)
        if len(rows):
            return rows, name
    saved = None if run is None else _folder(run) / SPLIT
    if saved is not None and saved.is_file():
        try:
            (_, _, samples), _ = load_validation(data, recipe.split, saved)
        except DataError:  # not the data of the run, or the run held out nothing
            return rows, ""
        training = labelled_of(index, crops, "train")
        return training[np.isin(crops.row[training], samples.row)], "validation pictures that the run held out"
    return rows, ""


def _with_geometry(data: Data, spec: ModelSpec) -> Data:
    return data.with_crops(spec.side, spec.margin, spec.color)


def _open(
    data: Data, spec: ModelSpec, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DatasetIndex, Crops]:
    """Open a data set with the labels of the model, cropped with the geometry of the model."""
    index, crops = open_crops(_with_geometry(data, spec), progress)
    if set(index.labels) != set(spec.labels):
        raise DataError(
            f"--data {data.path}: its labels ({', '.join(index.labels)}) are not the model's ({', '.join(spec.labels)})"
        )
    return index, crops


def _draw(rows: I64, limit: int | None, seed: int) -> I64:
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def _faces(index: DatasetIndex, crops: Crops, rows: I64, spec: ModelSpec, name: str) -> Faces:
    """Convert crops of the trainer to those of the runtime."""
    order = np.array([spec.labels.index(label) for label in index.labels], np.int64)
    planes = crops.images[crops.row[rows]]  # (N, 1 or 3, S, S), RGB
    if planes.shape[1] == 1:
        images = np.repeat(planes[:, 0, :, :, None], 3, axis=3)
    else:
        images = planes[:, ::-1].transpose(0, 2, 3, 1)
    return Faces(np.ascontiguousarray(images), order[index.label[rows]], f"{index.name}, {name}")
