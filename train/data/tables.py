"""List files as rows: CSV with any usual separator, JSON Lines, lines of text; one sentence where a row makes no sense.

Knows text and the names of columns; must not know what a row means.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from leaf_rt.errors import DataError, NotFound

Row = dict[str, str]  # column in lower case -> text, empty where the row has none
R = TypeVar("R")
T = TypeVar("T")


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """A list file as text.

    Raises:
        NotFound: It is missing.
        DataError: It is not UTF-8.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such file; the layout needs it (see docs/training.md)")
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            yield f
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: is no UTF-8 text; lists of pictures are .csv, .tsv or .jsonl files in UTF-8") from e


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Place ("file:line") and columns of every row below the header; commas, semicolons or tabs between them.

    Args:
        path: The file.
        columns: What must be there, in upper or lower case.

    Raises:
        NotFound, DataError: See ``opened``; a column is missing, or it is no CSV.
    """
    with opened(path) as f:
        header = f.readline()
        f.seek(0)
        reader = csv.DictReader(f, delimiter=max(",;\t", key=header.count), strict=True)  # an open quote is an error
        try:
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [c for c in columns if c.lower() not in reader.fieldnames]
            if missing:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}; its first line should name {', '.join(columns)}, "
                    f"with commas, semicolons or tabs between, but is {header.strip()[:80]!r}"
                )
            for row in reader:
                yield f"{path}:{reader.line_num}", {k: v or "" for k, v in row.items() if k is not None}
        except csv.Error as e:
            raise DataError(f"{path}:{reader.line_num + 1}: no CSV ({e}); is a quote not closed?") from e


def json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Place and columns of every line's object.

    Raises:
        NotFound, DataError: See ``opened``; a line is no JSON object.
    """
    with opened(path) as f:
        for where, line in _lines(path, f):
            try:
                row = {k.lower(): "" if v is None else str(v) for k, v in json.loads(line).items()}
            except (ValueError, AttributeError, RecursionError) as e:
                raise DataError(f"{where}: no JSON object ({e})") from e
            yield where, row


def text_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of every line that is not blank.

    Raises:
        NotFound, DataError: See ``opened``.
    """
    with opened(path) as f:
        yield from _lines(path, f)


def parsed(rows: Iterable[tuple[str, R]], parse: Callable[[R], T], wanted: str) -> Iterator[tuple[str, T]]:
    """Place and meaning of every row.

    Raises:
        DataError: ``parse`` finds no meaning; it says so by KeyError, ValueError or OverflowError.
    """
    for where, row in rows:
        try:
            meaning = parse(row)
        except (KeyError, ValueError, OverflowError) as e:
            raise DataError(f"{where}: wanted {wanted} ({e})") from e
        yield where, meaning


def _lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()
