"""Runs one sink in a thread, behind a bounded queue.

A live source never waits for a sink: frames that do not fit are dropped and counted. A file waits, so it loses none.
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
from leaf_rt.sinks.base import Sink, WatchesSources
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.stats import Event, EventKind, SinkStats
from leaf_rt.types import Estimates, Frame, SourceInfo

_MAX_FAILURES = 10  # failed frames in a row that switch a sink off
_MIN_RECORD_QUEUE = 256  # frames; records are small, pictures are not
_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a sink receives; see ``Sink.write``."""

    source: SourceInfo
    frame: Frame
    estimates: Estimates
    latency: float


class SinkWorker:
    """Writes to one sink.

    Args:
        context: The run.
        sink: The sink. The thread of the worker closes it, unless ``close_sink`` is False.
        on_room: Called from that thread whenever the queue has more space than before.
        close_sink: Whether to close the sink at the end.

    Attributes:
        stats: The counters of the sink.
        error: Why it was switched off.
    """

    def __init__(self, context: RunContext, sink: Sink, on_room: Callable[[], None], close_sink: bool = True) -> None:
        self.stats = SinkStats(sink.name, delivery=getattr(sink, "delivery", None))
        self.error: Exception | None = None
        self._context, self._sink, self._on_room, self._close_sink = context, sink, on_room, close_sink
        capacity = context.options.queue
        self._capacity = capacity if sink.wants_image else max(capacity, _MIN_RECORD_QUEUE)
        self._queue: deque[Work | SourceInfo] = deque()  # a source stands for its end
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0  # failed frames in a row
        self._thread = threading.Thread(target=self._run, name=f"writer {sink.name}", daemon=True)
        self._thread.start()

    def has_room(self, count: int) -> bool:
        """Whether the next ``count`` calls of ``put`` do not wait. A count above the capacity needs an empty queue."""
        return self.stats.off or self._capacity - len(self._queue) >= min(count, self._capacity)

    def put(self, work: Work, wait: bool, give_up: Callable[[], bool]) -> None:
        """Queue a frame.

        Args:
            work: The frame and its estimates.
            wait: Wait for space. Otherwise a full queue drops the frame, which is counted.
            give_up: Whether to stop waiting and drop the frame; called a few times per second.
        """
        if not self._sink.wants_image:
            work = replace(work, frame=replace(work.frame, pixels=_NO_IMAGE))
        with self._changed:
            while wait and len(self._queue) >= self._capacity and not self.stats.off and not give_up():
                self._changed.wait(0.25)
            if self.stats.off or len(self._queue) >= self._capacity:
                self.stats.dropped += 1
                return
            self._queue.append(work)
            self.stats.queued = len(self._queue)
            self._changed.notify_all()

    def source_gone(self, source: SourceInfo) -> None:
        """Tell the sink, after its queued frames, that a source was lost or has ended. Never waits."""
        if isinstance(self._sink, WatchesSources):
            with self._changed:
                if not self.stats.off:
                    self._queue.append(source)
                    self._changed.notify_all()

    def close(self) -> None:
        """Accept no more frames. The thread writes the queue and closes the sink."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop the queue. The thread finishes the frame in hand and closes the sink."""
        with self._changed:
            self._drop_queue()
            self._closing = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended and the sink is closed."""
        return not self._thread.is_alive()

    def wait(self, timeout: float) -> None:
        """Wait up to ``timeout`` s for the thread to end."""
        self._thread.join(max(timeout, 0.0))

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` s for the thread to end, and report a sink that hangs as an error."""
        self._thread.join(timeout)
        if self._thread.is_alive() and self.error is None:
            self._switch_off(TimedOut(f"{self.stats.name}: did not finish within {timeout:g} s; it may be incomplete"))

    def _run(self) -> None:
        stages = self._context.stats.stages
        while (work := self._next()) is not None:
            start = time.perf_counter()
            try:
                if isinstance(work, Work):
                    self._sink.write(work.source, work.frame, work.estimates, work.latency)
                elif isinstance(self._sink, WatchesSources):
                    self._sink.source_gone(work)
            except Exception as e:  # noqa: BLE001 counted and reported; one failing sink must not end the run
                self._write_failed(e)
                continue
            finally:
                seconds = time.perf_counter() - start
                draw_time = float(getattr(self._sink, "draw_time", 0.0))
                stages["write"].add(seconds - draw_time)
                if draw_time > 0:
                    stages["draw"].add(draw_time)
            self._failures = 0
            self.stats.written += isinstance(work, Work)
        if not self._close_sink:
            return
        try:
            self._sink.close()
        except Exception as e:  # noqa: BLE001 reported like a failed write
            if self.error is None:
                self._switch_off(e)

    def _next(self) -> Work | SourceInfo | None:
        """The next frame or end of a source; None after the last one."""
        with self._changed:
            while not self._queue and not self._closing and not self.stats.off:
                self._changed.wait()
            if self.stats.off or not self._queue:
                return None
            work = self._queue.popleft()
            self.stats.queued = len(self._queue)
            self._changed.notify_all()
        self._on_room()
        return work

    def _write_failed(self, error: Exception) -> None:
        self.stats.failed += 1
        self._failures += 1
        if isinstance(error, LeafError) or self._failures >= _MAX_FAILURES:
            self._switch_off(error)
        elif self._failures == 1:
            text = f"could not write a frame ({error!r})"
            self._context.report(Event("warning", self.stats.name, EventKind.SINK, text))

    def _switch_off(self, error: Exception) -> None:
        if not isinstance(error, LeafError):
            wrapped = OutputError(f"{self.stats.name}: failed and was switched off ({error!r})")
            wrapped.__cause__ = error
            error = wrapped
        with self._changed:
            self.error = error
            self.stats.off = True
            self._drop_queue()
            self._changed.notify_all()
        self._on_room()
        text = str(error).removeprefix(f"{self.stats.name}: ")
        self._context.report(Event("error", self.stats.name, EventKind.SINK, text, error))

    def _drop_queue(self) -> None:
        self.stats.dropped += sum(isinstance(work, Work) for work in self._queue)
        self.stats.queued = 0
        self._queue.clear()
