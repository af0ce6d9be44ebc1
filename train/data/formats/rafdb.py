"""The layout of RAF-DB. Knows its files; must not decode an image."""

from __future__ import annotations

import re
from pathlib import Path

from leaf_rt.labels import RAFDB7
from train.data.formats.folders import read_numbered_folders
from train.data.formats.index import TEST, TRAIN, DatasetIndex, Row, build_index
from train.data.image_store import FolderStore
from train.data.tables import parse_rows, read_lines


def read_rafdb(path: Path) -> DatasetIndex:
    """Read ``EmoLabel/list_patition_label.txt`` with ``Image/aligned``, or train and test folders named 1 to 7.

    Args:
        path: Folder of the data, with or without the folder ``basic``.

    Raises:
        DataError: A line is wrong.
    """
    base = path / "basic" if (path / "basic").is_dir() else path
    labels = base / "EmoLabel" / "list_patition_label.txt"
    if not labels.is_file():
        folders = path / "DATASET" if (path / "DATASET").is_dir() else path
        return read_numbered_folders(folders, RAFDB7, first=1, name="RAF-DB")
    rows = [row for _, row in parse_rows(read_lines(labels), _parse, "a name train_* or test_* and a label 1 to 7")]
    return build_index("RAF-DB", RAFDB7, rows, FolderStore(base))


def _parse(line: str) -> Row:
    match = re.fullmatch(r"((train|test)_\S*)\.(\S+)\s+([1-7])", line)
    if match is None:
        raise ValueError(f"got {line!r}")
    stem, split, suffix, number = match.groups()
    return f"Image/aligned/{stem}_aligned.{suffix}", TRAIN if split == "train" else TEST, int(number) - 1
