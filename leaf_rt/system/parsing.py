"""Parses JSON and TOML from outside. Whatever is wrong with them is a ``ValueError``, also nesting without an end."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from leaf_rt.system.reading import MAX_TEXT, read_regular, read_text

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
