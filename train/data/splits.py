"""Which training images are labelled, unlabelled and held out, and the files that record it.

Knows labels and ids; must not know images or models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leaf_rt.errors import DataError, NotFound
from leaf_rt.system.files import save_json
from leaf_rt.system.parsing import read_json
from leaf_rt.types import I64
from train.recipes.schema import Data, Split

VERSION = 1


@dataclass(frozen=True, slots=True)
class Partition:
    """A split of the training images into three disjoint parts, by id.

    Attributes:
        labelled: Images whose labels training may use.
        unlabelled: The rest.
        validation: Held-out images; empty if the data set has its own validation split.
        data: Hash of the images and labels that were split.
        made_by: The options of the split.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    validation: tuple[str, ...]
    data: str
    made_by: dict[str, Any]

    @property
    def hash(self) -> str:
        """Hash of the three parts."""
        parts = [sorted(self.labelled), sorted(self.unlabelled), sorted(self.validation)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def data_hash(ids: Sequence[str], label: I64, pixels: Sequence[str]) -> str:
    """Hash of a data set, independent of the order of its images."""
    lines = sorted(f"{i}\t{c}\t{p}" for i, c, p in zip(ids, label.tolist(), pixels, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def partition(
    ids: Sequence[str], label: I64, classes: Sequence[str], options: Split, holdout: float, data: str
) -> Partition:
    """Split the training images.

    Args:
        ids: N ids.
        label: (N,) int64, -1 without a label; such images are always unlabelled.
        classes: C class names.
        options: Section of the recipe.
        holdout: Share of the labelled images for validation; not used with folds.
        data: From ``data_hash``.

    Raises:
        DataError: The options ask for more labels than the data has, or name an unknown class.
    """
    rng = np.random.default_rng(options.seed)
    pools = [rng.permutation(np.flatnonzero(label == c)) for c in range(len(classes))]
    held_out: list[I64] = []
    for c, pool in enumerate(pools):
        if options.folds:
            keep = np.arange(len(pool)) % options.folds != options.fold
        else:
            keep = np.arange(len(pool)) >= round(holdout * len(pool))
        held_out.append(pool[~keep])
        pools[c] = pool[keep]
    available = np.array([len(p) for p in pools], np.int64)
    counts = label_counts(options, available, classes)
    labelled = [pool[:n] for pool, n in zip(pools, counts.tolist(), strict=True)]
    unlabelled = [pool[n:] for pool, n in zip(pools, counts.tolist(), strict=True)]
    unlabelled.append(np.flatnonzero(label < 0))

    def names(parts: list[I64]) -> tuple[str, ...]:
        return tuple(ids[i] for i in np.sort(np.concatenate(parts)).tolist())

    made_by = {**asdict(options), "counts": list(options.counts), "holdout": holdout}
    return Partition(names(labelled), names(unlabelled), names(held_out), data, made_by)


def label_counts(options: Split, available: I64, classes: Sequence[str]) -> I64:
    """The number of labelled images of each class.

    - "all": every image.
    - "balanced": as equal as the data allows, exactly ``labels`` in total.
    - "floor": floor(labels / C) each, as in the published LEAF splits.
    - "uneven": the rare class gets two thirds of the share of the others (Ada-CM's 100 labels on RAF-DB: 10 of fear,
      15 of each other class); ``counts`` sets the number of single classes.
    - "longtail": a geometric decrease by ``imbalance`` from the largest to the smallest class.
    - "share": ``labels``, or ``share`` of all images, in proportion to the classes.

    Args:
        options: Section of the recipe.
        available: (C,) int64, the number of images of each class.
        classes: C class names.

    Returns:
        (C,) int64.

    Raises:
        DataError: See ``partition``.
    """
    total, n, c = int(available.sum()), options.labels, len(classes)
    if options.kind == "all":
        return available
    if options.kind == "share" and not n:
        n = round(options.share * total)
    if n < 1:
        raise DataError(f"split.labels: kind {options.kind!r} needs a number of labels; give --labels N")
    if n > total:
        raise DataError(f"split.labels: {n} labels wanted, but the data has {total} labelled training images")
    if options.kind == "balanced":
        return apportion(np.ones(c), available, n)
    if options.kind == "floor":
        if n // c > available.min():
            smallest = classes[int(available.argmin())]
            raise DataError(
                f"split.labels: {n // c} labels per class wanted, but {smallest} has {available.min()} images"
            )
        return np.full(c, n // c, np.int64)
    if options.kind == "uneven":
        fixed = _fixed_counts(options.counts, available, classes)
        if options.rare not in classes:
            raise DataError(f"split.rare: {options.rare!r} is not one of the classes {', '.join(classes)}")
        weights = np.where(np.array(classes) == options.rare, 2.0, 3.0)
        weights[list(fixed)] = 0.0
        room = available.copy()
        room[list(fixed)] = 0
        rest = n - sum(fixed.values())
        if not 0 <= rest <= room.sum():
            raise DataError(
                f"split.counts: {n - rest} labels are given by class and the other classes have {room.sum()} images, "
                f"which cannot make {n} labels; change --labels or --split.counts"
            )
        counts = apportion(weights, room, rest)
        for index, number in fixed.items():
            counts[index] = number
        return counts
    if options.kind == "longtail":
        rank = np.argsort(np.argsort(-available, kind="stable"), kind="stable")
        return apportion(options.imbalance ** (-rank / max(c - 1, 1)), available, n)
    return apportion(available.astype(float), available, n)


def apportion(weights: np.ndarray[tuple[int], np.dtype[np.float64]], available: I64, n: int) -> I64:
    """Divide ``n`` labels among C classes in proportion to weights, by largest remainders.

    What a class cannot take goes to the others. Every class gets at least one label if ``n`` allows it.

    Args:
        weights: (C,) float64, from 0.
        available: (C,) int64, the largest number of each class.
        n: Number of labels.

    Returns:
        (C,) int64 with the sum ``n``.

    Raises:
        ValueError: ``n`` is larger than the number of images.
    """
    if n > available.sum():
        raise ValueError(f"apportion.n: wanted at most {available.sum()}, got {n}")
    counts = np.zeros(len(weights), np.int64)
    first = (weights > 0) & (available > 0)
    if n >= first.sum():
        counts[first] = 1
    else:
        counts[np.flatnonzero(first)[:n]] = 1
    while (left := n - int(counts.sum())) > 0:
        open_ = (counts < available) & (weights > 0)
        if not open_.any():
            open_ = counts < available
        share = np.where(open_, np.where(weights > 0, weights, 1.0), 0.0)
        ideal = np.maximum(share / share.sum() * n - counts, 0.0) * open_
        ideal = ideal / ideal.sum() * left if ideal.sum() > 0 else open_ / open_.sum() * left
        whole = np.minimum(np.floor(ideal).astype(np.int64), available - counts)
        if not whole.any():
            best = int(np.argmax(np.where(open_, ideal - np.floor(ideal) + 1e-9, -1.0)))
            whole[best] = 1
        counts += whole
    return counts


def open_partition(path: Path, ids: Sequence[str], data: str) -> Partition:
    """Open a saved split and check it against the data.

    Args:
        path: Of the split.
        ids: Of the training images.
        data: From ``data_hash``.

    Raises:
        NotFound: The file is missing.
        DataError: It is not a split, was changed by hand, or was made from other data.
    """
    if not path.is_file():
        raise NotFound(f"split {path}: no such file")
    try:
        raw = read_json(path)
        labelled, unlabelled, validation = (tuple(raw[k]) for k in ("labelled", "unlabelled", "validation"))
        saved = Partition(labelled, unlabelled, validation, raw["data"], raw["made_by"])
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"split {path}: is not a saved split ({e!r})") from e
    if raw.get("hash") != saved.hash:
        raise DataError(f"split {path}: was changed after it was saved (its hash does not match); make a new one")
    if saved.data != data:
        used = (*saved.labelled, *saved.unlabelled, *saved.validation)
        gone, new = len(set(used) - set(ids)), len(set(ids) - set(used))
        what = f"{gone} images are missing, {new} are new" if gone or new else "labels or images changed"
        raise DataError(f"split {path}: the data changed since it was made ({what}); restore it or make a new split")
    return saved


def check_options(path: Path, saved: Partition, options: Split, holdout: float | None) -> None:
    """Check that a saved split was made with these options. Options with their default value are not checked.

    Args:
        path: Of the saved split.
        saved: The split.
        options: Section of the recipe.
        holdout: Share of images for validation; None if no share is held out.

    Raises:
        DataError: Options differ.
    """
    default, given = asdict(Split()), {**asdict(options), "counts": list(options.counts)}
    given = {k: v for k, v in given.items() if k != "path" and v != default[k] and v != []}
    different = [
        f"split.{k} is {saved.made_by.get(k)!r} there, not {v!r}" for k, v in given.items() if saved.made_by.get(k) != v
    ]
    kept = saved.made_by.get("holdout")
    if holdout is not None and holdout not in (Data().validation, kept):
        different.append(f"data.validation is {kept} there, not {holdout}")
    if different:
        raise DataError(
            f"split {path}: was made with other options ({'; '.join(different)}); name another file for a new split"
        )


def save_partition(path: Path, split: Partition) -> None:
    """Write a split as JSON with its hash."""
    save_json(
        path,
        {
            "version": VERSION,
            "hash": split.hash,
            "data": split.data,
            "made_by": split.made_by,
            "labelled": split.labelled,
            "validation": split.validation,
            "unlabelled": split.unlabelled,
        },
    )


def _fixed_counts(counts: Sequence[str], available: I64, classes: Sequence[str]) -> dict[int, int]:
    fixed: dict[int, int] = {}
    for entry in counts:
        name, _, number = entry.partition("=")
        if name not in classes or not number.isdecimal():
            raise DataError(f"split.counts: wanted class=number with one of {', '.join(classes)}, got {entry!r}")
        if int(number) > available[classes.index(name)]:
            raise DataError(f"split.counts: {number} of {name} wanted, but there are {available[classes.index(name)]}")
        fixed[classes.index(name)] = int(number)
    return fixed
