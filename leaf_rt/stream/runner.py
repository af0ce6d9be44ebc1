"""The shell: captures, one loop over all sources, one call of the back end for all ready faces, writers.

The one place, with the feeds and writers it starts, that owns threads and reads clocks. The loop runs in the caller's
thread. It takes at most one frame of each source per round, so that no source holds back another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.errors import LeafError
from leaf_rt.recognition.pipeline import Pending, Pipeline
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import Source, SourceInfo, Target, is_url, network_name, redact
from leaf_rt.sources.opening import is_camera, open_source
from leaf_rt.stream import batch
from leaf_rt.stream.capture import CaptureThread, Clock, Item, Opener, close_quietly
from leaf_rt.stream.options import Hooks, RunOptions, StopSignal
from leaf_rt.stream.signals import signals
from leaf_rt.stream.sink_worker import SinkWorker
from leaf_rt.stream.source_worker import SourceWorker, takable
from leaf_rt.stream.stats import Event, EventKind, RunStats, SourceStats
from leaf_rt.types import Prediction

_log = logging.getLogger("leaf_rt.stream")
_log.addHandler(logging.NullHandler())  # who wants the lines adds a handler; the terminal belongs to the caller
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_IN_HAND = 1.0  # s that an end at once leaves all writers for the frame in hand
_GLANCE = 0.1  # s in which an end at once is noticed at the latest while writers finish
_TICK = 0.25  # s in which a stop is noticed at the latest while nothing else happens


def _no_sinks(_: SourceInfo) -> Sequence[Sink]:
    return ()


def run(
    targets: Sequence[Target],
    pipeline: Callable[[SourceInfo], Pipeline],
    backend: Backend,
    sinks: Callable[[SourceInfo], Sequence[Sink]] = _no_sinks,
    shared: Sequence[Sink] = (),
    hooks: Hooks | None = None,
    options: RunOptions | None = None,
    stop: StopSignal | None = None,
    opener: Opener = open_source,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> RunStats:
    """Run sources through the pipeline into sinks until all have ended, or somebody ends it.

    Args:
        targets: What to read.
        pipeline: Makes the pipeline of a source, at its first frame; it is closed here.
        backend: One for all sources; it stays open.
        sinks: Makes the sinks of one source; they are closed here.
        shared: Sinks for all sources; they are closed here, unless ``RunOptions.close_shared`` is False.
        hooks: Called as the run goes on.
        options: How it is driven.
        stop: Set it to end the run in good order.
        opener: Opens targets.
        clock: Tells the time.
        rng: For the jitter between attempts to connect.

    Returns:
        The counters; ``failures`` holds what made single sources or sinks give up.

    Raises:
        LeafError: A first open failed; the back end failed twice on a batch; every sink has failed; or no source gave
            anything that could be used.
        KeyboardInterrupt: It was to end at once, as by a second SIGINT.
    """
    options, stop = options or RunOptions(), stop or StopSignal()
    shell = StreamRunner(backend, pipeline, sinks, hooks or Hooks(), options, stop, clock or Clock())
    try:
        shell.open(targets, opener, rng or random.Random())
    except BaseException:
        for sink in shared if options.close_shared else ():
            with contextlib.suppress(LeafError):  # the reason for not starting matters more
                sink.close()
        raise
    stop.begun = True
    with signals(stop) if options.handle_signals else contextlib.nullcontext():
        return shell.run(shared)


class StreamRunner:
    """One run; see ``run``."""

    def __init__(
        self,
        backend: Backend,
        make_pipeline: Callable[[SourceInfo], Pipeline],
        make_sinks: Callable[[SourceInfo], Sequence[Sink]],
        hooks: Hooks,
        options: RunOptions,
        stop: StopSignal,
        clock: Clock,
    ) -> None:
        self.stats = RunStats()
        self._backend, self._make_pipeline, self._make_sinks = backend, make_pipeline, make_sinks
        self._hooks, self._options, self._stop, self._clock = hooks, options, stop, clock
        self._lanes: list[SourceWorker] = []
        self._shared: list[SinkWorker] = []
        self._lock = threading.RLock()
        self._ready = threading.Condition(self._lock)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._started = self._progressed = 0.0
        self._busy, self._served = 0.0, 0  # s of work, and frames that were worked on
        self._held_back = False  # whether a file's frame waits for room in an output, under the lock
        self._hurry_after: float | None = None  # when to stop waiting for slow sinks

    def open(self, targets: Sequence[Target], opener: Opener, rng: random.Random) -> None:
        """Open every target, side by side; where several fail, the first in their order is raised."""
        with ThreadPoolExecutor(min(max(len(targets), 1), 16), "open") as pool:
            opened = [pool.submit(opener, t.target, t.options) for t in targets]
        tried = list(zip(targets, opened, strict=True))
        errors = [e for target, future in tried if (e := future.exception()) and not _may_wait(target, e)]
        if errors:
            for future in opened:
                if future.exception() is None:
                    close_quietly(future.result())
            raise errors[0]
        for target, future in tried:
            self._add_lane(target, future, opener, rng)
        self._started = self._progressed = self._clock.monotonic()

    def run(self, shared: Sequence[Sink]) -> RunStats:
        """From the first frame to the last closed file."""
        workers = self._options.workers or min(len(self._lanes), os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(workers, "faces") if workers > 1 else None
        try:
            self._shared = [self._writer(sink, self._options.close_shared) for sink in shared]
            for lane in self._lanes:
                lane.feed.start()
            self._loop()
        except KeyboardInterrupt:  # of a caller that takes signals in its own way
            self._stop.at_once = True
            raise
        finally:
            self._close()
            self._tell()
        if self._stop.at_once:
            raise KeyboardInterrupt
        if self.stats.failures and self.stats.processed == 0 and not self.stats.interrupted:
            raise self.stats.failures[0]
        return self.stats

    # Opening and closing

    def _add_lane(self, target: Target, future: Future[Source], opener: Opener, rng: random.Random) -> None:
        error = future.exception()
        source = None if error is not None else future.result()
        info = _unopened(target) if source is None else source.info
        names = {lane.feed.name for lane in self._lanes}
        candidates = (info.name if n == 1 else f"{info.name} #{n}" for n in range(1, len(names) + 2))
        name = next(c for c in candidates if c not in names)
        stats = SourceStats(info)
        self.stats.sources.append(stats)
        feed = CaptureThread(
            target, name, source, error if isinstance(error, LeafError) else None, opener, self._lock, self._ready,
            stats, self.stats.stages["decode"], self._events.put, self._options.queue, self._clock, rng,
        )  # fmt: skip
        self._lanes.append(SourceWorker(feed, stats, self.stats, self._events.put))

    def _equip(self, lane: SourceWorker) -> None:
        """Make a source's pipeline and sinks, now that it gives frames."""
        if lane.pipeline is None:
            self._hooks.opened(lane.info)
            writers: list[SinkWorker] = []
            pipeline = self._make_pipeline(lane.info)
            try:
                writers = [self._writer(sink) for sink in self._make_sinks(lane.info)]
            finally:
                lane.equip(pipeline, writers)

    def _writer(self, sink: Sink, close: bool = True) -> SinkWorker:
        stages = self.stats.stages
        writer = SinkWorker(
            sink, self._options.queue, stages["write"], stages["draw"], self._events.put, self._look_again, close
        )
        self.stats.sinks.append(writer.stats)
        return writer

    def _writers(self) -> list[SinkWorker]:
        return [*self._shared, *(writer for lane in self._lanes for writer in lane.writers)]

    def _close(self) -> None:
        """End all threads. Writers have some time for what waits, and at an end at once for the frame in hand alone."""
        with self._lock:
            for lane in self._lanes:
                lane.feed.stop()
        for lane in self._lanes:
            lane.close(self._lock)
        writers = self._writers()
        for writer in self._shared:
            writer.close()
        deadline = self._clock.monotonic() + self._options.drain_timeout
        for writer in writers:
            while not (self._stop.at_once or writer.ended or self._clock.monotonic() >= deadline):
                writer.await_end(min(deadline - self._clock.monotonic(), _GLANCE))
        if self._stop.at_once:
            for writer in writers:
                writer.abandon()
            deadline = self._clock.monotonic() + _IN_HAND
        for writer in writers:
            writer.join(max(deadline - self._clock.monotonic(), 0.0))
            if writer.error is not None:
                self.stats.failures.append(writer.error)
        if self._pool is not None:
            self._pool.shutdown(wait=not self._stop.at_once)
        for lane in self._lanes:
            wait = deadline - self._clock.monotonic() if self._stop.at_once else self._options.drain_timeout
            lane.feed.join(max(min(wait, 1.0), 0.0))  # a capture that hangs in a read ends with it, on its own

    # The loop

    def _loop(self) -> None:
        draining = False
        while not self._stop.at_once:
            begin = self._clock.monotonic()
            end = None if self._options.duration is None else self._started + self._options.duration
            if not draining and (self._stop.is_set() or (end is not None and begin >= end)):
                draining = True
                self.stats.interrupted = self._stop.is_set()
                with self._lock:
                    for lane in self._lanes:
                        lane.feed.stop()
            items = self._gather(None if draining else end)
            waited = self._clock.monotonic()
            self.stats.stages["wait"].add(waited - begin)
            if items is None:
                return
            if items:
                self._step(items)
            self._tell_if_due()
            self._busy += self._clock.monotonic() - waited if items else 0.0
            self._served += len(items)
            self._after_round()

    def _gather(self, end: float | None) -> list[tuple[SourceWorker, Item]] | None:
        """One frame of each source that has one; none when it is time to look around; None when all have ended."""
        with self._ready:
            now = self._clock.monotonic()
            if not self._takable():
                if all(lane.feed.ended for lane in self._lanes):
                    return None
                deadlines = [now + _TICK, end, *(lane.feed.deadline() for lane in self._lanes)]
                self._ready.wait(max(min(d for d in deadlines if d is not None) - now, 0.0))
            if self._options.batch_wait > 0:
                self._await_others()
            now = self._clock.monotonic()
            for lane in self._lanes:
                lane.feed.check(now)
            return [(lane, lane.feed.take()) for lane in self._takable()]

    def _takable(self) -> list[SourceWorker]:
        """Lanes whose frame may be taken now; see ``takable``. Call under the lock."""
        lanes, self._held_back = takable(self._lanes, self._shared)
        return lanes

    def _look_again(self) -> None:
        """An output has room: what was held back may be taken."""
        with self._ready:
            if self._held_back:
                self._ready.notify_all()

    def _await_others(self) -> None:
        """Wait for sources that will soon have a frame, to serve all in one call. Call under the lock."""
        arrived = [lane.feed.oldest for lane in self._takable()]
        if not arrived:
            return
        until = batch.deadline(min(arrived), self._options.batch_wait, self.stats.sources)
        while any(not lane.feed.has_item() and batch.worth_waiting(lane.stats, until) for lane in self._lanes):
            left = until - self._clock.monotonic()
            if left <= 0 or not self._ready.wait(left):
                return

    def _step(self, items: list[tuple[SourceWorker, Item]]) -> None:
        """Everything for one frame of each of these sources; every one of them is counted, whatever breaks."""
        in_hand = {lane for lane, _ in items}
        try:
            for lane, _ in items:
                self._equip(lane)
            begin = self._clock.monotonic()  # what is loaded for a source's first frame is no part of its latency
            if self._pool is not None and len(items) > 1:
                halves = list(self._pool.map(lambda pair: pair[0].prepare(pair[1]), items))
            else:
                halves = [lane.prepare(item) for lane, item in items]
            waiting = [(lane, item, half) for (lane, item), half in zip(items, halves, strict=True) if half is not None]
            in_hand = {lane for lane, _, _ in waiting}  # the others have counted their bad frame
            answers = self._infer([half for _, _, half in waiting]) if waiting else []
            for (lane, item, half), answer in zip(waiting, answers, strict=True):
                estimates = lane.finish(half, answer)
                in_hand.remove(lane)
                if estimates is None:
                    continue
                latency = self._clock.monotonic() - (item.arrived if lane.info.is_live else begin)
                lane.deliver(item, estimates, latency, self._shared, self._hurry)
                self._hooks.frame(lane.info, item.frame, estimates)
        finally:
            for lane in in_hand:
                lane.stats.failed += 1

    def _infer(self, halves: Sequence[Pending]) -> list[Prediction]:
        """One call for all faces. A failure is reported and tried once more; a second one ends the run."""
        crops = halves[0].crops if len(halves) == 1 else np.concatenate([half.crops for half in halves])
        begin = self._clock.monotonic()
        try:
            answer = self._backend.infer(crops)
        except Exception as e:  # noqa: BLE001 reported here, raised if it happens again
            self.stats.inference_errors += 1
            self._events.put(
                Event("warning", self._backend.name, EventKind.INFERENCE, f"failed and is tried again ({e})")
            )
            answer = self._backend.infer(crops)
        self.stats.stages["infer"].add(self._clock.monotonic() - begin)
        self.stats.batches += len(crops) > 0
        parts: list[Prediction] = []
        row = 0
        for half in halves:
            rows = slice(row, row + len(half.crops))
            parts.append(Prediction(answer.probs[rows], answer.features[rows]))
            row = rows.stop
        return parts

    def _hurry(self) -> bool:
        """Whether a file's frame may no longer wait for a slow sink, because the run is to end."""
        now = self._clock.monotonic()
        if self._stop.is_set() and self._hurry_after is None:
            self._hurry_after = now + self._options.drain_timeout
        return self._stop.at_once or (self._hurry_after is not None and now >= self._hurry_after)

    def _after_round(self) -> None:
        """Tell what happened, adapt to the load, tidy up after sources that have ended."""
        self._say_events()
        now = self._clock.monotonic()
        live = sum(lane.stats.captured for lane in self._lanes if lane.info.is_live)
        files = sum(not lane.info.is_live and not lane.closed for lane in self._lanes)
        for lane in self._lanes:
            if self._options.shed:
                lane.shed(now, live, self._served, self._busy, files)
            if not lane.closed and lane.feed.ended:
                lane.close(self._lock)
        writers = self._writers()
        if writers and all(writer.stats.off for writer in writers):
            raise next(writer.error for writer in writers if writer.error is not None)

    def _say_events(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                _log.log(_LEVELS[event.level], "%s: %s", event.source, event.text)
                self._hooks.event(event)

    def _tell_if_due(self) -> None:
        now = self._clock.monotonic()
        if now - self._progressed >= self._options.progress_every:
            self._progressed = now
            self._tell()

    def _tell(self) -> None:
        self._say_events()
        now = self._clock.monotonic()
        self.stats.update(now - self._started, now)
        self._hooks.progress(self.stats)


def _may_wait(target: Target, error: BaseException) -> bool:
    """Whether a first open that failed may be tried again."""
    lives = is_url(target.target) or is_camera(target.target)
    return target.options.wait and lives and isinstance(error, LeafError)


def _unopened(target: Target) -> SourceInfo:
    """What is known of a live source before it has ever been open."""
    shown = redact(target.target)
    if is_camera(target.target):
        return SourceInfo(target.options.name or f"camera {shown}", shown, "camera", 0, 0, is_live=True)
    return SourceInfo(target.options.name or network_name(shown), shown, "network", 0, 0, is_live=True)
