"""SIGINT (Ctrl-C) and SIGTERM as a request to stop, for runs and for training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopSignal(threading.Event):
    """A request to finish the work in hand and stop. Set it from any thread.

    Attributes:
        at_once: Stop without finishing what is queued. This is a plain flag that the work polls, because an exception
            in the middle of native code could crash the process.
        started: Whether there is work to finish. Before that, SIGINT raises KeyboardInterrupt.
    """

    def __init__(self, started: bool = False) -> None:
        super().__init__()
        self.at_once = False
        self.started = started


@contextlib.contextmanager
def stop_on_signals(stop: StopSignal, raise_on_second: bool = False) -> Iterator[None]:
    """Set ``stop`` on the first SIGINT or SIGTERM, and ``stop.at_once`` on a SIGINT after that.

    Only the main thread receives signals. In any other thread this does nothing.

    Args:
        stop: The request to set.
        raise_on_second: Raise KeyboardInterrupt instead of setting ``stop.at_once``.

    Raises:
        KeyboardInterrupt: SIGINT arrived before ``stop.started``, or a second time with ``raise_on_second``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal received
        if number == signal.SIGINT and not stop.started:
            raise KeyboardInterrupt
        if number == signal.SIGINT and (received or stop.is_set()):
            if raise_on_second:
                raise KeyboardInterrupt
            stop.at_once = True
        elif not received:  # set only once: a second signal may arrive while the first one holds the lock of ``stop``
            received = True
            stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
