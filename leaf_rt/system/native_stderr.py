"""Keeps the log lines of native libraries off the user's terminal.

MediaPipe's C++ parts write to file descriptor 2 whatever Python's logging says. Around the few calls that do so the
descriptor leads into a temporary file; what a native logger wrote there goes to Python's logging at level DEBUG,
everything else (Python's own stderr, of any thread) is written on when the descriptor is back.
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

# TFLite and LiteRT ("INFO: [file.cc:36] ..."), absl ("W0000 00:00:1795440567.8 9256 file.cc:14] ..."), their heralds,
# and the picture decoders.
_NATIVE = re.compile(
    rb"(INFO|WARNING|ERROR|VERBOSE): \[[\w.]+:\d+\] "
    rb"|[IWEF]\d{4} \d\d:\d\d:[\d.]+ +\d+ [\w./]+:\d+\] "
    rb"|WARNING: (All log messages|Logging) before "
    rb"|INFO: Created TensorFlow Lite "
    rb"|libpng (error|warning): |Corrupt JPEG data|Premature end of JPEG file"
)


class _Diversion:
    """The one diversion of descriptor 2, shared by all threads that want it at the same time."""

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
            except OSError:  # no stderr at all: nothing to keep clean
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


_diversion = _Diversion()


@contextlib.contextmanager
def suppress_native_stderr() -> Iterator[None]:
    """Keep native log lines off the terminal while the block runs; lines of Python's own come a little later."""
    _diversion.begin()
    try:
        yield
    finally:
        _diversion.end()


def _flush_stderr() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(ValueError):  # closed by its owner
            sys.stderr.flush()
