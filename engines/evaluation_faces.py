"""Crops for calibration and proof: from a data set that the trainer knows, or the stored ones.

Knows the trainer's listings, caches and runs; must not know models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import I64, U8
from train.data.crop_cache import Crops
from train.data.dataset import labelled_of, load_validation, open_crops
from train.data.formats import DatasetIndex
from train.loop.training import SPLIT
from train.recipes.loading import load_recipe
from train.recipes.schema import OPTIONS, RECIPE, Data, Recipe

SHARE = 5  # one of so many labelled pictures is judged on where nothing else is held out


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Crops with their truth.

    Attributes:
        images: (N, S, S, 3) uint8 BGR, as the runtime cuts them.
        label: (N,) int64, index into the model's labels; -1 unknown.
        name: Where they come from, for people.
    """

    images: U8
    label: I64
    name: str

    def __len__(self) -> int:
        return len(self.images)


def data_faces(
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
    """The labelled faces of a split.

    Args:
        path: Of the data set.
        layout: As the trainer calls it.
        split: "train", "validation" or "test".
        spec: Of the model: which crops it takes, and its labels.
        cache: Folder of the crops; the trainer's own place if empty.
        limit: So many at most, drawn at random.
        seed: Of that draw.
        progress: Called with pictures done and pictures in all while crops are cut.

    Raises:
        DataError: No such data or split, or its labels are not the model's.
    """
    listing, crops = _open(
        Data(layout=OPTIONS["data.layout"].convert(layout, "--layout"), path=str(path), cache=cache), spec, progress
    )
    where = labelled_of(listing, crops, split)
    if not len(where):
        raise DataError(f"--data {path}: this data has no {split} split with labels")
    return _faces(listing, crops, _some(where, limit, seed), spec, split)


def judged_faces(
    path: Path,
    layout: str,
    spec: ModelSpec,
    *,
    run: Path | None = None,
    cache: str = "",
    limit: int | None = None,
    calibration: int = 0,
    seed: int = 0,
) -> tuple[Faces, Faces]:
    """Faces to judge a model on, and others to calibrate it on.

    Judged on is the data's test split; where it has none, its validation split or what the run held out; where there is
    none either, a fifth of its labelled pictures. None of these is calibrated on.

    Args:
        path: Of the data set.
        layout: As the trainer calls it.
        spec: Of the model: which crops it takes, and its labels.
        run: The folder or checkpoint that the model comes from, if known.
        cache: Folder of the crops; the trainer's own place if empty.
        limit: Judge on so many at most, drawn at random.
        calibration: Calibrate on so many at most, drawn at random.
        seed: Of these draws.

    Raises:
        DataError: No such data, its labels are not the model's, or it has too few labelled pictures.
    """
    recipe = _recipe(run)
    data = replace(
        recipe.data, layout=OPTIONS["data.layout"].convert(layout, "--layout"), path=str(path), cache=cache, align=True
    )
    listing, crops = _open(data, spec)
    judged, name = _held_out(listing, crops, _geometry(data, spec), recipe, run)
    training = labelled_of(listing, crops, "train")
    if not len(judged):
        training = np.random.default_rng(seed).permutation(training)
        judged, training = training[: len(training) // SHARE], training[len(training) // SHARE :]
        name = f"one in {SHARE} of the labelled pictures, perhaps seen in training"
    training = training[~np.isin(crops.row[training], crops.row[judged])]  # nor a copy of one
    if not len(judged) or not len(training):
        raise DataError(f"--data {path}: has too few labelled pictures to judge on; wanted at least {SHARE}")
    return (
        _faces(listing, crops, _some(judged, limit, seed), spec, name),
        _faces(listing, crops, _some(training, calibration, seed), spec, "train"),
    )


def _recipe(run: Path | None) -> Recipe:
    """Of a run, or the defaults."""
    own = None if run is None else (run if run.is_dir() else run.parent) / RECIPE
    return load_recipe(own if own is not None and own.is_file() else None)


def _held_out(listing: DatasetIndex, crops: Crops, data: Data, recipe: Recipe, run: Path | None) -> tuple[I64, str]:
    """(M,) int64, the pictures of the test or validation split or of the run's own; with their name."""
    for name in ("test", "validation"):
        where = labelled_of(listing, crops, name)
        if len(where):
            return where, name
    saved = None if run is None else (run if run.is_dir() else run.parent) / SPLIT
    if saved is not None and saved.is_file():
        try:
            (_, _, samples), _ = load_validation(data, recipe.split, saved)
        except DataError:  # other data than the run's, or a run that held out nothing: the caller draws some
            return where, ""
        training = labelled_of(listing, crops, "train")
        return training[np.isin(crops.row[training], samples.row)], "validation pictures that the run held out"
    return where, ""


def _geometry(data: Data, spec: ModelSpec) -> Data:
    return data.with_crops(spec.side, spec.margin, spec.color)


def _open(
    data: Data, spec: ModelSpec, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DatasetIndex, Crops]:
    """Data with the model's labels, cut as the model wants it."""
    listing, crops = open_crops(_geometry(data, spec), progress)
    if set(listing.labels) != set(spec.labels):
        raise DataError(
            f"--data {data.path}: its labels ({', '.join(listing.labels)}) are not the model's "
            f"({', '.join(spec.labels)})"
        )
    return listing, crops


def _some(where: I64, limit: int | None, seed: int) -> I64:
    if limit is None or limit >= len(where):
        return where
    return np.sort(np.random.default_rng(seed).choice(where, limit, replace=False))


def _faces(listing: DatasetIndex, crops: Crops, where: I64, spec: ModelSpec, name: str) -> Faces:
    """The crops of some pictures as the runtime has them."""
    order = np.array([spec.labels.index(label) for label in listing.labels], np.int64)
    planes = crops.images[crops.row[where]]  # (N, 1 or 3, S, S), R G B
    images = np.repeat(planes[:, 0, :, :, None], 3, axis=3) if planes.shape[1] == 1 else planes[:, ::-1].transpose(
        0, 2, 3, 1
    )  # fmt: skip
    return Faces(np.ascontiguousarray(images), order[listing.label[where]], f"{listing.name}, {name}")
