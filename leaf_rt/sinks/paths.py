"""Where results go: folders made, names never given twice, what is read kept, files written whole or not at all.

Knows paths and the errors a person can act on; must not know what is written.
"""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from leaf_rt.errors import OutputError

_LONGEST_STEM = 220  # bytes; file systems take names of 255, and number, ending and ".part" come on top
_ELSEWHERE = "choose another place with --out"
_RENAMED = ("--plot", "--parquet")  # written under another name, which then takes the place of what stands there


class OutputPaths:
    """Gives out names for results, each one once, and none that leads to a file that is read.

    Args:
        read: Files that are read, which no result may replace.
        asked: Results whose place somebody chose: by which option, and where.

    Raises:
        OutputError: Such a place is one that is read, or two are the same, whatever links and names lead there; or
            it is a device, a pipe or a folder, and the result would have to take its place.
    """

    def __init__(self, read: Iterable[Path] = (), asked: Iterable[tuple[str, Path]] = ()) -> None:
        self._taken: set[Path] = set()
        self._read, self._asked = _Files(), _Files()
        for path in read:
            self._read.add(path, str(path))
        for option, path in asked:
            self._refuse(path, f"{option} {path}", "choose another place")
            if option.startswith(_RENAMED) and _is_special(path):
                raise OutputError(f"{option} {path}: is no regular file, and the result would replace it; name a file")
            self._asked.add(path, option)

    def take(self, folder: Path, stem: str, ending: str) -> Path:
        """``folder/stem.leaf.ending``, with a number where that was given out already, cut to what can be a name.

        Raises:
            OutputError: It is a file that is read, or a place that an option asked for.
        """
        stem = _short(stem)
        number, path = 1, folder / f"{stem}.leaf{ending}"
        while path in self._taken:
            number += 1
            path = folder / f"{stem}-{number}.leaf{ending}"
        self._refuse(path, str(path), _ELSEWHERE)
        self._taken.add(path)
        return path

    def copy(self) -> OutputPaths:
        """Return an independent copy, to try out which names would be given."""
        other = copy.copy(self)
        other._taken = set(self._taken)
        return other

    def _refuse(self, path: Path, what: str, mend: str) -> None:
        source, option = self._read.find(path), self._asked.find(path)
        if source is not None:
            same = "" if source == str(path) else f" (as {source})"
            raise OutputError(f"{what}: is read here{same}, and a result would destroy it; {mend}")
        if option is not None:
            raise OutputError(f"{what}: is where {option} goes already; give each result a file of its own")


def _short(stem: str) -> str:
    if len(os.fsencode(stem)) <= _LONGEST_STEM:
        return stem
    return os.fsencode(stem)[:_LONGEST_STEM].decode("utf-8", "ignore")


class _Files:
    """Files by what they are, under any name; pipes and devices are none, for many may use them."""

    def __init__(self) -> None:
        self._words: dict[object, str] = {}

    def add(self, path: Path, word: str) -> None:
        """Know a file by this word from now on."""
        for key in _keys(path):
            self._words.setdefault(key, word)

    def find(self, path: Path) -> str | None:
        """The word for this file, if it is known."""
        return next((self._words[key] for key in _keys(path) if key in self._words), None)


def _keys(path: Path) -> list[object]:
    """What two names of one file have in common: the resolved path and, as in ``os.path.samefile``, the inode."""
    try:
        resolved = os.path.realpath(path)
    except (OSError, ValueError):  # what cannot be a name, as with a NUL, is no file; its reader says so
        resolved = os.path.normpath(path.absolute())
    try:
        found = path.stat()
    except (OSError, ValueError):  # it is not there yet, or cannot be
        return [resolved]
    return [resolved, (found.st_dev, found.st_ino)] if stat.S_ISREG(found.st_mode) else []


def _is_special(path: Path) -> bool:
    """Whether something other than a regular file stands there, or a name of the system's, such as /dev/stdout."""
    try:
        folder = os.path.realpath(path.parent)
        return folder == "/dev" or folder.startswith("/proc/") or not stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # nothing is there
        return False


def is_result(path: Path) -> bool:
    """Whether a name is one that ``OutputPaths`` gives."""
    return path.stem.endswith(".leaf")
