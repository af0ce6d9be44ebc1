"""The layouts of FER2013 and FERPlus. Knows their files and columns; must not decode an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leaf_rt.labels import FER2013_7, FERPLUS8
from leaf_rt.types import F32, I64
from train.data.formats.folders import read_folders
from train.data.formats.index import (
    MAJORITY,
    PLURALITY,
    STRICT_MAJORITY,
    TEST,
    TRAIN,
    VALIDATION,
    DatasetIndex,
    Row,
    build_index,
)
from train.data.image_store import FolderStore, ImageStore, MemoryStore, ZipStore
from train.data.tables import Columns, parse_rows, read_csv

FER2013_LIST = "fer2013.csv"
FERPLUS_LIST = "fer2013new.csv"
_USAGES = {"Training": TRAIN, "PublicTest": VALIDATION, "PrivateTest": TEST}
_FERPLUS_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
_FERPLUS_VOTES = (*FERPLUS8, "unknown", "NF")
_SIDE = 48  # px


def read_fer2013(path: Path) -> DatasetIndex:
    """Read ``fer2013.csv`` with the columns emotion, pixels and Usage, or train and test folders named by class.

    Args:
        path: The list, or the folder of the data.

    Raises:
        DataError: A row is wrong.
    """
    table = path if path.is_file() else path / FER2013_LIST
    if not table.is_file():
        return read_folders(path)
    rows: list[Row] = []
    images: dict[str, bytes] = {}
    wanted = "emotion 0 to 6, 2304 pixels and a Usage"
    entries = parse_rows(read_csv(table, ("emotion", "pixels", "Usage")), _parse_fer2013, wanted)
    for number, (_, (label, split, pixels)) in enumerate(entries, 2):
        name = f"{number:06d}.pgm"
        images[name] = f"P5 {_SIDE} {_SIDE} 255\n".encode() + pixels
        rows.append((name, split, label))
    return build_index("FER2013", FER2013_7, rows, MemoryStore(images))


def _parse_fer2013(row: Columns) -> tuple[int, int, bytes]:
    """Label, split and pixels of a row."""
    pixels = np.array(row["pixels"].split(), dtype=np.uint8)
    label, split = int(row["emotion"]), _USAGES[row["usage"].strip()]
    if pixels.size != _SIDE * _SIDE or not 0 <= label < len(FER2013_7):
        raise ValueError(f"{pixels.size} pixels, emotion {label}")
    return label, split, pixels.tobytes()


def read_ferplus(path: Path) -> DatasetIndex:
    """Read ``fer2013new.csv``, with the images in ``images.zip`` or FER2013Train, FER2013Valid and FER2013Test.

    The class is the one with the most votes. Images with most votes for "unknown" or "no face" are left out. Soft
    targets are the votes for the 8 classes, without classes that have a single vote (Barsoum et al., ICMI 2016).
    ``agreement`` is MAJORITY by the rule of the FERPlus code: after single votes are dropped, the leading class has
    more than half of the votes. It is STRICT_MAJORITY if one of the 8 classes has more than half of all votes.

    Args:
        path: Folder of the data.

    Raises:
        DataError: A row is wrong, or the archive is damaged.
    """
    rows: list[Row] = []
    votes: list[list[int]] = []  # of all ten classes
    left_out = 0
    table = read_csv(path / FERPLUS_LIST, ("Usage", "Image name", *_FERPLUS_VOTES))
    wanted = f"a Usage of {', '.join(_USAGES)} and numbers of votes"
    for _, (name, split, counts) in parse_rows(table, _parse_ferplus, wanted):
        if not name:
            continue  # the published list has rows without an image
        label = int(np.argmax(counts))
        if label >= len(FERPLUS8):
            left_out += 1
            continue
        rows.append((name, split, label))
        votes.append(counts)
    counted = np.array(votes, np.float32).reshape(-1, len(_FERPLUS_VOTES))
    agreement = _agreement(counted)
    targets = counted[:, : len(FERPLUS8)]
    targets[targets <= 1] = 0.0
    targets /= np.maximum(targets.sum(1, keepdims=True), 1.0)
    archive = path / "images.zip"
    source: ImageStore = ZipStore(archive) if archive.is_file() else FolderStore(path)
    note = f"left out {left_out} images in which most annotators saw no face or no known expression"
    return build_index("FERPlus", FERPLUS8, rows, source, [note], targets, agreement)


def _agreement(votes: F32) -> I64:
    """(N,) int64, the level of agreement of images with votes (N, 10); see ``read_ferplus``."""
    counted = np.where(votes <= 1, 0.0, votes)
    leading = counted.argmax(1)
    majority = (counted.max(1, initial=0) * 2 > counted.sum(1)) & (leading < len(FERPLUS8))
    strict = votes[:, : len(FERPLUS8)].max(1, initial=0) * 2 > votes.sum(1)
    return np.where(strict, STRICT_MAJORITY, np.where(majority, MAJORITY, PLURALITY)).astype(np.int64)


def _parse_ferplus(row: Columns) -> tuple[str, int, list[int]]:
    """Id, split and votes of a row; an empty id for a row without an image."""
    name, usage = row["image name"], row["usage"]
    if not name:
        return "", TRAIN, []
    return f"{_FERPLUS_FOLDERS[usage]}/{name}", _USAGES[usage], [int(row[c.lower()]) for c in _FERPLUS_VOTES]
