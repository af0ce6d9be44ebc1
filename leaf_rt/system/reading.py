"""Opens and reads files from outside: regular files only, and never more than a limit.

A pipe can block for ever, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, BinaryIO

MAX_PICTURE = 256 << 20  # bytes; a camera's raw file of 100 megapixels has 150 MB
MAX_TEXT = 64 << 20  # bytes of a list, a recipe or a description; a list of a million pictures has about 50 MB


class UnreadableFile(OSError):
    """A file that must not be read: no regular file, or too large. ``strerror`` says which."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(None, reason, str(path))
        self.strerror = reason

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading bytes. Never waits for a writer.

    Raises:
        UnreadableFile: It is a pipe, a socket or a device.
        OSError: It cannot be opened; the subclass says why, such as FileNotFoundError or IsADirectoryError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # os.fdopen raises IsADirectoryError for a folder
            raise UnreadableFile(path, "is a pipe or a device, not a file")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path | str, limit: int) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        UnreadableFile: It is a pipe, a socket or a device, or larger than the limit.
        OSError: It cannot be read; the subclass says why.
    """
    with open_regular(path) as file:
        return read_limited(file, limit, path)


def read_text(path: Path | str, limit: int = MAX_TEXT) -> str:
    """Read a whole regular file of UTF-8 text, with any kind of line end.

    Raises:
        UnreadableFile, OSError: As ``read_regular``.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_regular(path, limit).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_limited(file: IO[bytes], limit: int, name: Path | str) -> bytes:
    """Read an open file, such as a member of an archive, to its end.

    Raises:
        UnreadableFile: It holds more bytes than the limit.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise UnreadableFile(name, f"is larger than {limit >> 20} MB, the limit for a file of this kind")
    return data
