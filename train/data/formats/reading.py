"""Reads the index of a data set in any layout, and guesses the layout. Knows the readers of all layouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from leaf_rt.errors import DataError, NoPermission, NotFound
from leaf_rt.labels import AFFECTNET7, AFFECTNET8
from train.data.formats.affectnet import PATH_COLUMN, read_affectnet
from train.data.formats.fer import FER2013_LIST, FERPLUS_LIST, read_fer2013, read_ferplus
from train.data.formats.folders import read_folders
from train.data.formats.index import TRAIN, DatasetIndex
from train.data.formats.lists import read_list
from train.data.formats.rafdb import read_rafdb
from train.data.tables import open_text

LAYOUTS: dict[str, Callable[[Path], DatasetIndex]] = {
    "folder": read_folders,
    "list": read_list,
    "ferplus": read_ferplus,
    "rafdb": read_rafdb,
    "affectnet7": partial(read_affectnet, labels=AFFECTNET7),
    "affectnet8": partial(read_affectnet, labels=AFFECTNET8),
    "fer2013": read_fer2013,
}
_FILE_LAYOUTS = ("list", "fer2013")  # layouts whose data may be a single file
# Files and folders that only one layout has.
_SIGNS = {
    FERPLUS_LIST: "ferplus",
    FER2013_LIST: "fer2013",
    "basic/EmoLabel": "rafdb",
    "EmoLabel": "rafdb",
    "train_set/annotations": "affectnet8",
}


def read_index(layout: str, path: Path) -> DatasetIndex:
    """Read which images a data set has.

    Args:
        layout: One of ``LAYOUTS``, or "auto".
        path: Folder or list of the data.

    Raises:
        NotFound: The path, or a file that the layout needs, is missing.
        NoPermission: There is no permission to read the data.
        DataError: A label, a split or a row is wrong, or a class has no training image.
    """
    if not path.exists():
        raise NotFound(f"--data {path}: no such file or folder")
    try:
        layout = guess_layout(path) if layout == "auto" else layout
        if path.is_file() and layout not in _FILE_LAYOUTS:
            raise DataError(f"--data {path}: is a file; the {layout} layout needs the folder of the data")
        index = LAYOUTS[layout](path)
    except PermissionError as e:
        raise NoPermission(f"--data {path}: no permission to read {e.filename}") from e
    training = index.label[index.split == TRAIN]
    if not (training >= 0).any():
        raise DataError(f"--data {path}: the {layout} layout finds no labelled training image there")
    empty = [name for c, name in enumerate(index.labels) if not (training == c).any()]
    if empty:
        raise DataError(f"--data {path}: no training image of class {', '.join(empty)}; add some or remove the class")
    return index


def guess_layout(path: Path) -> str:
    """Guess the layout from the names of files and columns; "folder" if nothing else fits."""
    if path.is_file():
        return "fer2013" if path.suffix.lower() == ".csv" and "pixels" in _first_line(path) else "list"
    training = path / "training.csv"
    if training.is_file() and PATH_COLUMN in _first_line(training):
        return "affectnet8"
    return next((layout for sign, layout in _SIGNS.items() if (path / sign).exists()), "folder")


def _first_line(path: Path) -> str:
    with open_text(path) as f:
        return f.readline()
