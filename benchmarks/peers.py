"""Reads ``peers.toml``: what is compared. Knows names and files; must not install or run anything."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leaf_rt.errors import DataError
from leaf_rt.models.spec import MODELS

ROOT = "{root}"  # of the packages: this clone
PEERS = Path(__file__).with_name("peers.toml")
Comparison = Literal["speed", "accuracy"]
_FIELDS = {"name", "packages", "environment", "runtime", "script", "options", "in", "remark"}


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """One row of the results; ``peers.toml`` explains the fields.

    Attributes:
        key: Name of the table, which ``--peers`` takes.
        name: As shown.
        packages: What pip or npm installs; "{root}" is this clone. Empty: the peer runs in the environment of the
            command itself.
        environment: Folder of the packages.
        runtime: "python" or "node".
        script: What runs inside the environment.
        options: Given to the script.
        compared: "speed", "accuracy" or both.
        remark: What the reader of the table must know.
    """

    key: str
    name: str
    packages: tuple[str, ...]
    environment: str
    runtime: Literal["python", "node"]
    script: Path
    options: dict[str, Any]
    compared: tuple[Comparison, ...]
    remark: str


def read_peers(also: Path | None = None) -> dict[str, Peer]:
    """All peers by key: those of ``peers.toml`` and those of a file of the user, which may replace them.

    Raises:
        DataError: A file is missing or wrong.
    """
    peers: dict[str, Peer] = {}
    for file in (PEERS, *([also] if also else [])):
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise DataError(f"{file}: cannot be read as a TOML file of peers ({e})") from e
        peers |= {key: _peer(file, key, table) for key, table in tables.items()}
    return peers


def chosen(peers: dict[str, Peer], names: str, comparison: Comparison) -> list[Peer]:
    """The peers of a comma-separated list, in its order; all of a comparison if the list is empty.

    Raises:
        DataError: A name is unknown, or not part of this comparison.
    """
    fitting = {key: peer for key, peer in peers.items() if comparison in peer.compared}
    keys = [name.strip() for name in names.split(",") if name.strip()] or list(fitting)
    if unknown := [key for key in keys if key not in fitting]:
        raise DataError(f"--peers {', '.join(unknown)}: unknown; choose from {', '.join(fitting)}")
    return [fitting[key] for key in dict.fromkeys(keys)]


def _peer(file: Path, key: str, table: Any) -> Peer:
    if not isinstance(table, dict) or not {"script", "in"} <= set(table) <= _FIELDS:
        raise DataError(
            f"{file}: [{key}]: wanted a table with script, in and no field but {', '.join(sorted(_FIELDS))}"
        )
    if table.get("runtime", "python") not in ("python", "node") or not set(table["in"]) <= {"speed", "accuracy"}:
        raise DataError(f"{file}: [{key}]: wanted runtime python or node, and in of speed and accuracy")
    folder = PEERS.parent / "scripts" if file == PEERS else file.parent
    return Peer(
        key=key,
        name=table.get("name", key),
        packages=tuple(table.get("packages", [])),
        environment=table.get("environment", key),
        runtime=table.get("runtime", "python"),
        script=folder / table["script"],
        options={key: _filled(value) for key, value in table.get("options", {}).items()},
        compared=tuple(table["in"]),
        remark=table.get("remark", ""),
    )


def _filled(value: Any) -> Any:
    """A value with the place of the bundled models in its text."""
    return value.replace("{models}", str(MODELS)) if isinstance(value, str) else value
