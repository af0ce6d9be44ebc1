"""SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone) as a request to stop, for runs and for training."""

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
    """Set ``stop`` on the first SIGINT, SIGTERM or SIGHUP, and ``stop.at_once`` on a SIGINT after that.

    Only the main thread receives signals. In any other thread this does nothing. An ignored SIGHUP stays ignored, as
    ``nohup`` wants it.

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

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
