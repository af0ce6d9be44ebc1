"""The list layout: a CSV, TSV or JSON Lines file with a row per image. Knows the columns of such a list."""

from __future__ import annotations

from pathlib import Path

from leaf_rt.errors import DataError
from train.data.formats.index import SPLIT_NAMES, TRAIN, DatasetIndex, Row, build_index
from train.data.image_store import FolderStore, ImageStore, ZipStore
from train.data.tables import Columns, parse_rows, read_csv, read_json_lines

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl")


def read_list(path: Path) -> DatasetIndex:
    """Read a list with the columns path, label (empty: unlabelled) and, optionally, split.

    Args:
        path: The list, or a folder with exactly one list. Paths in it are relative to the folder of the list,
            or name members of ``images.zip`` beside it if the files are not there.

    Raises:
        DataError: There is no list or more than one, or a row is wrong.
    """
    if path.is_dir():
        lists = sorted(p for p in path.iterdir() if p.suffix.lower() in LIST_SUFFIXES)
        if len(lists) != 1:
            raise DataError(
                f"--data {path}: wanted one .csv, .tsv or .jsonl list in it, got {len(lists)}; name the file"
            )
        path = lists[0]
    if path.suffix.lower() == ".json":
        raise DataError(f"--data {path}: wanted a .csv list, or a .jsonl list with one object per line, got .json")
    table = read_json_lines(path) if path.suffix.lower() == ".jsonl" else read_csv(path, ("path", "label"))
    entries = list(parse_rows(table, _parse, "a path and a split of train, validation or test"))
    labels = sorted({label for _, (_, split, label) in entries if label and split == TRAIN})
    rows: list[Row] = []
    for place, (name, split, label) in entries:
        if label and label not in labels:
            raise DataError(f"{place}: no training row has the label {label!r}; known: {', '.join(labels) or 'none'}")
        rows.append((name, split, labels.index(label) if label else -1))
    archive = path.parent / "images.zip"
    zipped = archive.is_file() and bool(rows) and not (path.parent / rows[0][0]).is_file()
    source: ImageStore = ZipStore(archive) if zipped else FolderStore(path.parent)
    return build_index(f"list {path.name}", labels, rows, source)


def _parse(row: Columns) -> tuple[str, int, str]:
    """Path, split and label of a row."""
    split = row.get("split", "").strip().lower() or "train"
    return row["path"], SPLIT_NAMES[split], row.get("label", "").strip()
