"""Crops for calibration and proof: from a data set that the trainer knows, or the stored ones.

Knows the trainer's listings and caches; must not know models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leaf_rt.artifact import ModelSpec
from leaf_rt.errors import DataError
from leaf_rt.types import I64, U8
from train.data import open_crops
from train.layouts import TEST, TRAIN, VALIDATION
from train.recipe import Data

SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


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
    data = Data(layout=layout, path=str(path), cache=cache, side=spec.side, margin=spec.margin, color=spec.color)
    listing, crops = open_crops(data, progress)
    if set(listing.labels) != set(spec.labels):
        raise DataError(
            f"--data {path}: its labels ({', '.join(listing.labels)}) are not the model's ({', '.join(spec.labels)})"
        )
    where = np.flatnonzero((listing.split == SPLITS[split]) & (crops.row >= 0) & (listing.label >= 0))
    if not len(where):
        raise DataError(f"--data {path}: this data has no {split} split with labels")
    if limit is not None and limit < len(where):
        where = np.sort(np.random.default_rng(seed).choice(where, limit, replace=False))
    order = np.array([spec.labels.index(name) for name in listing.labels], np.int64)
    planes = crops.images[crops.row[where]]  # (N, 1 or 3, S, S), R G B
    images = np.repeat(planes[:, 0, :, :, None], 3, axis=3) if planes.shape[1] == 1 else planes[:, ::-1].transpose(
        0, 2, 3, 1
    )  # fmt: skip
    return Faces(np.ascontiguousarray(images), order[listing.label[where]], f"{listing.name}, {split}")
