"""What a run trains on: crops in memory, and the rows, targets and truths of its parts.

The test split stays outside: all that is read of it are the hashes of its pictures, to find copies among the training
pictures. Knows listings, caches and splits; must not know models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leaf_rt.errors import DataError, NotFound
from leaf_rt.types import F32, I64, U8
from train.data.crop_cache import Crops, CropSpec, default_cache, prepare
from train.data.formats import SPLITS, TRAIN, VALIDATION, DatasetIndex, read_listing
from train.data.splits import Partition, check_options, data_hash, open_partition, partition, save_partition
from train.recipes.schema import Data, Split


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some pictures of a data set.

    Attributes:
        row: (N,) int64, into the images.
        targets: (N, C) float32, what to learn: a distribution, or zeros where nothing is known.
        label: (N,) int64, the class, -1 where nothing is known. For unlabelled pictures it serves statistics alone.
    """

    row: I64
    targets: F32
    label: I64

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """All that training sees.

    Attributes:
        labels: C class names.
        images: (U, 1 or 3, side, side) uint8, memory-mapped.
        labelled, unlabelled, validation: The parts.
        split: How they were chosen.
        notes: What was found and left out, one sentence each.
    """

    labels: tuple[str, ...]
    images: U8
    labelled: Samples
    unlabelled: Samples
    validation: Samples
    split: Partition
    notes: tuple[str, ...]


def crop_spec(data: Data) -> CropSpec:
    """The crops that a recipe asks for."""
    return CropSpec(data.side, data.margin, data.color, data.align)


def open_crops(
    data: Data, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DatasetIndex, Crops]:
    """List the data and bring its cache up to date."""
    if not data.path:
        raise NotFound("data.path is not set; give the data with --data")
    path = Path(data.path)
    listing = read_listing(data.layout, path)
    spec = crop_spec(data)
    folder = Path(data.cache) if data.cache else default_cache(path, spec)
    crops = prepare(listing.ids, listing.source, folder, spec, progress)
    if not (crops.row >= 0).any():
        raise DataError(f"--data {path}: not one of its {len(listing.ids)} pictures can be read")
    return listing, crops


def copies(listing: DatasetIndex, crops: Crops) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(N,) bool: training pictures whose pixels also stand in the validation or test split."""
    pixels = np.array([crops.pixels[r] if r >= 0 else "" for r in crops.row.tolist()])
    other = set(pixels[(listing.split != TRAIN) & (crops.row >= 0)].tolist())
    return np.array([s == TRAIN and p in other for s, p in zip(listing.split.tolist(), pixels.tolist(), strict=True)])


def load_data(
    data: Data, split: Split, saved: Path | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Everything that training sees.

    Args:
        data: Which pictures.
        split: Which labels; ``split.path`` names a saved split, made there if missing.
        saved: The split of an interrupted run, which must still fit.
        progress: Of the cache.

    Raises:
        LeafError: See ``read_listing``, ``prepare``, ``partition`` and ``open_partition``.
    """
    listing, crops = open_crops(data, progress)
    notes = list(listing.notes)
    readable = crops.row >= 0
    if crops.unreadable:
        some = ", ".join(crops.unreadable[:5])
        notes.append(f"{len(crops.unreadable)} pictures cannot be read and are left out: {some}")
    used = readable & (listing.split == TRAIN)
    twins = copies(listing, crops)
    if twins.any():
        dropped = data.duplicates == "drop"
        fate = "dropped from training" if dropped else "kept; drop them with --data.duplicates drop"
        notes.append(f"{int(twins.sum())} training pictures are copies of validation or test pictures: {fate}")
        if dropped:
            used &= ~twins
    if data.targets == "soft":
        blank = used & (listing.label >= 0) & (listing.targets.sum(1) == 0)
        if blank.any():
            notes.append(f"{int(blank.sum())} training pictures have no vote left and are left out")
            used &= ~blank
    where = np.flatnonzero(used)
    ids = [listing.ids[i] for i in where.tolist()]
    own = (readable & (listing.split == VALIDATION)).any()
    hash_ = data_hash(ids, listing.label[where], [crops.pixels[r] for r in crops.row[where].tolist()])
    holdout = None if split.folds or own else data.validation
    chosen = saved or (Path(split.path) if split.path and Path(split.path).is_file() else None)
    if chosen is not None and chosen.is_file():
        parts = open_partition(chosen, ids, hash_)
        if saved is None:
            check_options(chosen, parts, split, holdout)
    else:
        parts = partition(ids, listing.label[where], listing.labels, split, holdout or 0.0, hash_)
        if split.path:
            save_partition(Path(split.path), parts)
    position = dict(zip(ids, where.tolist(), strict=True))

    def samples(names: tuple[str, ...]) -> Samples:
        return _samples(listing, crops, np.array([position[n] for n in names], np.int64), data.targets)

    validation = samples(parts.validation)
    if not len(validation) and own:
        validation = _samples(listing, crops, np.flatnonzero(readable & (listing.split == VALIDATION)), "hard")
    labelled = samples(parts.labelled)
    missing = [n for c, n in enumerate(listing.labels) if not (labelled.label == c).any()]
    if missing:
        notes.append(f"no labelled picture of class {', '.join(missing)}: it cannot be learned")
    found = float(crops.found[crops.row[where]].mean()) if len(where) else 0.0
    if data.align:
        notes.append(f"a face was found in {100 * found:.1f} % of the training pictures; of the others, all is shown")
    return TrainingData(
        listing.labels, crops.images, labelled, samples(parts.unlabelled), validation, parts, tuple(notes)
    )


Pictures = tuple[tuple[str, ...], U8, Samples]  # labels, images, and which of them


def load_split(data: Data, name: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Pictures:
    """The "validation" or "test" split that the layout brings, or "all" labelled pictures: for ``evaluate``.

    Raises:
        DataError: The layout has no such split.
    """
    listing, crops = open_crops(data, progress)
    where = labelled_of(listing, crops, name)
    if not len(where):
        raise DataError(f"--data {data.path}: this data has no {name} split of its own; {_MEND[name]}")
    return listing.labels, crops.images, _samples(listing, crops, where, "hard")


_MEND = {
    "test": "put labelled pictures that training never sees into test/, a folder per class, or take --split all",
    "validation": "give the folder of the run, which holds out some, put some into valid/, or take --split all",
    "all": "no labelled picture of it can be read",
}


def load_validation(
    data: Data, split: Split, saved: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Pictures, bool]:
    """The validation pictures of a run, and whether the run itself held them out of its training pictures.

    Args:
        data: The run's, wherever it lies now.
        split: The run's.
        saved: The run's split.
        progress: Of the cache.

    Raises:
        DataError: The data is no longer what was split, or the run held out nothing.
    """
    if not split.folds and len(labelled_of(*open_crops(data, progress), "validation")):
        return load_split(data, "validation"), False
    try:
        loaded = load_data(data, split, saved)
    except DataError as e:
        raise DataError(f"{e}; or take --split all") from e
    if not len(loaded.validation):
        raise DataError(f"{saved}: this run held out no validation picture (data.validation); take --split all")
    return (loaded.labels, loaded.images, loaded.validation), True


def trained_on(data: Data, hash_: str) -> bool:
    """Whether the training pictures of this data are those with the hash that a model's training notes."""
    listing, crops = open_crops(data)
    training = (crops.row >= 0) & (listing.split == TRAIN)
    for chosen in (training, training & ~copies(listing, crops)):  # data.duplicates
        where = np.flatnonzero(chosen)
        pixels = [crops.pixels[r] for r in crops.row[where].tolist()]
        if data_hash([listing.ids[i] for i in where.tolist()], listing.label[where], pixels) == hash_:
            return True
    return False


def labelled_of(listing: DatasetIndex, crops: Crops, name: str) -> I64:
    """(M,) int64: the readable pictures with a label of "train", "validation" or "test", or of "all"."""
    inside = np.ones(len(listing.ids), np.bool_) if name == "all" else listing.split == SPLITS.index(name)
    return np.flatnonzero(inside & (crops.row >= 0) & (listing.label >= 0))


def _samples(listing: DatasetIndex, crops: Crops, where: I64, targets: str) -> Samples:
    label = listing.label[where]
    soft = listing.targets[where]
    if targets == "hard":
        soft = np.zeros_like(soft)
        known = np.flatnonzero(label >= 0)
        soft[known, label[known]] = 1.0
    return Samples(crops.row[where], soft, label)


class Stream:
    """An endless shuffled reading of N things, a pure function of seed and position: nothing to save or restore."""

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError("Stream.n: wanted at least one, got 0")
        self.n, self.seed = n, seed
        self._passes: dict[int, I64] = {}

    def take(self, start: int, count: int) -> I64:
        """Indices (count,) from position ``start`` on."""
        positions = np.arange(start, start + count)
        out = np.empty(count, np.int64)
        for number in range(start // self.n, (start + count - 1) // self.n + 1):
            here = positions // self.n == number
            out[here] = self._order(number)[positions[here] % self.n]
        return out

    def _order(self, number: int) -> I64:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}
            self._passes[number] = np.random.default_rng([self.seed, number]).permutation(self.n)
        return self._passes[number]


class Images:
    """Fetches uint8 crops onto the training device; keeps all of them there if they fit into ``budget`` bytes."""

    def __init__(self, images: U8, device: torch.device, budget: int = 4 << 30) -> None:
        self.device = device
        self._array: U8 | None = images
        self._tensor: Tensor | None = None
        if images.nbytes <= budget:
            self._tensor = torch.from_numpy(np.array(images)).to(device)
            self._array = None

    def __getitem__(self, rows: I64) -> Tensor:
        """(len(rows), C, side, side) uint8 on the device."""
        if self._tensor is not None:
            return self._tensor[torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(np.ascontiguousarray(self._array[rows])).to(self.device)  # type: ignore[index]
