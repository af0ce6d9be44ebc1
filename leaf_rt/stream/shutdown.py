"""How a run ends: sinks get time to finish, nothing may hang."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from leaf_rt.stream.context import RunContext
from leaf_rt.stream.sink_worker import SinkWorker
from leaf_rt.stream.source_worker import SourceWorker

_LAST_FRAME_TIMEOUT = 1.0  # s for all sinks to finish the frame in hand, when the run stops at once
_CAPTURE_TIMEOUT = 1.0  # s to wait for the threads of one source
_POLL = 0.1  # s; how soon a stop at once is noticed while sinks finish


class Shutdown:
    """Ends the threads of a run within the time that ``RunOptions.drain_timeout`` allows."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._drain_end: float | None = None  # s; when to stop waiting for slow sinks

    def drain_expired(self) -> bool:
        """Whether a frame of a file must not wait for a slow sink any longer, because the run is to end."""
        stop, now = self._context.stop, self._context.now()
        if stop.is_set() and self._drain_end is None:
            self._drain_end = now + self._context.options.drain_timeout
        return stop.at_once or (self._drain_end is not None and now >= self._drain_end)

    def stop_captures(self, workers: Sequence[SourceWorker]) -> None:
        """Capture no more frames; those in the buffers can still be taken."""
        with self._context.lock:
            for worker in workers:
                worker.capture.stop()

    def close(
        self, workers: Sequence[SourceWorker], shared: Sequence[SinkWorker], pool: ThreadPoolExecutor | None
    ) -> None:
        """Close everything. After a stop at once, sinks finish only the frame in hand.

        Args:
            workers: All sources, with their pipelines and sinks.
            shared: Sinks of all sources.
            pool: Threads of the loop.
        """
        stop, now, drain_timeout = self._context.stop, self._context.now, self._context.options.drain_timeout
        self.stop_captures(workers)
        for worker in workers:
            worker.close()
            worker.tell_if_gone(shared)
        for sink in shared:
            sink.close()
        deadline = self._finish_sinks([*shared, *(sink for worker in workers for sink in worker.sinks)])
        if pool is not None:
            pool.shutdown(wait=not stop.at_once)
        for worker in workers:
            timeout = deadline - now() if stop.at_once else drain_timeout
            worker.capture.join(max(min(timeout, _CAPTURE_TIMEOUT), 0.0))

    def _finish_sinks(self, sinks: Sequence[SinkWorker]) -> float:
        """Wait for the sinks and collect their errors; returns the deadline, s."""
        context = self._context
        deadline = context.now() + context.options.drain_timeout
        for sink in sinks:
            while not (context.stop.at_once or sink.ended or context.now() >= deadline):
                sink.wait(min(deadline - context.now(), _POLL))
        if context.stop.at_once:
            for sink in sinks:
                sink.abandon()
            deadline = context.now() + _LAST_FRAME_TIMEOUT
        for sink in sinks:
            sink.join(max(deadline - context.now(), 0.0))
            if sink.error is not None:
                context.stats.failures.append(sink.error)
        return deadline
