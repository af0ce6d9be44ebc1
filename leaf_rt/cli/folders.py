"""Folders and patterns on a command line become the files in them. Lists folders, but opens no file."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leaf_rt.cli.targets import shortened
from leaf_rt.credentials import mask
from leaf_rt.errors import LeafError, NoPermission, NotAVideo, NotFound
from leaf_rt.sinks.paths import is_result
from leaf_rt.text import counted, readable

VIDEOS = frozenset(
    f".{ending}"
    for ending in (
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "m1v", "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
_MAX_FILES = 1_000_000  # in a folder, so that "/" by mistake does not search for an hour
_WILD = re.compile(r"[*?[]")


@dataclass(slots=True)
class Expanded:
    """The files that the arguments of a command stand for.

    Attributes:
        files: All targets; folders and patterns are replaced by their files, in natural order, each file once.
        roots: Folders whose structure the results have under ``--out``.
        notes: One sentence about each group of files that was left out.
        errors: Folders and patterns without any file.
    """

    files: list[str] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[LeafError] = field(default_factory=list)


def expand(arguments: Iterable[str], suffixes: frozenset[str], kind: str) -> Expanded:
    """Replace folders and patterns by the files in them.

    A folder is searched with all folders below it; names that begin with a dot and links to folders are left out. A
    file of another kind, judged by its ending, is left out too, unless a pattern names its ending, as in ``*.dav``.

    Args:
        arguments: What the user typed: files, folders, patterns, addresses, numbers of cameras.
        suffixes: Endings of the wanted files, in lower case.
        kind: What they are, as "video".
    """
    found = Expanded()
    for argument in arguments:
        try:
            if _is_pattern(argument):
                _add_pattern(found, argument, suffixes, kind)
            elif "://" not in argument and os.path.isdir(argument):  # noqa: PTH112 - False for a name that is too long
                _add_folder(found, Path(argument), suffixes, kind)
            else:
                found.files.append(argument)
        except LeafError as e:
            found.errors.append(e)
    return found


def _is_pattern(argument: str) -> bool:
    """Whether an argument is a pattern that the shell has not expanded, and no file has this very name."""
    return bool(_WILD.search(argument)) and "://" not in argument and not os.path.lexists(argument)


def _add_pattern(found: Expanded, pattern: str, suffixes: frozenset[str], kind: str) -> None:
    try:
        matches = sorted(glob.glob(pattern, recursive=True), key=_natural)  # noqa: PTH207 - as a shell expands it
    except ValueError:  # a NUL character
        matches = []
    if not matches:
        raise NotFound(f"{mask(pattern)}: no file matches this pattern")
    fixed = Path(*_fixed_parts(Path(pattern)))
    ending = Path(pattern).suffix
    any_kind = bool(ending) and not _WILD.search(ending)
    files: list[str] = []
    others: list[str] = []
    for match in matches:
        if os.path.isdir(match):  # noqa: PTH112
            inside, left_out = _walk(Path(match), suffixes)
            files += inside
            others += left_out
        elif any_kind or Path(match).suffix.lower() in suffixes:
            files.append(match)
        else:
            others.append(match)
    _add(found, fixed, files, others, f"{pattern}: matches no {kind} file; they end in {_endings(suffixes)}", kind)


def _add_folder(found: Expanded, folder: Path, suffixes: frozenset[str], kind: str) -> None:
    files, others = _walk(folder, suffixes)
    sentence = f"{folder}: this folder holds no {kind} file; they end in {_endings(suffixes)}"
    _add(found, folder, files, others, sentence, kind)


def _add(found: Expanded, root: Path, files: list[str], others: list[str], none: str, kind: str) -> None:
    originals = [name for name in files if not is_result(Path(name))]
    unwanted = [name for name in others if not is_result(Path(name))]
    if not originals:
        raise NotAVideo(none)
    known = {os.path.normpath(name) for name in found.files}
    found.files += [name for name in originals if os.path.normpath(name) not in known]
    found.roots.append(root)
    if unwanted:
        listed = shortened([readable(os.path.relpath(name, root)) for name in unwanted])
        found.notes.append(
            f"{root}: skipped {counted(len(unwanted), 'file')} whose name does not end like that of a {kind}: {listed}"
        )


def _walk(folder: Path, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
    """The wanted files of a folder and the folders below it, and the others.

    Raises:
        NoPermission, NotFound: A folder cannot be listed.
    """
    wanted: list[str] = []
    others: list[str] = []
    for name in sorted(_files_below(folder), key=_natural):
        (wanted if Path(name).suffix.lower() in suffixes else others).append(name)
    return wanted, others


def _files_below(folder: Path) -> Iterator[str]:
    def failed(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise NoPermission(f"{error.filename}: no permission to list this folder; change its permissions")
        if error.errno != errno.ENOENT:  # it was removed just now
            raise NotFound(f"{error.filename}: this folder cannot be listed ({error.strerror})")

    count = 0
    for place, folders, files in os.walk(folder, onerror=failed):
        count += len(files) + len(folders)
        if count > _MAX_FILES:
            raise NotAVideo(f"{folder}: holds more than {_MAX_FILES:,} files; name a smaller folder")
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield str(Path(place, name))


def _fixed_parts(pattern: Path) -> Sequence[str]:
    """The folders of a pattern before its first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if _WILD.search(part):
            break
        parts.append(part)
    return parts


def _natural(name: str) -> list[list[tuple[int, int, str]]]:
    """A key that sorts clip2 before clip10, folder by folder."""
    return [
        [(0, int(piece), "") if piece.isdigit() else (1, 0, piece.casefold()) for piece in re.split(r"([0-9]+)", part)]
        for part in Path(name).parts
    ]


def _endings(suffixes: frozenset[str]) -> str:
    common = [suffix for suffix in (".mp4", ".mkv", ".mov", ".avi", ".jpg", ".png", ".webp") if suffix in suffixes]
    return f"{', '.join(common)} and others"
