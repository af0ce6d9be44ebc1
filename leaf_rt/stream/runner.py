"""Runs sources through the pipeline into sinks.

One loop serves all sources, in the thread of the caller. A round takes one frame of each source that has one, or of
some in turn where that would take too long, and classifies all of their faces with one call of the back end.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.errors import LeafError, NotFound
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.stages import Pending
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import Source, Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.capture import Capture, Opener
from leaf_rt.stream.context import Clock, RunContext
from leaf_rt.stream.control import Addition, RunControl
from leaf_rt.stream.frame_buffer import CapturedFrame
from leaf_rt.stream.notifier import Notifier
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.shutdown import Shutdown
from leaf_rt.stream.sink_worker import SinkWorker
from leaf_rt.stream.source_worker import SourceWorker, ready_workers
from leaf_rt.stream.startup import first_info, open_targets, unique_name
from leaf_rt.stream.stats import Event, EventKind, RunStats
from leaf_rt.system.cpu import cpu_count
from leaf_rt.system.signals import StopSignal, stop_on_signals
from leaf_rt.types import Prediction, SourceInfo

_MAX_WAIT = 0.25  # s; how soon a stop is noticed while no frame comes
_ROUND_TIME = 0.1  # s that a round takes at most, about: a frame waits for all others of its round
_COST_WEIGHT = 0.3  # of the newest round in the mean cost of a frame

PipelineFactory: TypeAlias = Callable[[SourceInfo], Pipeline]
SinkFactory: TypeAlias = Callable[[SourceInfo], Sequence[Sink]]


def _no_sinks(_: SourceInfo) -> Sequence[Sink]:
    return ()


def run(
    targets: Sequence[Target],
    pipeline: PipelineFactory,
    backend: Backend,
    sinks: SinkFactory = _no_sinks,
    shared: Sequence[Sink] = (),
    hooks: Hooks | None = None,
    options: RunOptions | None = None,
    stop: StopSignal | None = None,
    opener: Opener = open_source,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    control: RunControl | None = None,
) -> RunStats:
    """Run sources through the pipeline into sinks until all sources have ended or the run is stopped.

    Args:
        targets: What to read.
        pipeline: Makes the pipeline of a source at its first frame. The run closes it.
        backend: Classifies the faces of all sources. It stays open.
        sinks: Makes the sinks of one source. The run closes them.
        shared: Sinks of all sources. The run closes them, unless ``RunOptions.close_shared`` is False.
        hooks: Called during the run.
        options: How the run works.
        stop: Set it to stop the run in good order.
        opener: Opens a target.
        clock: The time.
        rng: For the jitter of the delays between attempts to connect.
        control: Adds and removes sources during the run.

    Returns:
        The counters. ``failures`` holds the errors that ended single sources or sinks.

    Raises:
        LeafError: A source did not open, the back end failed twice on one batch, all sinks have failed, or all sources
            failed before the first frame was finished.
        KeyboardInterrupt: The run was stopped at once, as by a second SIGINT.
    """
    options, stop = options or RunOptions(), stop or StopSignal()
    control = control or RunControl()
    try:
        opened = open_targets(targets, opener)
    except BaseException:
        control.close()
        for sink in shared if options.close_shared else ():
            with contextlib.suppress(LeafError):  # the reason for not starting matters more
                sink.close()
        raise
    context = RunContext(options, stop, clock or Clock())
    runner = StreamRunner(context, backend, pipeline, sinks, hooks or Hooks(), control, opener, rng or random.Random())
    for target, source in zip(targets, opened, strict=True):
        runner.add(target, source)
    stop.started = True
    with stop_on_signals(stop) if options.handle_signals else contextlib.nullcontext():
        return runner.run(shared)


class StreamRunner:
    """One run; see ``run``."""

    def __init__(
        self,
        context: RunContext,
        backend: Backend,
        make_pipeline: PipelineFactory,
        make_sinks: SinkFactory,
        hooks: Hooks,
        control: RunControl,
        opener: Opener,
        rng: random.Random,
    ) -> None:
        self._context, self._stats = context, context.stats
        self._backend, self._make_pipeline, self._make_sinks, self._hooks = backend, make_pipeline, make_sinks, hooks
        self._control, self._opener, self._rng = control, opener, rng
        self._notifier = Notifier(context, hooks)
        self._shutdown = Shutdown(context)
        self._workers: list[SourceWorker] = []
        self._first: list[Source | LeafError] = []  # what each worker starts with
        self._shared: list[SinkWorker] = []
        self._closing: list[SourceWorker] = []  # sources that have ended, while their sinks finish
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1  # that look for faces
        self._busy, self._served = 0.0, 0  # s of work, and frames that were worked on
        self._cost = _ROUND_TIME  # s per frame, mean of the last rounds
        self._rounds = 0
        self._held_back = False  # whether a frame of a file waits for space in a sink; under the lock

    def add(self, target: Target, first: Source | LeafError) -> None:
        """Add a source that is open, or that will be opened after an error, before the run starts."""
        self._workers.append(self._make_worker(target, first))
        self._first.append(first)

    def add_source(self, addition: Addition) -> str:
        """Add a source during the run; see ``RunControl.add``."""
        worker = self._make_worker(addition.target, addition.source)
        worker.added, worker.own_sinks = True, addition.sinks
        self._workers = [*self._workers, worker]
        worker.capture.start(addition.source)
        return worker.info.name

    def remove_source(self, name: str) -> None:
        """End a source; see ``RunControl.remove``."""
        worker = self._find(name)
        with self._context.lock:
            worker.capture.stop()
        worker.drop_frames()
        worker.tell_if_gone(self._shared if worker.own_sinks is None else ())
        self._close(worker)
        self._workers = [other for other in self._workers if other is not worker]
        self._stats.sources = [stats for stats in self._stats.sources if stats is not worker.stats]
        for other in self._workers:
            other.restart_load()

    def pause_source(self, name: str) -> None:
        """Pause a source; see ``RunControl.pause``."""
        worker = self._find(name)
        worker.drop_ahead()
        with self._context.lock:
            worker.capture.pause()

    def resume_source(self, name: str) -> None:
        """Resume a source; see ``RunControl.resume``."""
        worker = self._find(name)
        if worker.stats.state == "stopped":
            worker.capture.resume()

    def _find(self, name: str) -> SourceWorker:
        found = next((worker for worker in self._workers if worker.info.name == name), None)
        if found is None:
            raise NotFound(f"{name}: this run has no such source")
        return found

    def _make_worker(self, target: Target, first: Source | LeafError | None) -> SourceWorker:
        info = first_info(target, first)
        name = unique_name(info.name, [worker.info.name for worker in (*self._workers, *self._closing)])
        capture = Capture(self._context, target, name, info, self._opener, self._rng)
        self._stats.sources = [*self._stats.sources, capture.stats]  # a new list: other threads read the old one
        return SourceWorker(self._context, capture)

    def run(self, shared: Sequence[Sink]) -> RunStats:
        """Run from the first frame until every sink is closed."""
        context = self._context
        # Two at least: faces in the next frames of a file are looked for while the last one is classified.
        self._threads = context.options.workers or min(max(len(self._workers), 2), cpu_count())
        self._control.bind(context)
        self._pool = ThreadPoolExecutor(self._threads, "faces") if self._threads > 1 else None
        try:
            self._shared = [self._start_sink(sink, context.options.close_shared) for sink in shared]
            for worker, first in zip(self._workers, self._first, strict=True):
                worker.capture.start(first)
            self._first.clear()
            self._loop()
        except KeyboardInterrupt:  # from a caller that handles signals itself
            context.stop.at_once = True
            raise
        finally:
            self._control.close()
            removed = [sink for one in self._closing if one not in self._workers for sink in one.sinks]
            self._shutdown.close(self._workers, [*self._shared, *removed], self._pool)
            self._notifier.progress()
        if context.stop.at_once:
            raise KeyboardInterrupt
        if self._stats.failures and self._stats.processed == 0 and not self._stats.interrupted:
            raise self._stats.failures[0]
        return self._stats

    def _start_sink(self, sink: Sink, close: bool = True) -> SinkWorker:
        worker = SinkWorker(self._context, sink, self._on_room, close)
        self._stats.sinks.append(worker.stats)
        return worker

    def _set_up(self, worker: SourceWorker) -> None:
        """Make the pipeline and the sinks of a source at its first frame."""
        if worker.pipeline is None:
            own = worker.own_sinks
            if own is None:
                self._hooks.opened(worker.info)
            sinks: list[SinkWorker] = []
            pipeline = self._make_pipeline(worker.info)
            try:
                made = self._make_sinks(worker.info) if own is None else own
                sinks = [self._start_sink(sink) for sink in made]
            finally:
                # Beside sources that already do less, one that starts with full effort would take all of their time.
                worker.set_up(pipeline, sinks, max(other.stats.level for other in self._workers))

    def _loop(self) -> None:
        context, draining = self._context, False
        duration = context.options.duration
        end = None if duration is None else self._notifier.started + duration
        while not context.stop.at_once:
            begin = context.now()
            self._control.serve(self)
            if not draining and (context.stop.is_set() or (end is not None and begin >= end)):
                draining = True
                self._stats.interrupted = context.stop.is_set()
                self._shutdown.stop_captures(self._workers)
            batch = self._take_frames(None if draining else end)
            work_begin = context.now()
            self._stats.stages["wait"].add(work_begin - begin)
            if batch is None:
                return
            if batch:
                self._process(batch)
            self._notifier.progress_if_due()
            if batch:
                self._count_round(context.now() - work_begin, len(batch))
            self._after_round()

    def _count_round(self, seconds: float, frames: int) -> None:
        self._busy += seconds
        self._served += frames
        self._cost += _COST_WEIGHT * (seconds / frames - self._cost)

    def _take_frames(self, end: float | None) -> list[tuple[SourceWorker, CapturedFrame]] | None:
        """Take one frame of each source that has one.

        Returns:
            The frames, maybe none, so that the loop can look at other things; None when all sources have ended.
        """
        with self._context.ready:
            now = self._context.now()
            if not self._ready_workers() and not self._control.pending:
                if self._all_ended():
                    return None
                deadlines = [now + _MAX_WAIT, end, *(worker.capture.deadline for worker in self._workers)]
                self._context.ready.wait(max(min(d for d in deadlines if d is not None) - now, 0.0))
            now = self._context.now()
            for worker in self._workers:
                worker.capture.check(now)
            return [(worker, worker.take()) for worker in self._in_turn(self._ready_workers())]

    def _all_ended(self) -> bool:
        """Whether no frame will come any more. Call under the lock."""
        stay = self._control.keep_open and not (self._context.stop.is_set() or self._duration_over())
        return not stay and all(worker.ended for worker in self._workers)

    def _duration_over(self) -> bool:
        duration = self._context.options.duration
        return duration is not None and self._context.now() >= self._notifier.started + duration

    def _ready_workers(self) -> list[SourceWorker]:
        """Workers whose next frame can be taken now. Call under the lock."""
        workers, self._held_back = ready_workers(self._workers, self._shared)
        return workers

    def _in_turn(self, ready: list[SourceWorker]) -> list[SourceWorker]:
        """As many of these as fit into a round, those first that have waited longest."""
        most = max(int(_ROUND_TIME / max(self._cost, 1e-6)), self._threads)
        chosen = sorted(ready, key=lambda worker: worker.last_round)[:most]
        self._rounds += 1
        for worker in chosen:
            worker.last_round = self._rounds
        return chosen

    def _on_room(self) -> None:
        """Wake the loop when a sink has space for a frame that waits. Called by the sinks."""
        with self._context.ready:
            if self._held_back:
                self._context.ready.notify_all()

    def _process(self, batch: Sequence[tuple[SourceWorker, CapturedFrame]]) -> None:
        """Take one frame of each source through the pipeline. Every frame is counted, even if something raises."""
        uncounted = {worker for worker, _ in batch}
        try:
            for worker, _ in batch:
                self._set_up(worker)
            if self._pool is not None and sum(worker.needs_search for worker, _ in batch) > 1:
                prepared = list(self._pool.map(lambda pair: pair[0].prepare(pair[1]), batch))
            else:
                prepared = [worker.prepare(captured) for worker, captured in batch]
            self._look_ahead(batch)
            pending = [(*pair, half) for pair, half in zip(batch, prepared, strict=True) if half is not None]
            uncounted = {worker for worker, _, _ in pending}  # the others have counted their failed frame
            predictions = self._infer([half for _, _, half in pending]) if pending else []
            for (worker, captured, half), prediction in zip(pending, predictions, strict=True):
                estimates = worker.finish(half, prediction)
                uncounted.remove(worker)
                if estimates is None:
                    continue
                latency = self._context.now() - (captured.captured if worker.info.is_live else worker.begun)
                shared = self._shared if worker.own_sinks is None else ()
                worker.deliver(captured, estimates, latency, shared, self._shutdown.drain_expired)
                if worker.own_sinks is None:
                    self._hooks.frame(worker.info, captured.frame, estimates)
        finally:
            for worker in uncounted:
                worker.stats.failed += 1

    def _look_ahead(self, batch: Sequence[tuple[SourceWorker, CapturedFrame]]) -> None:
        """Go on with the next frames of files. Beside a live source they wait: its next frame goes first."""
        if self._pool is not None:
            beside_live = any(worker.info.is_live and not worker.closed for worker in self._workers)
            for worker in (worker for worker, _ in batch if not worker.info.is_live):
                worker.look_ahead(None if beside_live else self._pool)

    def _infer(self, pending: Sequence[Pending]) -> list[Prediction]:
        """Classify all faces with one call. A failed call is reported and repeated once; the second failure raises."""
        crops = pending[0].crops if len(pending) == 1 else np.concatenate([half.crops for half in pending])
        begin = self._context.now()
        try:
            prediction = self._backend.infer(crops)
        except Exception as e:  # noqa: BLE001 reported here, raised if it happens again
            self._stats.inference_errors += 1
            text = f"inference failed; retrying once ({e})"
            self._context.report(Event("warning", self._backend.name, EventKind.INFERENCE, text))
            prediction = self._backend.infer(crops)
        self._stats.stages["infer"].add(self._context.now() - begin)
        self._stats.batches += len(crops) > 0
        parts: list[Prediction] = []
        row = 0
        for half in pending:
            rows = slice(row, row + len(half.crops))
            parts.append(Prediction(prediction.probs[rows], prediction.features[rows]))
            row = rows.stop
        return parts

    def _close(self, worker: SourceWorker) -> None:
        """Close a source that has ended, once. Its sinks go on until they have written everything."""
        if not worker.closed:
            worker.close()
            self._closing.append(worker)

    def _finish_closing(self) -> None:
        """Say which sources have closed with all their sinks, and forget the sinks of removed ones."""
        for worker in [worker for worker in self._closing if all(sink.ended for sink in worker.sinks)]:
            self._closing.remove(worker)
            if worker.own_sinks is None and worker.pipeline is not None:
                self._hooks.closed(worker.stats)
            if worker not in self._workers:
                own = {id(sink.stats) for sink in worker.sinks}
                self._stats.sinks = [stats for stats in self._stats.sinks if id(stats) not in own]

    def _after_round(self) -> None:
        """Deliver events, adapt to the load, close what has ended."""
        self._notifier.deliver_events()
        now = self._context.now()
        live = sum(worker.stats.captured for worker in self._workers if worker.info.is_live)
        files = sum(not worker.info.is_live and not worker.closed for worker in self._workers)
        for worker in self._workers:
            if self._context.options.shed and not worker.closed:
                worker.adapt_to_load(now, live, self._served, self._busy, files)
            worker.tell_if_gone(self._shared if worker.own_sinks is None else ())
            worker.tell_if_unserved(now)
            if not worker.closed and worker.ended:
                self._close(worker)
        self._finish_closing()
        sinks = [*self._shared, *(sink for worker in self._workers for sink in worker.sinks)]
        if sinks and all(sink.stats.off for sink in sinks):
            raise next(sink.error for sink in sinks if sink.error is not None)
