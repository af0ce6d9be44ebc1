"""The index of a data set, which every layout returns. Knows arrays; must not know files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.text import printable
from leaf_rt.types import F32, I64
from train.data.image_store import ImageStore

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")
# Names of folders, and values of list columns, that mean a split.
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "train_set": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}

Row = tuple[str, int, int]  # id, split, label
# How far the annotators of an image agree; each level includes those after it.
NO_VOTES, PLURALITY, MAJORITY, STRICT_MAJORITY = -1, 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class DatasetIndex:
    """The images of a data set.

    Attributes:
        name: Layout and folder, for messages.
        labels: C class names.
        ids: N names that ``source`` reads.
        split: (N,) int64 of TRAIN, VALIDATION, TEST.
        label: (N,) int64, -1 without a label.
        targets: (N, C) float32: the distribution of votes if there are votes, one-hot for a label, zeros without one.
        agreement: (N,) int64, how far the annotators agree, from PLURALITY to STRICT_MAJORITY; NO_VOTES without votes.
        source: Reads the bytes of an image by its id.
        notes: What was left out and why, one sentence each.
    """

    name: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    split: I64
    label: I64
    targets: F32
    agreement: I64
    source: ImageStore
    notes: tuple[str, ...]


def build_index(
    name: str,
    labels: Sequence[str],
    rows: Sequence[Row],
    source: ImageStore,
    notes: Iterable[str] = (),
    targets: F32 | None = None,
    agreement: I64 | None = None,
) -> DatasetIndex:
    """Build an index. Images whose id is not a valid file name in UTF-8 are left out, with a note.

    Args:
        name: See ``DatasetIndex``.
        labels: C class names.
        rows: N rows.
        source: See ``DatasetIndex``.
        notes: See ``DatasetIndex``.
        targets: (N, C) float32; one-hot vectors of the labels by default.
        agreement: (N,) int64; NO_VOTES by default.

    Raises:
        DataError: A class name has control characters, which a terminal would obey.
    """
    if odd := [label for label in labels if printable(label) != label]:
        raise DataError(f"--data {name}: the class name {odd[0]!a} has control characters; rename it")
    split = np.array([row[1] for row in rows], np.int64)
    label = np.array([row[2] for row in rows], np.int64)
    if targets is None:
        targets = np.zeros((len(rows), len(labels)), np.float32)
        known = np.flatnonzero(label >= 0)
        targets[known, label[known]] = 1.0
    if agreement is None:
        agreement = np.full(len(rows), NO_VOTES, np.int64)
    valid = [i for i, row in enumerate(rows) if is_valid_name(row[0])]
    notes = list(notes)
    if len(valid) < len(rows):
        examples = ", ".join(ascii(row[0]) for row in rows if not is_valid_name(row[0]))
        notes.append(f"left out {len(rows) - len(valid)} images whose names are not valid UTF-8: {examples[:200]}")
    ids = tuple(rows[i][0] for i in valid)
    return DatasetIndex(
        name, tuple(labels), ids, split[valid], label[valid], targets[valid], agreement[valid], source, tuple(notes)
    )


def is_valid_name(name: str) -> bool:
    """Whether a name can be a file name and can be written as UTF-8."""
    return "\0" not in name and name == name.encode(errors="ignore").decode()
