"""A text file that holds whole lines only, however the process ends. Knows the operating system's files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from leaf_rt.system.file_lock import open_exclusive, release
from leaf_rt.system.files import output_error


class LineFile:
    """Unbuffered lines: each call of ``write`` is one write to the file, or leaves no trace.

    Args:
        target: A path, or "-" for standard output.

    Raises:
        NoPermission, OutputError: It cannot be created, or is being written already.
    """

    def __init__(self, target: Path | str) -> None:
        self._own = str(target) != "-"
        self.name = str(target) if self._own else "standard output"
        self._fd: int | None = None
        if self._own:
            self._fd = open_exclusive(target, os.O_APPEND)
        else:  # a copy, so that closing it leaves standard output alone
            try:
                self._fd = os.dup(1)
            except OSError as e:
                raise output_error(self.name, e) from e
        self._size = 0

    def write(self, text: str) -> None:
        """Append text that ends with a newline.

        Raises:
            NoPermission, OutputError: It does not fit; a part that did is taken back, where the file allows it.
        """
        if self._fd is None:
            raise ValueError(f"{self.name}: write after close")
        data = text.encode("utf-8")
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as e:
            if self._own:
                with contextlib.suppress(OSError):  # a pipe or a device has no end to cut
                    os.ftruncate(self._fd, self._size)
            raise output_error(self.name, e) from e
        self._size += len(data)

    def close(self) -> None:
        """Close; may be called twice.

        Raises:
            NoPermission, OutputError: What was written is lost after all.
        """
        if self._fd is not None:
            fd, self._fd = self._fd, None
            release(fd, self.name)
