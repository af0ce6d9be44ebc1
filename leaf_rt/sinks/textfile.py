"""A text file that contains complete lines only, however the process ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from leaf_rt.system.file_lock import open_exclusive, release
from leaf_rt.system.files import output_error
from leaf_rt.system.result_file import ResultFile

LineTarget: TypeAlias = Path | str | ResultFile


class LineFile:
    """Writes lines without a buffer. Each call of ``write`` is written completely or not at all.

    Args:
        target: A path, which is written under this name from the start, or "-" for standard output, or a result.
            Whoever opened a result completes it after ``close``.

    Raises:
        NoPermission, OutputError: It cannot be created, or another process writes it.
    """

    def __init__(self, target: LineTarget) -> None:
        self._result = target if isinstance(target, ResultFile) else None
        name = self._result.name if self._result is not None else str(target)
        self._is_file = name != "-"
        self.name = name if self._is_file else "standard output"
        self._fd: int | None = None
        if isinstance(target, ResultFile):
            self._fd = target.fd
        elif self._is_file:
            self._fd = open_exclusive(target, os.O_APPEND)
        else:  # a copy, so that standard output stays open
            try:
                self._fd = os.dup(1)
            except OSError as e:
                raise output_error(self.name, e) from e
        self._size = 0

    def write(self, text: str, *, head: bool = False) -> None:
        """Append text that ends with a newline.

        Args:
            text: What is written.
            head: Whether it is the head of the format, which says nothing by itself.

        Raises:
            NoPermission, OutputError: It cannot be written. A part that was written is removed again if possible.
        """
        if self._fd is None:
            raise ValueError(f"{self.name}: write after close")
        data = text.encode("utf-8")
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as e:
            if self._result is not None:
                self._result.failed = True
            if self._is_file:
                with contextlib.suppress(OSError):  # a pipe or a device cannot be truncated
                    os.ftruncate(self._fd, self._size)
            raise output_error(self.name, e) from e
        self._size += len(data)
        if self._result is not None:
            self._result.bare = head

    def close(self) -> None:
        """Close the file. May be called twice.

        Raises:
            NoPermission, OutputError: The file system reports only now that data was lost.
        """
        if self._fd is not None:
            fd, self._fd = self._fd, None
            if self._result is None:
                release(fd, self.name)
