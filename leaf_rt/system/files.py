"""Folders and files of results: made, written whole or not at all, and what a refusal of the system means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from leaf_rt.errors import LeafError, NoPermission, OutputError


def output_error(path: str | Path, error: OSError) -> LeafError:
    """What an operating system's refusal to write means to a person."""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return NoPermission(f"{path}: may not be written; choose another place with --out, or change its permissions")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"{path}: no room left to write; free some space (what was written so far is valid)")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return OutputError(f"{path}: its folder does not exist; create it first")
    if isinstance(error, IsADirectoryError):
        return OutputError(f"{path}: is a folder; give the name of a file")
    if isinstance(error, BrokenPipeError):
        return OutputError(f"{path}: the reader has closed the pipe; nothing more can be written to it")
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make the folder for results that an option asked for.

    Raises:
        NoPermission, OutputError: It cannot be made, or it is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as e:
        raise NoPermission(f"{option} {folder}: no permission to make this folder; choose another place") from e
    except OSError as e:
        reason = (
            "a file of that name is in the way" if isinstance(e, FileExistsError | NotADirectoryError) else e.strerror
        )
        raise OutputError(f"{option} {folder}: cannot be made ({reason}); choose another place") from e


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], object], *, parents: bool = False) -> None:
    """Write a file under a temporary name, flush it to the disk, then move it to its place.

    A reader sees the old file or the new one, never a part.

    Args:
        path: The file.
        content: Its bytes, or a function that writes them to an open file.
        parents: Create missing folders.

    Raises:
        NoPermission, OutputError: It cannot be written; an older file of that name stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as f:
                if isinstance(content, bytes):
                    f.write(content)
                else:
                    content(f)
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # the error that follows is the one that counts
                temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as e:
        raise output_error(path, e) from e
    except RuntimeError as e:  # torch.save reports a full disk this way
        raise OutputError(f"{path}: cannot be written ({e})") from e


def save_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; see ``write_whole``, which creates missing folders here.

    Raises:
        NoPermission, OutputError: It cannot be written, or a number in it is not finite.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as e:
        raise OutputError(f"{path}: cannot be written: a number in it is not finite") from e
    write_whole(path, text.encode(), parents=True)
