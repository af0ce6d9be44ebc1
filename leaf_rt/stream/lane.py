"""What belongs to one source in a run: its feed, its pipeline, its writers, its counters. Starts no thread itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from leaf_rt.pipeline import Pending, Pipeline
from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.feed import Feed, Item
from leaf_rt.stream.load import LoadControl, Thrift
from leaf_rt.stream.stats import Event, RunStats, SourceStats
from leaf_rt.stream.writer import Work, Writer
from leaf_rt.types import Estimates, Prediction

_BAD_FRAMES_IN_ROW = 30  # after so many a source is given up


class Lane:
    """One source's way through a run.

    Args:
        feed: Its frames.
        stats: Its counters.
        run: The run's counters.
        report: Takes events, from any thread.
    """

    def __init__(self, feed: Feed, stats: SourceStats, run: RunStats, report: Callable[[Event], None]) -> None:
        self.feed, self.stats = feed, stats
        self.pipeline: Pipeline | None = None
        self.writers: list[Writer] = []
        self.closed = False
        self._run, self._report = run, report
        self._load = LoadControl()
        self._thrift: Thrift | None = None
        self._bad_in_row = 0

    @property
    def info(self) -> SourceInfo:
        """The source, as last opened."""
        return self.stats.info

    def equip(self, pipeline: Pipeline, writers: Sequence[Writer]) -> None:
        """Settle what the frames go through; once, at the first frame."""
        self.pipeline = pipeline
        self.writers = list(writers)
        self._thrift = Thrift(pipeline)

    def prepare(self, item: Item) -> Pending | None:
        """First half of a frame's way; None, counted and reported, where it breaks the pipeline."""
        if self.pipeline is None:
            raise ValueError("Lane.prepare: wanted a call of equip() before")
        try:
            return self.pipeline.prepare(item.frame)
        except Exception as e:  # noqa: BLE001 one bad frame must not end a run of days; many in a row end its source
            self._bad_frame(e)
            return None

    def finish(self, pending: Pending, prediction: Prediction) -> Estimates | None:
        """Second half; None, counted and reported, where it breaks the pipeline."""
        if self.pipeline is None:
            raise ValueError("Lane.finish: wanted a call of equip() before")
        try:
            estimates = self.pipeline.finish(pending, prediction)
        except Exception as e:  # noqa: BLE001 as in prepare()
            self._bad_frame(e)
            return None
        for stage in ("detect", "track", "align", "smooth"):
            self._run.stages[stage].add(self.pipeline.timings[stage])
        return estimates

    def deliver(
        self, item: Item, estimates: Estimates, latency: float, shared: Sequence[Writer], gave_up: Callable[[], bool]
    ) -> None:
        """Count a finished frame and hand it to all writers; a file's frame waits for room there."""
        stats = self.stats
        work = Work(stats.info, item.frame, estimates, latency)
        for writer in (*shared, *self.writers):
            writer.put(work, not stats.info.is_live, gave_up)
        stats.processed += 1
        stats.position = item.frame.timestamp
        stats.faces = len(estimates)
        stats.latency.add(latency)
        self._bad_in_row = 0

    def shed(self, now: float) -> None:
        """Make frames cheaper or dearer, as a live source falls behind or keeps up."""
        stats = self.stats
        if self._thrift is None or not stats.info.is_live or stats.state != "open":
            return
        if self._load.update(now, stats.captured, stats.dropped):
            rose = self._load.level > stats.level
            stats.level = self._load.level
            self._thrift.set_level(stats.level)
            text = "falls behind: each frame gets less work" if rose else "keeps up again: each frame gets more work"
            self._report(Event("info", stats.info.name, "load", f"{text} (level {stats.level})"))

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
            self._report(Event("warning", self.info.name, "frame", f"a frame was left out ({error!r})"))
        if self._bad_in_row >= _BAD_FRAMES_IN_ROW:
            self.feed.fail(error)
