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
    """The first SIGINT or SIGTERM ends the run in good order, a second SIGINT at once; more change nothing.

    Outside of the main thread, which alone gets signals, it does nothing.

    Raises:
        KeyboardInterrupt: A second SIGINT came, or a first one after ``stop`` was set otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    at_once = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal at_once
        if stop.is_set() and number == signal.SIGINT and not at_once:
            at_once = True
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
