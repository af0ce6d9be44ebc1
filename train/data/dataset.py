"""What a run trains and is measured on: crops, and the rows, targets and labels of its parts.

Training never sees the test split, except for the hashes of its images, which reveal copies among the training images.
Knows indexes, caches and splits; must not know models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leaf_rt.errors import DataError, NotFound
from leaf_rt.faces.mediapipe_detector import NOTICE
from leaf_rt.types import F32, I64, U8
from train.data.crop_cache import Crops, CropSpec, Progress, default_cache, no_progress, prepare
from train.data.formats import NO_VOTES, SPLITS, TRAIN, VALIDATION, DatasetIndex, read_index
from train.data.splits import Partition, check_options, data_hash, open_partition, partition, save_partition
from train.data.unlabelled import read_unlabelled
from train.recipes.schema import Data, Split

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

_NO_SPLIT_HINTS = {
    "test": "put labelled images that training never sees into test/, a folder per class, or use --split all",
    "validation": "give the folder of the run, which holds out some, put some into valid/, or use --split all",
    "all": "none of its labelled images can be read",
}


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some images of a data set.

    Attributes:
        row: (N,) int64, rows of the crops in ``TrainingData.images``.
        targets: (N, C) float32, the distribution to learn; zeros if nothing is known.
        label: (N,) int64, the class, -1 if unknown. For unlabelled images it is used for statistics only.
    """

    row: I64
    targets: F32
    label: I64

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """All images that a run trains and validates on.

    Attributes:
        labels: C class names.
        images: (U, 1 or 3, side, side) uint8 crops, memory-mapped.
        labelled: Training images whose label may be used.
        unlabelled: The other training images.
        validation: Held-out images.
        split: How the parts were chosen.
        notes: What was found and left out, one sentence each.
    """

    labels: tuple[str, ...]
    images: U8
    labelled: Samples
    unlabelled: Samples
    validation: Samples
    split: Partition
    notes: tuple[str, ...]


class EvaluationData(NamedTuple):
    """Images to measure a model on: C class names, crops (U, 1 or 3, side, side) uint8, and which of them."""

    labels: tuple[str, ...]
    images: U8
    samples: Samples


def crop_spec(data: Data) -> CropSpec:
    """The crops of a recipe."""
    return CropSpec(data.side, data.margin, data.color, data.align)


def open_crops(data: Data, progress: Progress = no_progress) -> tuple[DatasetIndex, Crops]:
    """Read the index of the data and bring its cache up to date.

    Args:
        data: Section of the recipe.
        progress: See ``prepare``.

    Raises:
        LeafError: See ``read_index`` and ``prepare``; also if no image can be read.
    """
    if not data.path:
        raise NotFound("data.path is not set; give the data with --data")
    path = Path(data.path)
    index = read_index(data.layout, path)
    spec = crop_spec(data)
    folder = Path(data.cache) if data.cache else default_cache(path, spec)
    if data.align and data.detector == "mediapipe":
        index = replace(index, notes=(*index.notes, NOTICE))
    crops = prepare(index.ids, index.source, folder, spec, progress, data.detector)
    if not (crops.row >= 0).any():
        raise DataError(f"--data {path}: none of its {len(index.ids)} images can be read")
    return index, crops


def copies(index: DatasetIndex, crops: Crops) -> Mask:
    """(N,) bool: training images with the same pixels as an image of the validation or test split."""
    held_out = held_out_pixels(index, crops)
    pixels = [crops.pixels[r] if r >= 0 else "" for r in crops.row.tolist()]
    return np.array([s == TRAIN and p in held_out for s, p in zip(index.split.tolist(), pixels, strict=True)])


def held_out_pixels(index: DatasetIndex, crops: Crops) -> set[str]:
    """The hashes of the pixels of all validation and test images."""
    return {crops.pixels[r] for r in crops.row[(index.split != TRAIN) & (crops.row >= 0)].tolist()}


def load_data(data: Data, split: Split, saved: Path | None = None, progress: Progress = no_progress) -> TrainingData:
    """Load everything that a run trains and validates on.

    Args:
        data: Which images.
        split: Which labels. ``split.path`` names a saved split; it is created if missing.
        saved: The split of an interrupted run, which must still fit the data.
        progress: See ``prepare``.

    Raises:
        LeafError: See ``open_crops``, ``partition`` and ``open_partition``.
    """
    index, crops = open_crops(data, progress)
    usable, notes = _usable(index, crops, data)
    rows = np.flatnonzero(usable)
    ids = [index.ids[i] for i in rows.tolist()]
    own_validation = np.flatnonzero((crops.row >= 0) & (index.split == VALIDATION))
    parts = _partition(index, crops, rows, split, saved, None if len(own_validation) else data.validation)

    row_of = dict(zip(ids, rows.tolist(), strict=True))

    def samples(names: tuple[str, ...]) -> Samples:
        return _samples(index, crops, np.array([row_of[n] for n in names], np.int64), data.targets)

    labelled, validation = samples(parts.labelled), samples(parts.validation)
    if not len(validation) and len(own_validation):
        validation = _samples(index, crops, own_validation, "hard")
    missing = [n for c, n in enumerate(index.labels) if not (labelled.label == c).any()]
    if missing:
        notes.append(f"no labelled image of class {', '.join(missing)}: it cannot be learned")
    if data.align:
        found = float(crops.found[crops.row[rows]].mean()) if len(rows) else 0.0
        notes.append(f"a face was found in {100 * found:.1f} % of the training images; the others are used whole")
    images, unlabelled = crops.images, samples(parts.unlabelled)
    if data.unlabelled:
        more, rows = _more_unlabelled(data, held_out_pixels(index, crops), notes, progress)
        images = np.concatenate([images, more])
        unlabelled = _append_unknown(unlabelled, len(crops.images) + rows, len(index.labels))
    return TrainingData(index.labels, images, labelled, unlabelled, validation, parts, tuple(notes))


def _more_unlabelled(data: Data, held_out: set[str], notes: list[str], progress: Progress) -> tuple[U8, I64]:
    """The crops of ``data.unlabelled``, and the rows (M,) int64 of those in which a face was found.

    Copies of validation and test images, and images without a face, are left out; ``notes`` gets a sentence on it.
    """
    path = Path(data.unlabelled)
    names, source = read_unlabelled(path)
    spec = crop_spec(data)
    # A cache of its own: ``data.cache`` holds the crops of ``data.path``.
    crops = prepare(names, source, default_cache(path, spec), spec, progress, data.detector)
    rows = np.unique(crops.row[crops.row >= 0])
    faces = rows[crops.found[rows]] if data.align else rows
    faces = np.array([row for row in faces.tolist() if crops.pixels[row] not in held_out], np.int64)
    notes.append(
        f"{len(faces)} more unlabelled images from {path.name}; left out {len(names) - len(faces)} without a face, "
        "unreadable, equal to another, or copies of validation or test images"
    )
    return crops.images, faces


def _append_unknown(samples: Samples, rows: I64, classes: int) -> Samples:
    """Samples with more images, at these rows, of which nothing is known."""
    nothing = np.zeros((len(rows), classes), np.float32)
    return Samples(
        np.concatenate([samples.row, rows]),
        np.concatenate([samples.targets, nothing]),
        np.concatenate([samples.label, np.full(len(rows), -1, np.int64)]),
    )


def _usable(index: DatasetIndex, crops: Crops, data: Data) -> tuple[Mask, list[str]]:
    """(N,) bool: the images that training may use; with notes about the data."""
    notes = list(index.notes)
    usable = (crops.row >= 0) & (index.split == TRAIN)
    if crops.unreadable:
        examples = ", ".join(crops.unreadable[:5])
        notes.append(f"left out {len(crops.unreadable)} images that cannot be read: {examples}")
    copied = copies(index, crops)
    if copied.any():
        drop = data.duplicates == "drop"
        action = "dropped from training" if drop else "kept; drop them with --data.duplicates drop"
        notes.append(f"{int(copied.sum())} training images are copies of validation or test images: {action}")
        if drop:
            usable &= ~copied
    if data.targets == "soft":
        no_votes = usable & (index.label >= 0) & (index.targets.sum(1) == 0)
        if no_votes.any():
            notes.append(f"left out {int(no_votes.sum())} training images without a vote")
            usable &= ~no_votes
    return usable, notes


def _partition(
    index: DatasetIndex, crops: Crops, rows: I64, split: Split, saved: Path | None, holdout: float | None
) -> Partition:
    """Open the saved split of the training images at these rows, or make one.

    Args:
        index: Of the data.
        crops: Of the data.
        rows: (M,) int64, the usable training images.
        split: Section of the recipe.
        saved: See ``load_data``.
        holdout: Share of the labelled images for validation; None if the data has validation images.
    """
    ids = [index.ids[i] for i in rows.tolist()]
    hash_ = data_hash(ids, index.label[rows], [crops.pixels[r] for r in crops.row[rows].tolist()])
    if split.folds:
        holdout = None
    path = saved or (Path(split.path) if split.path else None)
    if path is not None and path.is_file():
        parts = open_partition(path, ids, hash_)
        if saved is None:
            check_options(path, parts, split, holdout)
        return parts
    parts = partition(ids, index.label[rows], index.labels, split, holdout or 0.0, hash_)
    if split.path:
        save_partition(Path(split.path), parts)
    return parts


def load_split(data: Data, name: str, progress: Progress = no_progress, agreement: int = NO_VOTES) -> EvaluationData:
    """Load a split that the data set brings.

    Args:
        data: Which images.
        name: "validation", "test", or "all" for all labelled images.
        progress: See ``prepare``.
        agreement: Only images whose annotators agree at least so far; see ``DatasetIndex``.

    Raises:
        DataError: The data set has no such split, or no votes where an agreement is given.
    """
    index, crops = open_crops(data, progress)
    rows = labelled_of(index, crops, name)
    if agreement > NO_VOTES:
        if (index.agreement == NO_VOTES).any():
            raise DataError(f"--protocol: {index.name} has no votes to select by; use --protocol all")
        rows = rows[index.agreement[rows] >= agreement]
    if not len(rows):
        raise DataError(f"--data {data.path}: this data has no {name} split of its own; {_NO_SPLIT_HINTS[name]}")
    return EvaluationData(index.labels, crops.images, _samples(index, crops, rows, "hard"))


def load_validation(
    data: Data, split: Split, saved: Path, progress: Progress = no_progress
) -> tuple[EvaluationData, bool]:
    """Load the validation images of a run, and whether the run held them out of its training images.

    Args:
        data: Of the run, with the present place of the data.
        split: Of the run.
        saved: The split file of the run.
        progress: See ``prepare``.

    Raises:
        DataError: The data has changed since the split, or the run held out nothing.
    """
    if not split.folds and len(labelled_of(*open_crops(data, progress), "validation")):
        return load_split(data, "validation"), False
    try:
        loaded = load_data(data, split, saved)
    except DataError as e:
        raise DataError(f"{e}; or use --split all") from e
    if not len(loaded.validation):
        raise DataError(f"{saved}: this run held out no validation image (data.validation); use --split all")
    return EvaluationData(loaded.labels, loaded.images, loaded.validation), True


def trained_on(data: Data, hash_: str) -> bool:
    """Whether a hash, which a checkpoint stores, is that of the training images of this data."""
    index, crops = open_crops(data)
    training = (crops.row >= 0) & (index.split == TRAIN)
    for chosen in (training, training & ~copies(index, crops)):  # with and without data.duplicates
        rows = np.flatnonzero(chosen)
        pixels = [crops.pixels[r] for r in crops.row[rows].tolist()]
        if data_hash([index.ids[i] for i in rows.tolist()], index.label[rows], pixels) == hash_:
            return True
    return False


def labelled_of(index: DatasetIndex, crops: Crops, name: str) -> I64:
    """(M,) int64: the readable, labelled images of "train", "validation", "test" or "all"."""
    inside = np.ones(len(index.ids), np.bool_) if name == "all" else index.split == SPLITS.index(name)
    return np.flatnonzero(inside & (crops.row >= 0) & (index.label >= 0))


def _samples(index: DatasetIndex, crops: Crops, rows: I64, targets: str) -> Samples:
    """The images at rows (M,) of the index, with "hard" or "soft" targets."""
    label = index.label[rows]
    target = index.targets[rows]
    if targets == "hard":
        target = np.zeros_like(target)
        known = np.flatnonzero(label >= 0)
        target[known, label[known]] = 1.0
    return Samples(crops.row[rows], target, label)


class Stream:
    """An endless shuffled sequence of 0 .. n - 1. It depends on seed and position only, so it has no state to save."""

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError("Stream.n: wanted at least one, got 0")
        self.n, self.seed = n, seed
        self._passes: dict[int, I64] = {}

    def take(self, start: int, count: int) -> I64:
        """The ``count`` indices (count,) int64 from position ``start`` on."""
        positions = np.arange(start, start + count)
        out = np.empty(count, np.int64)
        for number in range(start // self.n, (start + count - 1) // self.n + 1):
            inside = positions // self.n == number
            out[inside] = self._order(number)[positions[inside] % self.n]
        return out

    def _order(self, number: int) -> I64:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}
            self._passes[number] = np.random.default_rng([self.seed, number]).permutation(self.n)
        return self._passes[number]


class Images:
    """Brings uint8 crops to the training device, and keeps all of them there if they fit into ``budget`` bytes.

    Args:
        images: (N, C, side, side) uint8, all crops.
        device: Where training computes.
        budget: By default 4 GiB, and half of the free memory on a GPU.
    """

    def __init__(self, images: U8, device: torch.device, budget: int | None = None) -> None:
        self.device = device
        self._array: U8 | None = images
        self._tensor: Tensor | None = None
        if budget is None:
            budget = 4 << 30 if device.type != "cuda" else torch.cuda.mem_get_info(device)[0] // 2
        if images.nbytes <= budget:
            self._tensor = torch.from_numpy(np.array(images)).to(device)
            self._array = None

    def fetch(self, rows: I64) -> Tensor:
        """What the host must send to the device for some crops: their rows, or the crops themselves; on the CPU."""
        if self._tensor is not None:
            return torch.from_numpy(rows)
        return torch.from_numpy(np.ascontiguousarray(self._array[rows]))  # type: ignore[index]

    def take(self, sent: Tensor) -> Tensor:
        """The crops (n, C, side, side) uint8 on the device, from what ``fetch`` returned, sent there."""
        return sent if self._tensor is None else self._tensor.index_select(0, sent)

    def __getitem__(self, rows: I64) -> Tensor:
        """(len(rows), C, side, side) uint8 on the device."""
        return self.take(self.fetch(rows).to(self.device))
