"""Creates folders, writes files atomically, and turns operating system errors into messages for users."""

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
    """The error to show to the user for a failed write.

    Args:
        path: What could not be written.
        error: What the operating system reported.
    """
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return NoPermission(f"{path}: no permission to write; change its permissions, or choose another place")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"{path}: no space left on the device; free some space")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return OutputError(f"{path}: the folder does not exist; create it first")
    if isinstance(error, IsADirectoryError):
        return OutputError(f"{path}: this is a folder; give the name of a file")
    if isinstance(error, BrokenPipeError):
        return OutputError(f"{path}: the reader has closed the pipe; nothing more can be written")
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


def make_folder(folder: Path, option: str = "--out") -> None:
    """Create a folder for results.

    Args:
        folder: The folder; parents are created too.
        option: The command line option that named it, for error messages.

    Raises:
        NoPermission, OutputError: It cannot be created, or it is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as e:
        raise NoPermission(f"{option} {folder}: no permission to create this folder; choose another place") from e
    except OSError as e:
        reason = "a file of that name exists" if isinstance(e, FileExistsError | NotADirectoryError) else e.strerror
        raise OutputError(f"{option} {folder}: cannot be created ({reason}); choose another place") from e


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], object], *, parents: bool = False) -> None:
    """Write a file atomically: readers see the old file or the new one, never a part of it.

    The content is written under a temporary name and flushed to the disk; then the file is renamed.

    Args:
        path: The file.
        content: Its bytes, or a function that writes them to an open file.
        parents: Whether to create missing folders.

    Raises:
        NoPermission, OutputError: It cannot be written; an existing file is left unchanged.
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
            with contextlib.suppress(OSError):  # must not hide the error from writing
                temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)
    except OSError as e:
        raise output_error(path, e) from e
    except RuntimeError as e:  # torch.save reports a full disk this way
        raise OutputError(f"{path}: cannot be written ({e})") from e


def fsync_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, so that a rename survives a power loss.

    Raises:
        OSError: The folder cannot be opened or written.
    """
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def save_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; missing folders are created.

    Args:
        path: The file.
        value: What ``json.dumps`` accepts, without NaN or infinity.

    Raises:
        NoPermission, OutputError: It cannot be written, or a number in it is not finite.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as e:
        raise OutputError(f"{path}: cannot be written because a number in it is not finite") from e
    write_whole(path, text.encode(), parents=True)
