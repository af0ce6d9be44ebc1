"""One sink in a thread of its own, behind a bounded queue.

A live source never waits for it: what does not fit is counted and left out. A file does wait, so nothing is lost.
Knows sinks; must not know sources or pipelines.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from leaf_rt.errors import LeafError, OutputError, TimedOut
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.stats import Event, EventKind, SinkStats, StageStats
from leaf_rt.types import Estimates, Frame

_FAILURES_IN_ROW = 10  # after so many a sink is switched off
_TEXT_QUEUE = 256  # records are small; pictures are not
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a sink gets; see ``Sink.write``."""

    source: SourceInfo
    frame: Frame
    estimates: Estimates
    latency: float


class SinkWorker:
    """Feeds one sink.

    Args:
        sink: The sink; it is closed in the writer's thread.
        capacity: Frames that may wait, for sinks that want pictures.
        write: Where writing times go.
        draw: Where drawing times go.
        report: Takes events, from any thread.
        room: Called from the writer's thread whenever there is more room than before.
        close_sink: Close the sink when the thread ends; False leaves it open.
    """

    def __init__(
        self,
        sink: Sink,
        capacity: int,
        write: StageStats,
        draw: StageStats,
        report: Callable[[Event], None],
        room: Callable[[], None] = lambda: None,
        close_sink: bool = True,
    ) -> None:
        self.stats = SinkStats(sink.name)
        self.error: Exception | None = None  # why it was switched off
        self._sink = sink
        self._close_sink = close_sink
        self._capacity = capacity if sink.wants_image else max(capacity, _TEXT_QUEUE)
        self._write_times, self._draw_times, self._report, self._room = write, draw, report, room
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._in_row = 0
        self._thread = threading.Thread(target=self._run, name=f"writer {sink.name}", daemon=True)
        self._thread.start()

    def has_room(self, count: int) -> bool:
        """Whether as many calls of ``put`` will not wait, or as many as the queue can hold at all."""
        return self.stats.off or self._capacity - len(self._queue) >= min(count, self._capacity)

    def put(self, work: Work, wait: bool, gave_up: Callable[[], bool]) -> None:
        """Hand over a frame.

        Args:
            work: The frame and its estimates.
            wait: Wait for room; otherwise a full queue drops the frame and counts it.
            gave_up: Asked a few times a second while waiting; True ends the wait and drops the frame.
        """
        if not self._sink.wants_image:
            work = replace(work, frame=replace(work.frame, image=_NO_IMAGE))
        with self._changed:
            while wait and len(self._queue) >= self._capacity and not self.stats.off and not gave_up():
                self._changed.wait(0.25)
            if self.stats.off or len(self._queue) >= self._capacity:
                self.stats.dropped += 1
                return
            self._queue.append(work)
            self.stats.queued = len(self._queue)
            self._changed.notify_all()

    def close(self) -> None:
        """ProgressCallback that nothing more comes; the thread writes what waits and closes the sink."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Leave out what waits; the thread finishes the frame in hand and closes the sink."""
        with self._changed:
            self.stats.dropped += len(self._queue)
            self.stats.queued = 0
            self._queue.clear()
            self._closing = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended: the sink is closed."""
        return not self._thread.is_alive()

    def await_end(self, timeout: float) -> None:
        """Wait up to ``timeout`` s for that."""
        self._thread.join(max(timeout, 0.0))

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` s for the sink to be complete; one that hangs is given up and reported."""
        self._thread.join(timeout)
        if self._thread.is_alive() and self.error is None:
            self._switch_off(TimedOut(f"{self.stats.name}: did not finish within {timeout:g} s and was given up"))

    def _run(self) -> None:
        while (work := self._next()) is not None:
            start = time.perf_counter()
            try:
                self._sink.write(work.source, work.frame, work.estimates, work.latency)
            except Exception as e:  # noqa: BLE001 counted and reported; one failing sink must not end the run
                self._failed(e)
                continue
            finally:
                seconds = time.perf_counter() - start
                drawn = float(getattr(self._sink, "draw_time", 0.0))
                self._write_times.add(seconds - drawn)
                if drawn > 0:
                    self._draw_times.add(drawn)
            self._in_row = 0
            self.stats.written += 1
        if not self._close_sink:
            return
        try:
            self._sink.close()
        except Exception as e:  # noqa: BLE001 reported like a failed write
            if self.error is None:
                self._switch_off(e)

    def _next(self) -> Work | None:
        """The next frame; None once nothing more comes."""
        with self._changed:
            while not self._queue and not self._closing and not self.stats.off:
                self._changed.wait()
            if self.stats.off or not self._queue:
                return None
            work = self._queue.popleft()
            self.stats.queued = len(self._queue)
            self._changed.notify_all()
        self._room()
        return work

    def _failed(self, error: Exception) -> None:
        self.stats.failed += 1
        self._in_row += 1
        if isinstance(error, LeafError) or self._in_row >= _FAILURES_IN_ROW:
            self._switch_off(error)
        elif self._in_row == 1:
            self._report(Event("warning", self.stats.name, EventKind.SINK, f"left out a frame ({error!r})"))

    def _switch_off(self, error: Exception) -> None:
        if not isinstance(error, LeafError):
            wrapped = OutputError(f"{self.stats.name}: failed and was switched off ({error!r})")
            wrapped.__cause__ = error
            error = wrapped
        with self._changed:
            self.error = error
            self.stats.off = True
            self.stats.dropped += len(self._queue)
            self.stats.queued = 0
            self._queue.clear()
            self._changed.notify_all()
        self._room()
        text = str(error).removeprefix(f"{self.stats.name}: ")
        self._report(Event("error", self.stats.name, EventKind.SINK, text, error))
