"""Reads a list of sources from a TOML file with one table [[source]] per source."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from leaf_rt.errors import DataError, NoPermission, NotFound
from leaf_rt.sources.address import parse
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.system.reading import read_text

_KEYS = frozenset(f.name for f in fields(SourceOptions))


def load_targets(path: Path, defaults: SourceOptions | None = None) -> list[Target]:
    """Read a list of sources.

    Each table [[source]] has a ``target`` and may have any field of ``SourceOptions``. Relative file names are looked
    up in the folder of the list first.

    Args:
        path: The TOML file.
        defaults: Options that a table does not set.

    Raises:
        NotFound, NoPermission: The list cannot be read.
        DataError: The list is not valid. The message names the table and the key.

    Example:
        A list of a camera and a file::

            [[source]]
            name = "door"
            target = "rtsp://user:password@camera/1"
            wait = true

            [[source]]
            target = "clip.mp4"
    """
    try:
        data = tomllib.loads(read_text(path))
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such file; give a TOML file with [[source]] tables") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it; change its permissions") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); give a TOML file with [[source]] tables") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: not valid TOML ({e}); correct its syntax") from e
    tables = data.get("source")
    if set(data) != {"source"} or not isinstance(tables, list) or not tables:
        raise DataError(f"{path}: wanted only [[source]] tables, got {', '.join(data) or 'nothing'}")
    targets = [_target(path, number, table, defaults or SourceOptions()) for number, table in enumerate(tables, 1)]
    names = [t.options.name for t in targets if t.options.name is not None]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{path}: two sources have the name {duplicates[0]!r}; give each source its own name")
    return targets


def _target(path: Path, number: int, table: Any, defaults: SourceOptions) -> Target:
    where = f"{path}: source {number}"
    if not isinstance(table, dict):
        raise DataError(f"{where}: wanted a table, got {type(table).__name__}")
    target = table.get("target")
    if not isinstance(target, str) or not target:
        raise DataError(f"{where}: target: wanted a file, a URL or a camera number as a string, got {target!r}")
    unknown = sorted(set(table) - _KEYS - {"target"})
    if unknown:
        raise DataError(f"{where}: {unknown[0]}: unknown key; use target, {', '.join(sorted(_KEYS))}")
    values = {key: value for key, value in table.items() if key != "target"}
    for key, value in values.items():
        _check(where, key, value)
    try:
        options = replace(defaults, **values)
    except ValueError as e:
        raise DataError(f"{where}: {str(e).removeprefix('SourceOptions.')}") from e
    address = parse(target)
    in_folder = str(path.parent / address.target)
    found = address.kind == "file" and os.path.isfile(in_folder)  # noqa: PTH113 - unlike Path.is_file, it never raises
    return Target(in_folder if found else target, options)


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "rtsp_transport", "decode"), (str,)),
    **dict.fromkeys(("loop", "realtime", "wait", "mirror"), (bool,)),
    **dict.fromkeys(("stride", "max_reconnects", "width", "height"), (int,)),
}


def _check(where: str, key: str, value: Any) -> None:
    kinds = _KINDS.get(key, (int, float))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise DataError(f"{where}: {key}: wanted {' or '.join(k.__name__ for k in kinds)}, got {value!r}")
