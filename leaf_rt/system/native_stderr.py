"""Hides the log lines of native libraries from the terminal.

C++ code, as in MediaPipe, writes to file descriptor 2 regardless of Python's logging. During the calls that do this,
the descriptor is redirected to a temporary file. Afterwards the lines of native loggers go to Python's logging at level
DEBUG, and all other lines (Python's own stderr, of any thread) are written to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

_log = logging.getLogger(__name__)

# TFLite and LiteRT ("INFO: [file.cc:36] ..."), absl ("W0000 00:00:1795440567.8 9256 file.cc:14] ..."), the first lines
# of these loggers, and the picture decoders.
_NATIVE = re.compile(
    rb"(INFO|WARNING|ERROR|VERBOSE): \[[\w.]+:\d+\] "
    rb"|[IWEF]\d{4} \d\d:\d\d:[\d.]+ +\d+ [\w./]+:\d+\] "
    rb"|WARNING: (All log messages|Logging) before "
    rb"|INFO: Created TensorFlow Lite "
    rb"|libpng (error|warning): |Corrupt JPEG data|Premature end of JPEG file"
)


class _Redirection:
    """The redirection of descriptor 2, shared by all threads that use it at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = -1
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            _flush_stderr()
            try:
                self._saved = os.dup(2)
            except OSError:  # there is no stderr
                return
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
            os.dup2(self._file.fileno(), 2)

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._file is None:
                return
            _flush_stderr()
            os.dup2(self._saved, 2)
            os.close(self._saved)
            with self._file as file:
                file.seek(0)
                captured = file.read()
            self._file = None
        for line in captured.splitlines(keepends=True):
            if _NATIVE.match(line):
                _log.debug("%s", line.decode("utf-8", "replace").rstrip())
            else:
                os.write(2, line)


_redirection = _Redirection()


@contextlib.contextmanager
def suppress_native_stderr() -> Iterator[None]:
    """Hide native log lines while the block runs. Lines that Python writes to stderr appear after the block."""
    _redirection.begin()
    try:
        yield
    finally:
        _redirection.end()


def _flush_stderr() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(ValueError):  # closed
            sys.stderr.flush()
