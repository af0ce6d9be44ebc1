"""What Ctrl-C and `kill` mean to a run. Knows the signals of the process alone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from leaf_rt.stream.options import StopSignal


@contextlib.contextmanager
def signals(stop: StopSignal) -> Iterator[None]:
    """The first SIGINT or SIGTERM sets ``stop``, a SIGINT after that its ``at_once``; more change nothing.

    Outside of the main thread, which alone gets signals, it does nothing.

    Raises:
        KeyboardInterrupt: A SIGINT came before the run has begun.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if number == signal.SIGINT and not stop.begun:
            raise KeyboardInterrupt
        if number == signal.SIGINT and (asked or stop.is_set()):
            stop.at_once = True
        elif not asked:  # never twice: a second signal may come while the first one holds the lock of ``stop``
            asked = True
            stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
