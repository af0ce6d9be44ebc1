"""Chooses the paths of results, so that none replaces an input or another result. Does not know what is written."""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from leaf_rt.errors import OutputError
from leaf_rt.system.result_file import PARTIAL, partial_path

_MAX_STEM = 220  # bytes; file systems allow names of 255 bytes, and the number, the suffix and ".part" are added
_REPLACED = ("--plot", "--parquet")  # written under another name and then renamed, which would replace a device


class OutputPaths:
    """Reserves paths for results: each path once, and none that leads to an input.

    Paths are compared by the file that they lead to, whatever links and spellings lead there. Each result has a second
    path while it is being written; see ``leaf_rt.system.result_file``.

    Args:
        inputs: Files that no result may replace.
        chosen: Paths that the user chose for results, each with its option.

    Raises:
        OutputError: A chosen path leads to an input or to another chosen path, or the result would replace a device, a
            pipe or a folder.
    """

    def __init__(self, inputs: Iterable[Path] = (), chosen: Iterable[tuple[str, Path]] = ()) -> None:
        self._reserved: set[Path] = set()
        self._inputs, self._chosen = _FileNames(), _FileNames()
        for path in inputs:
            self._inputs.add(path, str(path))
        for option, path in chosen:
            self._check(path, f"{option} {path}", "choose another path")
            if option.startswith(_REPLACED) and _is_special(path):
                raise OutputError(
                    f"{option} {path}: is not a regular file, and the result would replace it; choose another path"
                )
            self._chosen.add(path, option)
            for place in _places(path)[1:]:
                self._chosen.add(place, f"{option}, while it is written")

    def reserve(self, folder: Path, stem: str, suffix: str) -> Path:
        """Reserve ``folder/stem.leaf.suffix``, with a number if that is reserved already. A long stem is cut.

        Raises:
            OutputError: The path leads to an input, or to a path that the user chose, or to no regular file.
        """
        stem = _cut(stem)
        number, path = 1, folder / f"{stem}.leaf{suffix}"
        while path in self._reserved:
            number += 1
            path = folder / f"{stem}-{number}.leaf{suffix}"
        self._check(path, str(path), "choose another folder with --out")
        check_place(path)
        self._reserved.add(path)
        return path

    def copy(self) -> OutputPaths:
        """Return an independent copy, to find out which paths would be reserved."""
        other = copy.copy(self)
        other._reserved = set(self._reserved)
        return other

    def _check(self, path: Path, name: str, hint: str) -> None:
        for place in _places(path):
            self._check_place(place, name, hint)

    def _check_place(self, path: Path, name: str, hint: str) -> None:
        source, option = self._inputs.find(path), self._chosen.find(path)
        if source is not None:
            alias = "" if source == str(path) else f" ({source})"
            raise OutputError(f"{name}: is an input{alias}, and the result would replace it; {hint}")
        if option is not None:
            raise OutputError(f"{name}: is already used by {option}; choose a different file for each result")


def check_place(path: Path) -> None:
    """Check a path that the user has not chosen: opening a pipe there would wait for its reader.

    Raises:
        OutputError: Something else than a file is there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # it is not there; if it cannot be, opening it says why
        return
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: is not a regular file, and stands in the way of the result; remove it")


def is_result(path: Path) -> bool:
    """Whether a path has a name that ``OutputPaths`` gives, or such a result has while it is written."""
    return (path.with_suffix("") if path.suffix == PARTIAL else path).stem.endswith(".leaf")


def _cut(stem: str) -> str:
    if len(os.fsencode(stem)) <= _MAX_STEM:
        return stem
    return os.fsencode(stem)[:_MAX_STEM].decode("utf-8", "ignore")


def _places(path: Path) -> list[Path]:
    """Where a result is written: its path and, unless that is a device or a pipe, the one until it is complete."""
    return [path, partial_path(path)] if path.name and not _is_special(path) else [path]


class _FileNames:
    """Maps files to names, whatever path leads to the file. Pipes and devices are not files: several may use them."""

    def __init__(self) -> None:
        self._names: dict[object, str] = {}

    def add(self, path: Path, name: str) -> None:
        """Give a file a name. The first name of a file counts."""
        for key in _keys(path):
            self._names.setdefault(key, name)

    def find(self, path: Path) -> str | None:
        """Return the name of a file, or None."""
        return next((self._names[key] for key in _keys(path) if key in self._names), None)


def _keys(path: Path) -> list[object]:
    """Return what identifies a file: its resolved path and, as in ``os.path.samefile``, its inode."""
    try:
        resolved = os.path.realpath(path)
    except (OSError, ValueError):  # not a valid path, for example because of a NUL; opening it will fail
        resolved = os.path.normpath(path.absolute())
    try:
        found = path.stat()
    except (OSError, ValueError):  # does not exist yet
        return [resolved]
    return [resolved, (found.st_dev, found.st_ino)] if stat.S_ISREG(found.st_mode) else []


def _is_special(path: Path) -> bool:
    """Whether the path is not a regular file, or is in /dev or /proc, such as /dev/stdout."""
    try:
        folder = os.path.realpath(path.parent)
        return folder == "/dev" or folder.startswith("/proc/") or not stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # does not exist
        return False
