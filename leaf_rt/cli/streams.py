"""Standard output and standard error of the process `leaf-rt`.

Messages are less important than the work: if standard error cannot be written, because its disk is full or its reader
has ended, they are lost and the command goes on. If the reader of standard output has ended, the command ends with the
exit code of the table; the exception for it is no ``OSError``, because typer would turn that into another exit code.
Imports nothing heavy, because even ``--help`` needs it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO

from leaf_rt.text import printable


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are, on stdout or stderr, with control characters as escapes."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if err else sys.stdout, flush=err)


class ReaderGone(Exception):
    """The reader of standard output has closed the pipe, or its terminal is gone."""


class _Output(io.FileIO):
    """Standard output."""

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except OSError as e:
            if e.errno in (errno.EPIPE, errno.EIO):
                raise ReaderGone from e
            raise


class _Messages(io.FileIO):
    """Standard error, which may be lost."""

    def write(self, data: Any, /) -> int:
        """Write bytes, or lose them."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def guard() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``, if they are the streams of this process."""
    _open_missing()
    sys.stdout = _guarded(sys.stdout, 1, _Output)
    sys.stderr = _guarded(sys.stderr, 2, _Messages)


def _open_missing() -> None:
    """Open descriptors 0 to 2 that the caller has closed; a result would get the number, and stray messages in it."""
    for descriptor, flag in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # writing to stdout stays an error
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flag)  # gets the lowest number that is free
            if descriptor == 2:
                sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process


def _guarded(stream: TextIO, descriptor: int, kind: type[io.FileIO]) -> TextIO:
    try:
        if stream is None or stream.fileno() != descriptor:
            return stream
    except (OSError, ValueError):  # closed, or no file
        return stream
    raw = io.BufferedWriter(kind(descriptor, "wb", closefd=False))
    by_line = descriptor == 2 or stream.isatty()
    return io.TextIOWrapper(raw, stream.encoding, stream.errors or "strict", line_buffering=by_line)
