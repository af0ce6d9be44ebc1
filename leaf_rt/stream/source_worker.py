"""One source in a run: its capture, pipeline, sinks and load control. The loop calls it; it starts no thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.stages import Found, Pending
from leaf_rt.sinks.base import Sink
from leaf_rt.stream.capture import Capture
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.frame_buffer import CapturedFrame
from leaf_rt.stream.load_shedding import Counters, LoadControl
from leaf_rt.stream.look_ahead import LookAhead, Searched
from leaf_rt.stream.sink_worker import SinkWorker, Work
from leaf_rt.stream.stats import Event, EventKind
from leaf_rt.types import Estimates, Prediction, SourceInfo

_MAX_FAILURES = 30  # failed frames in a row that end a source
_UNSERVED_AFTER = 10.0  # s without a finished frame of a source that gives some, after which that is said


class SourceWorker:
    """Takes the frames of one source through its pipeline to its sinks.

    Args:
        context: The run.
        capture: Where the frames come from.

    Attributes:
        stats: The counters of the source.
        pipeline: Its pipeline; None before its first frame.
        sinks: Its own sinks.
        closed: Whether ``close`` was called.
        added: Whether it was added during the run; its error is then no error of the run.
        own_sinks: The only sinks that see it; None for those of the run.
        begun: When the work on the newest frame began, s.
        last_round: Number of the last round of the loop that took a frame of it.
    """

    def __init__(self, context: RunContext, capture: Capture) -> None:
        self.capture, self.stats = capture, capture.stats
        self.pipeline: Pipeline | None = None
        self.sinks: list[SinkWorker] = []
        self.closed = self.added = False
        self.own_sinks: Sequence[Sink] | None = None
        self._context = context
        self._load = LoadControl()
        self.begun, self.last_round = 0.0, 0
        self._ahead = LookAhead(context, capture.buffer, self._detect)
        self._searched: Searched | None = None  # the frame that was taken last, if its faces are known already
        self._failures = 0  # failed frames in a row
        self._served: tuple[float, int, int] | None = None  # s, finished and captured frames when one was last finished
        self._shown = False  # whether the sinks believe that the source is there

    @property
    def info(self) -> SourceInfo:
        """The source, as last opened."""
        return self.stats.info

    def set_up(self, pipeline: Pipeline, sinks: Sequence[SinkWorker], level: int) -> None:
        """Set the pipeline, the sinks and the first level of a live source; once, at the first frame."""
        self.pipeline = pipeline
        self.sinks = list(sinks)
        if level > 0 and self.info.is_live:
            self._load.level = self.stats.level = level
            pipeline.reduce_effort(level)

    @property
    def has_frame(self) -> bool:
        """Whether a frame can be taken. Call under the lock of the run."""
        return self._ahead.is_ready if self._ahead else bool(self.capture.buffer)

    @property
    def ended(self) -> bool:
        """Whether no frame is left and none will come. Call under the lock of the run."""
        return self.capture.ended

    def take(self) -> CapturedFrame:
        """Take the next frame; there must be one. Call under the lock of the run."""
        self._searched = self._ahead.take()
        return self.capture.buffer.take()

    @property
    def needs_search(self) -> bool:
        """Whether ``prepare`` has to look for the faces of the frame that was taken last."""
        return self._searched is None

    def look_ahead(self, pool: Executor | None) -> None:
        """Look for the faces of the next frames while the last one is classified and delivered; None stops that.

        Call it after ``prepare``, and only for a file.
        """
        if pool is None:
            self._ahead.hold()
        else:
            self._ahead.go_on(pool)

    def prepare(self, captured: CapturedFrame) -> Pending | None:
        """Run the pipeline up to the back end; returns None if the frame failed, which is counted and reported."""
        if self.pipeline is None:
            raise ValueError("SourceWorker.prepare: call set_up() first")
        searched, self._searched = self._searched, None
        self.begun = self._context.now() if searched is None else searched.begun
        try:
            return self.pipeline.plan(self._detect(captured) if searched is None else searched.found.result())
        except Exception as e:  # noqa: BLE001 one bad frame must not end a run of days; many in a row end the source
            self._frame_failed(e)
            return None

    def _detect(self, captured: CapturedFrame) -> Found:
        if self.pipeline is None:
            raise ValueError("SourceWorker: call set_up() first")
        now = self._context.now
        begin = now()
        _ = captured.frame.image  # converts the picture of a live source
        self._context.stats.stages["decode"].add(captured.decode_time + now() - begin)
        if self.info.is_live:
            self.capture.watch(captured)
        return self.pipeline.detect(captured.frame)

    def finish(self, pending: Pending, prediction: Prediction) -> Estimates | None:
        """Run the rest of the pipeline; returns None if the frame failed, which is counted and reported."""
        if self.pipeline is None:
            raise ValueError("SourceWorker.finish: call set_up() first")
        try:
            estimates = self.pipeline.finish(pending, prediction)
        except Exception as e:  # noqa: BLE001 as in prepare()
            self._frame_failed(e)
            return None
        for stage in ("detect", "track", "align", "smooth"):
            self._context.stats.stages[stage].add(self.pipeline.timings[stage])
        return estimates

    def deliver(
        self,
        captured: CapturedFrame,
        estimates: Estimates,
        latency: float,
        shared: Sequence[SinkWorker],
        give_up: Callable[[], bool],
    ) -> None:
        """Count a finished frame and give it to all sinks. A frame of a file waits until they have space.

        Args:
            captured: The frame.
            estimates: Its estimates.
            latency: s until the estimates were finished.
            shared: Sinks of all sources.
            give_up: Whether to stop waiting for space; called a few times per second.
        """
        stats = self.stats
        stats.processed += 1
        self._shown = True
        work = Work(stats.info, captured.frame, estimates, latency)
        for sink in (*shared, *self.sinks):
            sink.put(work, not stats.info.is_live, give_up)
        stats.position = captured.frame.timestamp
        stats.faces = len(estimates)
        stats.latency.add(latency)
        self._failures = 0

    def tell_if_gone(self, shared: Sequence[SinkWorker]) -> None:
        """Tell all sinks, after its last frame, that the source was lost, stopped or has ended."""
        if not self._shown or self.stats.state == "open":  # mostly; without the lock, which all captures want
            return
        with self._context.lock:
            gone = self.stats.state in ("lost", "stopped", "ended") and not self.capture.buffer
        if gone:
            self._shown = False
            for sink in (*shared, *self.sinks):
                sink.source_gone(self.info)

    def adapt_to_load(self, now: float, live: int, served: int, busy: float, files: int) -> None:
        """Change the work per frame of a live source as the load rises or falls; arguments as in ``Counters``."""
        stats = self.stats
        if self.pipeline is None or not stats.info.is_live:
            return
        if stats.state != "open":
            self._load.restart()
            return
        changed = self._load.update(now, Counters(stats.captured, stats.dropped, live, served, busy, files))
        stats.demand = self._load.demand
        if changed:
            less = self._load.level > stats.level
            stats.level = self._load.level
            self.pipeline.reduce_effort(stats.level)
            change = "less work per frame, so that fewer frames are dropped" if less else "more work per frame"
            text = f"needs {stats.demand:.0%} of the available time: {change} (level {stats.level})"
            self._context.report(Event("info", stats.info.name, EventKind.LOAD, text))

    def tell_if_unserved(self, now: float) -> None:
        """Say, once, that a live source gets none of the time of this machine."""
        stats = self.stats
        if self._served is None or self._served[1] != stats.processed or stats.state != "open":
            self._served = (now, stats.processed, stats.captured)
        elif now - self._served[0] >= _UNSERVED_AFTER and stats.captured > self._served[2] and stats.info.is_live:
            self._served = (math.inf, stats.processed, stats.captured)
            text = (
                f"none of its frames was processed in {_UNSERVED_AFTER:g} s: this machine is too slow for all sources; "
                "use fewer of them, or smaller pictures"
            )
            self._context.report(Event("warning", stats.info.name, EventKind.LOAD, text))

    def restart_load(self) -> None:
        """Measure the load anew, because another source is gone. Its counters no longer count."""
        self._load.restart()

    def close(self) -> None:
        """Close the pipeline and let the sinks finish, after the last frame. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self.drop_frames()
        error = self.capture.error
        if error is not None and not self.added:
            self._context.stats.failures.append(error)
        for sink in self.sinks:
            sink.close()
        if self.pipeline is not None:
            self.pipeline.close()

    def _frame_failed(self, error: Exception) -> None:
        self.stats.failed += 1
        self._failures += 1
        if self._failures == 1:
            text = f"skipped a frame that failed ({error!r})"
            self._context.report(Event("warning", self.info.name, EventKind.FRAME, text))
        if self._failures >= _MAX_FAILURES:
            self.drop_ahead()
            self.capture.fail(error, f"stopped after {_MAX_FAILURES} failed frames in a row ({error!r})")

    def drop_ahead(self) -> None:
        """Forget what was found in the next frames, and wait until the pipeline is free. Not under the lock."""
        self._ahead.drop()

    def drop_frames(self) -> None:
        """Drop all frames that wait. Not under the lock."""
        self.drop_ahead()
        with self._context.lock:
            self.capture.buffer.drop_all()


def ready_workers(workers: Sequence[SourceWorker], shared: Sequence[SinkWorker]) -> tuple[list[SourceWorker], bool]:
    """Workers whose next frame can be taken now, and whether others must wait. Call under the lock of the run.

    A frame of a file waits until its sinks have space. If a live source runs beside it, the frame waits in its buffer,
    so that the loop does not wait with it.
    """
    waiting = [worker for worker in workers if worker.has_frame]
    if not any(worker.info.is_live and not worker.ended for worker in workers):
        return waiting, False
    shared_have_room = all(sink.has_room(len(waiting)) for sink in shared)
    ready = [
        worker
        for worker in waiting
        if worker.info.is_live or (shared_have_room and all(sink.has_room(1) for sink in worker.sinks))
    ]
    return ready, len(ready) < len(waiting)
