"""The layouts of AffectNet. Knows its files and annotations; must not decode an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError
from train.data.formats.folders import read_numbered_folders
from train.data.formats.index import TEST, TRAIN, DatasetIndex, Row, build_index
from train.data.image_store import FolderStore
from train.data.tables import Columns, parse_rows, read_csv

PATH_COLUMN = "subDirectory_filePath"
# The published validation set is what papers report results on, so it is the test split here.
_FOLDERS = {"train_set": TRAIN, "val_set": TEST}
_LISTS = {"training.csv": TRAIN, "validation.csv": TEST}


def read_affectnet(path: Path, labels: tuple[str, ...]) -> DatasetIndex:
    """Read ``train_set`` and ``val_set`` with ``annotations/N_exp.npy``, the published lists, or folders 0 to 7.

    Args:
        path: Folder of the data.
        labels: The first C class names; images of other classes are left out.

    Raises:
        DataError: An annotation or a row is wrong.
    """
    name = f"AffectNet-{len(labels)}"
    if all((path / folder / "annotations").is_dir() for folder in _FOLDERS):
        rows = list(_annotated(path))
    elif (path / "training.csv").is_file():
        rows = list(_listed(path))
    else:
        return read_numbered_folders(path, labels, first=0, name=name, validation_is_test=True)
    kept = [row for row in rows if 0 <= row[2] < len(labels)]
    left_out = len(rows) - len(kept)
    notes = [f"left out {left_out} images whose label is none of the {len(labels)} classes"] if left_out else []
    return build_index(name, labels, kept, FolderStore(path), notes)


def _annotated(path: Path) -> Iterator[Row]:
    for folder, split in _FOLDERS.items():
        for file in sorted((path / folder / "annotations").glob("*_exp.npy")):
            yield f"{folder}/images/{file.name.removesuffix('_exp.npy')}.jpg", split, _read_annotation(file)


def _listed(path: Path) -> Iterator[Row]:
    for name, split in _LISTS.items():
        table = read_csv(path / name, (PATH_COLUMN, "expression"))
        for _, (image, label) in parse_rows(table, _parse, "an expression 0 to 10"):
            yield f"Manually_Annotated_Images/{image}", split, label


def _parse(row: Columns) -> tuple[str, int]:
    """Path and label of a row."""
    return row[PATH_COLUMN.lower()], int(row["expression"])


def _read_annotation(file: Path) -> int:
    """The number in an annotation file."""
    try:
        with file.open("rb") as f:
            return int(np.lib.format.read_array(f, allow_pickle=False))
    except (ValueError, TypeError, OverflowError) as e:
        raise DataError(f"{file}: wanted an array of one number ({e}); download it again") from e
