"""A text file that holds whole lines only, however the process ends. Knows the operating system's files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from leaf_rt.sinks.base import output_error


class LineFile:
    """Unbuffered lines: each call of ``write`` is one write to the file, or leaves no trace.

    Args:
        target: A path, or "-" for standard output.

    Raises:
        NoPermission, OutputError: It cannot be created.
    """

    def __init__(self, target: Path | str) -> None:
        self._own = str(target) != "-"
        self.name = str(target) if self._own else "standard output"
        self._fd: int | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            # A copy of descriptor 1, so that closing it leaves standard output alone.
            self._fd = os.open(target, flags, 0o666) if self._own else os.dup(1)
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
        """Close; may be called twice."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.close(fd)
            except OSError as e:  # a network file system says only now that the data was lost
                raise output_error(self.name, e) from e
