"""Parses JSON, TOML and NumPy archives from outside. Whatever is wrong with them is a ``ValueError``.

Nesting without an end and arrays without an end are wrong too.
"""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.system.reading import MAX_TEXT, UnreadableFile, read_regular, read_text

_TOO_DEEP = "its brackets are nested too deeply"


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is not valid JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError(_TOO_DEEP) from e


def is_json(value: object) -> bool:
    """Whether a value can be written as JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def read_json(path: Path, limit: int = MAX_TEXT) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: As ``parse_json``.
        OSError: It cannot be read, is not a regular file, or is larger than ``limit`` bytes.
    """
    return parse_json(read_regular(path, limit))


def read_toml(path: Path, limit: int = MAX_TEXT) -> dict[str, Any]:
    """The tables of a TOML file; raises what ``read_json`` raises."""
    try:
        return tomllib.loads(read_text(path, limit))
    except RecursionError as e:
        raise ValueError(_TOO_DEEP) from e


def read_arrays(path: Path, names: Sequence[str], limit: int) -> list[Any]:
    """Some NumPy arrays of an .npz file, in the order of their names.

    Raises:
        ValueError: The file is damaged, has no array of such a name, or one with Python objects.
        OSError: It cannot be read, is not a regular file, or it or its content is larger than ``limit`` bytes.
    """
    import numpy as np  # here: the command line starts without it

    data = read_regular(path, limit)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            if sum(member.file_size for member in content.zip.infolist()) > limit:
                raise UnreadableFile(path, f"holds more than {limit >> 20} MB")
            arrays = [content[name] for name in names]
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise TypeError("not an array")
            return arrays
    except UnreadableFile:
        raise
    except Exception as e:  # zipfile, zlib and numpy raise errors without a common base class for damaged files
        raise ValueError(f"it is damaged or has no array {' or '.join(names)}") from e
