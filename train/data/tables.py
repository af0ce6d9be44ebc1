"""Reads tables as rows of text: CSV with any usual separator, JSON Lines, and lines of text.

Every row comes with its place for error messages. Knows text and column names; must not know what a row means.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import IO, TypeVar

from leaf_rt.errors import DataError, NotFound

Columns = dict[str, str]  # column name in lower case -> text, empty if the row has no such column
_MAX_LINE = 1 << 20  # characters; a picture of 48x48 px as text has about 9,000
R = TypeVar("R")
T = TypeVar("T")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file.

    Raises:
        NotFound: The file is missing.
        DataError: It is not UTF-8.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such file; the layout needs it (see docs/training.md)")
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            yield f
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: is not UTF-8 text; lists of images are .csv, .tsv or .jsonl files in UTF-8") from e


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Columns]]:
    """Read the rows below the header, as place ("file:line") and columns.

    Args:
        path: A file with commas, semicolons or tabs between the columns.
        columns: Required columns, in upper or lower case.

    Raises:
        NotFound: The file is missing.
        DataError: It is not UTF-8 or not CSV, or a column is missing.
    """
    with open_text(path) as f:
        lines = _bounded(f, path)
        header = next(lines, "")
        # With ``strict`` a quote that is not closed is an error.
        reader = csv.DictReader(chain([header], lines), delimiter=max(",;\t", key=header.count), strict=True)
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
            raise DataError(f"{path}:{reader.line_num + 1}: not valid CSV ({e}); is a quote not closed?") from e


def read_json_lines(path: Path) -> Iterator[tuple[str, Columns]]:
    """Read a JSON object per line, as place and columns.

    Raises:
        NotFound: The file is missing.
        DataError: It is not UTF-8, or a line is not a JSON object.
    """
    for place, line in read_lines(path):
        try:
            row = {k.lower(): "" if v is None else str(v) for k, v in json.loads(line).items()}
        except (ValueError, AttributeError, RecursionError) as e:
            raise DataError(f"{place}: not a JSON object ({e})") from e
        yield place, row


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Read the lines that are not blank, as place and text.

    Raises:
        NotFound: The file is missing.
        DataError: It is not UTF-8.
    """
    with open_text(path) as f:
        for number, line in enumerate(_bounded(f, path), 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()


def _bounded(f: IO[str], path: Path) -> Iterator[str]:
    """The lines of a file; one without an end must not fill the memory."""
    for number in count(1):
        line = f.readline(_MAX_LINE)
        if not line:
            return
        if len(line) == _MAX_LINE:
            raise DataError(f"{path}:{number}: the line is over {_MAX_LINE >> 20} MiB long; is it a list of images?")
        yield line


def parse_rows(rows: Iterable[tuple[str, R]], parse: Callable[[R], T], wanted: str) -> Iterator[tuple[str, T]]:
    """Parse every row.

    Args:
        rows: Place and content.
        parse: Raises KeyError, ValueError or OverflowError for a wrong row.
        wanted: What a row should hold, for the error message.

    Returns:
        Place and result of ``parse`` for every row.

    Raises:
        DataError: A row is wrong.
    """
    for place, row in rows:
        try:
            result = parse(row)
        except (KeyError, ValueError, OverflowError) as e:
            raise DataError(f"{place}: wanted {wanted} ({e})") from e
        yield place, result
