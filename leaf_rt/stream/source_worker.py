"""What belongs to one source in a run: its feed, its pipeline, its writers, its counters. Starts no thread itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from leaf_rt.recognition.pipeline import Pending, Pipeline
from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.capture import CaptureThread, Item
from leaf_rt.stream.load_shedding import Counters, LoadControl
from leaf_rt.stream.sink_worker import SinkWorker, Work
from leaf_rt.stream.stats import Event, EventKind, RunStats, SourceStats
from leaf_rt.types import Estimates, Prediction

_BAD_FRAMES_IN_ROW = 30  # after so many a source is given up


class SourceWorker:
    """One source's way through a run.

    Args:
        feed: Its frames.
        stats: Its counters.
        run: The run's counters.
        report: Takes events, from any thread.
    """

    def __init__(self, feed: CaptureThread, stats: SourceStats, run: RunStats, report: Callable[[Event], None]) -> None:
        self.feed, self.stats = feed, stats
        self.pipeline: Pipeline | None = None
        self.writers: list[SinkWorker] = []
        self.closed = False
        self._run, self._report = run, report
        self._load = LoadControl()
        self._bad_in_row = 0

    @property
    def info(self) -> SourceInfo:
        """The source, as last opened."""
        return self.stats.info

    def equip(self, pipeline: Pipeline, writers: Sequence[SinkWorker]) -> None:
        """Settle what the frames go through; once, at the first frame."""
        self.pipeline = pipeline
        self.writers = list(writers)

    def prepare(self, item: Item) -> Pending | None:
        """First half of a frame's way; None, counted and reported, where it breaks the pipeline."""
        if self.pipeline is None:
            raise ValueError("SourceWorker.prepare: wanted a call of equip() before")
        try:
            return self.pipeline.prepare(item.frame)
        except Exception as e:  # noqa: BLE001 one bad frame must not end a run of days; many in a row end its source
            self._bad_frame(e)
            return None

    def finish(self, pending: Pending, prediction: Prediction) -> Estimates | None:
        """Second half; None, counted and reported, where it breaks the pipeline."""
        if self.pipeline is None:
            raise ValueError("SourceWorker.finish: wanted a call of equip() before")
        try:
            estimates = self.pipeline.finish(pending, prediction)
        except Exception as e:  # noqa: BLE001 as in prepare()
            self._bad_frame(e)
            return None
        for stage in ("detect", "track", "align", "smooth"):
            self._run.stages[stage].add(self.pipeline.timings[stage])
        return estimates

    def deliver(
        self,
        item: Item,
        estimates: Estimates,
        latency: float,
        shared: Sequence[SinkWorker],
        gave_up: Callable[[], bool],
    ) -> None:
        """Count a finished frame and hand it to all writers; a file's frame waits for room there."""
        stats = self.stats
        stats.processed += 1
        work = Work(stats.info, item.frame, estimates, latency)
        for writer in (*shared, *self.writers):
            writer.put(work, not stats.info.is_live, gave_up)
        stats.position = item.frame.timestamp
        stats.faces = len(estimates)
        stats.latency.add(latency)
        self._bad_in_row = 0

    def shed(self, now: float, live: int, served: int, busy: float, files: int) -> None:
        """Make a live source's frames cheaper or dearer, as the load rises or falls; see ``Counters``."""
        stats = self.stats
        if self.pipeline is None or not stats.info.is_live:
            return
        if stats.state != "open":
            self._load.restart()
            return
        changed = self._load.update(now, Counters(stats.captured, stats.dropped, live, served, busy, files))
        stats.demand = self._load.demand
        if changed:
            rose = self._load.level > stats.level
            stats.level = self._load.level
            self.pipeline.reduce_effort(stats.level)
            work = "less work, before any more are lost" if rose else "more work again"
            text = f"{stats.demand:.0%} busy: each frame gets {work} (level {stats.level})"
            self._report(Event("info", stats.info.name, EventKind.LOAD, text))

    def close(self, lock: threading.RLock) -> None:
        """Free the pipeline and let the writers finish; once no frame comes any more."""
        if self.closed:
            return
        self.closed = True
        with lock:
            self.feed.drop_rest()
            error = self.feed.error
        if error is not None:
            self._run.failures.append(error)
        for writer in self.writers:
            writer.close()
        if self.pipeline is not None:
            self.pipeline.close()

    def _bad_frame(self, error: Exception) -> None:
        self.stats.failed += 1
        self._bad_in_row += 1
        if self._bad_in_row == 1:
            self._report(Event("warning", self.info.name, EventKind.FRAME, f"a frame was left out ({error!r})"))
        if self._bad_in_row >= _BAD_FRAMES_IN_ROW:
            self.feed.fail(error)


def takable(lanes: Sequence[SourceWorker], shared: Sequence[SinkWorker]) -> tuple[list[SourceWorker], bool]:
    """Lanes whose frame may be taken now, and whether others are held back. Call under the lock of their feeds.

    Beside a live source, which would wait with it, a file's frame stays where it is until its outputs have room.
    """
    waiting = [lane for lane in lanes if lane.feed.has_item()]
    if not any(lane.info.is_live and not lane.feed.ended for lane in lanes):
        return waiting, False
    free = all(writer.has_room(len(waiting)) for writer in shared)
    result = [
        lane for lane in waiting if lane.info.is_live or (free and all(writer.has_room(1) for writer in lane.writers))
    ]
    return result, len(result) < len(waiting)
