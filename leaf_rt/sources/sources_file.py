"""Lists of sources in a TOML file, one table [[source]] each. Knows TOML and the options."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from leaf_rt.errors import DataError, NoPermission, NotFound
from leaf_rt.sources.base import SourceOptions, Target

_KEYS = frozenset(f.name for f in fields(SourceOptions))


def load_targets(path: Path, defaults: SourceOptions | None = None) -> list[Target]:
    """Read a list of sources.

    Every table [[source]] has a ``target`` and may have any field of ``SourceOptions``; files are looked for beside
    the list.

    Args:
        path: The TOML file.
        defaults: What holds where a table says nothing.

    Raises:
        NotFound, NoPermission: The list is missing, or may not be read.
        DataError: It is no such list; says which table and which key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such file; give a TOML file with tables [[source]]") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: may not be read; change its permissions") from e
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: not valid TOML ({e})") from e
    tables = data.get("source")
    if set(data) != {"source"} or not isinstance(tables, list) or not tables:
        raise DataError(f"{path}: wanted tables [[source]] and nothing else, got {', '.join(data) or 'nothing'}")
    targets = [_target(path, number, table, defaults or SourceOptions()) for number, table in enumerate(tables, 1)]
    names = [t.options.name for t in targets if t.options.name is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the name {twice[0]!r} is given to two sources; names must differ")
    return targets


def _target(path: Path, number: int, table: Any, defaults: SourceOptions) -> Target:
    where = f"{path}: source {number}"
    if not isinstance(table, dict):
        raise DataError(f"{where}: wanted a table, got {type(table).__name__}")
    target = table.get("target")
    if not isinstance(target, str) or not target:
        raise DataError(f"{where}: target: wanted a file, an address or a camera number in quotes, got {target!r}")
    unknown = sorted(set(table) - _KEYS - {"target"})
    if unknown:
        raise DataError(f"{where}: {unknown[0]}: no such key; there are target, {', '.join(sorted(_KEYS))}")
    given = {key: value for key, value in table.items() if key != "target"}
    for key, value in given.items():
        _check(where, key, value)
    try:
        options = replace(defaults, **given)
    except ValueError as e:
        raise DataError(f"{where}: {str(e).removeprefix('SourceOptions.')}") from e
    beside = path.parent / target
    return Target(str(beside) if beside.is_file() else target, options)


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "rtsp_transport"), (str,)),
    **dict.fromkeys(("loop", "realtime", "wait", "mirror"), (bool,)),
    **dict.fromkeys(("stride", "max_reconnects", "width", "height"), (int,)),
}


def _check(where: str, key: str, value: Any) -> None:
    kinds = _KINDS.get(key, (int, float))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise DataError(f"{where}: {key}: wanted {' or '.join(k.__name__ for k in kinds)}, got {value!r}")
