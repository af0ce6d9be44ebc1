"""Where results go: folders made, names never given twice, files written whole or not at all.

Knows paths and the errors a person can act on; must not know what is written.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from leaf_rt.errors import NoPermission, OutputError
from leaf_rt.sinks.base import output_error

_LONGEST_STEM = 220  # bytes; file systems take names of 255, and number, ending and ".part" come on top


class Places:
    """Gives out names for results, each one once."""

    def __init__(self) -> None:
        self._taken: set[Path] = set()

    def take(self, folder: Path, stem: str, ending: str) -> Path:
        """``folder/stem.leaf.ending``, with a number where that was given out already, cut to what can be a name."""
        if len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = os.fsencode(stem)[:_LONGEST_STEM].decode("utf-8", "ignore")
        number, path = 1, folder / f"{stem}.leaf{ending}"
        while path in self._taken:
            number += 1
            path = folder / f"{stem}-{number}.leaf{ending}"
        self._taken.add(path)
        return path


def is_result(path: Path) -> bool:
    """Whether a name is one that ``Places`` gives."""
    return path.stem.endswith(".leaf")


def make_folder(folder: Path) -> None:
    """Make the folder for results.

    Raises:
        NoPermission, OutputError: It cannot be made, or it is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as e:
        raise NoPermission(f"--out {folder}: no permission to make this folder; choose another place") from e
    except OSError as e:
        reason = (
            "a file of that name is in the way" if isinstance(e, FileExistsError | NotADirectoryError) else e.strerror
        )
        raise OutputError(f"--out {folder}: cannot be made ({reason}); choose another place") from e


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half written.

    Raises:
        NoPermission: The operating system refuses.
        OutputError: Disk full, folder gone and the like; an older file of that name stays as it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):  # the reason that follows is the one that counts
            temporary.unlink()
        raise output_error(path, e) from e
