"""Runs a source in a background thread and passes the results to the caller through a queue."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Estimates, Frame, SourceInfo

_WAIT = 1.0  # s; a wait without a timeout would block Ctrl-C on some systems


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What a sink gets for one frame."""

    source: SourceInfo
    frame: Frame
    estimates: Estimates
    latency: float


class FrameQueue:
    """A sink from which another thread takes the frames; see ``Sink``.

    For files, ``write`` waits until there is room, so no frame is lost. For live sources, only the newest frame is
    kept.

    Args:
        capacity: Frames that may wait.
    """

    name = "stream"
    wants_image = True

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._cancelled = False

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Add a frame. Waits for room, except after ``cancel``."""
        with self._changed:
            if source.is_live:
                self._items.clear()
            while len(self._items) >= self._capacity and not self._cancelled:
                self._changed.wait(_WAIT)
            if not self._cancelled:
                self._items.append(Item(source, frame, estimates, latency))
                self._changed.notify_all()

    def get(self) -> Item | None:
        """Return the next frame, or None at the end."""
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait(_WAIT)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Mark the end. Frames in the queue can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop all frames, now and later."""
        with self._changed:
            self._ended = self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Do nothing: ``BackgroundRun`` calls ``end``, even if the run fails before its first frame."""


class BackgroundRun:
    """A run in its own thread.

    Args:
        work: Runs until the source ends or the signal is set.
        frames: Receives the frames, if the caller takes them one by one.

    Attributes:
        stats: Counters of the run; None until it has ended.
        error: The error that ended the run, its source or a sink; None if there was none.
    """

    def __init__(self, work: Callable[[StopSignal], RunStats], frames: FrameQueue | None = None) -> None:
        self.stats: RunStats | None = None
        self.error: BaseException | None = None
        self._work, self._frames = work, frames
        self._stop = StopSignal()
        self._over = threading.Event()  # Thread.join forgets a running thread when Ctrl-C interrupts it
        self._thread = threading.Thread(target=self._run, name="leaf_rt run", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` s. Return whether the run is over."""
        return self._over.wait(timeout)

    def close(self) -> None:
        """Stop the run and wait for its threads. May be called twice."""
        if self._frames is not None:
            self._frames.cancel()
        self._stop.set()
        while not self._over.wait(_WAIT):
            pass
        self._thread.join()

    def _run(self) -> None:
        try:
            self.stats = self._work(self._stop)
            if self.stats.failures and not self._stop.is_set():
                self.error = self.stats.failures[0]
        except BaseException as e:  # noqa: BLE001 - it is raised in the caller
            self.error = e
        finally:
            if self._frames is not None:
                self._frames.end()
            self._over.set()


def close_with(owner: object, close: Callable[[], None]) -> weakref.finalize[..., object]:
    """Call ``close`` when the owner is collected or the program ends, unless the finalizer is detached before.

    The garbage collector runs in any thread, also in one that ``close`` would wait for. There, a new thread closes.

    Args:
        owner: ``close`` must not refer to it.
        close: Frees what the owner holds.
    """
    safe = {threading.get_ident(), threading.main_thread().ident}

    def collected() -> None:
        if threading.get_ident() in safe:
            close()
        else:
            threading.Thread(target=close, name="leaf_rt close").start()

    return weakref.finalize(owner, collected)
