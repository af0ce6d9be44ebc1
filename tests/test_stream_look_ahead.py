"""The search of the next frames of a file: in order, a few at most, and never two frames at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from fakes import FakeBackend, face_at
from streams import INFO, Keeping, OneFace, Opener, Script, balanced, frame, frames, no_thread_stays

from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.stages import Found
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.context import Clock, RunContext
from leaf_rt.stream.frame_buffer import CapturedFrame, FrameBuffer
from leaf_rt.stream.look_ahead import DEPTH, LookAhead
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats, SourceStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Frame, SourceInfo

COUNT = 24


class Later(Executor):
    """A pool whose threads are all busy until ``work`` is called."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.jobs.append(lambda: fn(*args, **kwargs))
        return Future()

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


class Ahead:
    """A look-ahead over a buffer of frames, and the frames that were searched."""

    def __init__(self, count: int, act: Callable[[Frame], None] = lambda _: None) -> None:
        self.context = RunContext(RunOptions(queue=COUNT), StopSignal(), Clock())
        self.buffer = FrameBuffer(self.context, SourceStats(INFO))
        with self.context.lock:
            for index in range(count):
                self.buffer.put(CapturedFrame(frame(index), 0.0), is_live=False)
        self.searched: list[int] = []
        self.act = act
        self.look = LookAhead(self.context, self.buffer, self._detect)

    def _detect(self, captured: CapturedFrame) -> Found:
        self.searched.append(captured.frame.index)
        self.act(captured.frame)
        return Found(captured.frame, face_at(50, 50), 0.0, 0.0, False, 0)

    def take(self) -> tuple[int, Future[Found] | None]:
        with self.context.lock:
            searched = self.look.take()
            return self.buffer.take().frame.index, None if searched is None else searched.found


def test_a_few_frames_are_searched_in_order_and_stay_in_the_buffer() -> None:
    ahead, pool = Ahead(10), Later()
    ahead.look.go_on(pool)
    pool.work()
    assert ahead.searched == list(range(DEPTH))
    assert len(ahead.buffer) == 10
    for index in range(10):
        place, found = ahead.take()
        assert place == index
        assert found is not None
        assert found.result(0).frame.index == index
        ahead.look.go_on(pool)
        pool.work()
        assert ahead.searched == list(range(min(index + 1 + DEPTH, 10)))
    assert ahead.look.take() is None


def test_one_thread_at_a_time_searches_a_file() -> None:
    ahead, pool = Ahead(10), Later()
    for _ in range(3):
        ahead.look.go_on(pool)
    assert len(pool.jobs) == 1


def test_no_frame_is_begun_with_while_the_loop_searches_the_one_before_it() -> None:
    ahead, pool = Ahead(10), Later()
    ahead.look.go_on(pool)  # but no thread is free
    assert ahead.take() == (0, None)  # so the loop searches this one
    pool.work()
    assert ahead.searched == []
    ahead.look.go_on(pool)
    pool.work()
    assert ahead.searched == [1, 2, 3, 4][:DEPTH]


def test_an_error_belongs_to_its_frame_and_the_next_ones_are_searched() -> None:
    def act(image: Frame) -> None:
        if image.index == 1:
            raise RuntimeError("bad frame")

    ahead, pool = Ahead(3, act), Later()
    ahead.look.go_on(pool)
    pool.work()
    results = [ahead.take()[1] for _ in range(3)]
    assert [found is not None and found.exception(0) is None for found in results] == [True, False, True]
    assert results[1] is not None
    with pytest.raises(RuntimeError, match="bad frame"):
        results[1].result(0)


def test_nothing_is_begun_with_after_hold() -> None:
    ahead, pool = Ahead(10), Later()
    ahead.act = lambda image: ahead.look.hold() if image.index == 1 else None
    ahead.look.go_on(pool)
    pool.work()
    assert ahead.searched == [0, 1]
    assert ahead.look.is_ready


def test_drop_waits_for_the_frame_in_hand_and_leaves_all_frames_in_the_buffer() -> None:
    begun, go, finished = threading.Event(), threading.Event(), threading.Event()

    def act(_: Frame) -> None:
        begun.set()
        assert go.wait(20)
        finished.set()

    ahead = Ahead(10, act)
    with ThreadPoolExecutor(1) as pool:
        ahead.look.go_on(pool)
        assert begun.wait(20)
        threading.Timer(0.2, go.set).start()
        ahead.look.drop()
        assert finished.is_set()
        searched = list(ahead.searched)
    assert ahead.searched == searched
    assert len(ahead.buffer) == 10
    assert len(ahead.look) == 0


class Careful(OneFace):
    """Finds a face; notes the order of the frames, and fails where two are searched at once."""

    def __init__(self, done: Callable[[], int], bad: int = -1) -> None:
        super().__init__(self.look)
        self.order: list[int] = []
        self.furthest = 0
        self._one, self._done, self._bad = threading.Lock(), done, bad

    def look(self, image: Frame) -> None:
        assert self._one.acquire(blocking=False), "two frames of one file were searched at once"
        time.sleep(0.001)  # others may come now
        self.order.append(image.index)
        self.furthest = max(self.furthest, image.index - self._done())
        self._one.release()
        if image.index == self._bad:
            raise RuntimeError("bad frame")


def play(detectors: dict[str, Careful], backend: FakeBackend, workers: int = 2) -> tuple[Keeping, RunStats]:
    left = list(detectors.values())

    def pipeline(_: SourceInfo) -> Pipeline:
        return Pipeline(left.pop(0), FaceTracker(), backend, options=PipelineOptions(classify_fps=0.0))

    sink = Keeping()
    opener = Opener(**{name: [Script(INFO, frames(COUNT))] for name in detectors})
    targets = [Target(name, SourceOptions()) for name in detectors]
    stats = run(targets, pipeline, backend, shared=[sink], opener=opener, options=RunOptions(workers=workers))
    no_thread_stays()
    return sink, stats


def test_a_run_searches_a_few_frames_ahead_and_no_more() -> None:
    backend = FakeBackend()
    detector = Careful(lambda: len(backend.batches))
    sink, stats = play({"a": detector}, backend)
    assert [index for _, index, _, _ in sink.rows] == detector.order == list(range(COUNT))
    assert detector.furthest <= DEPTH
    assert balanced(stats)


def test_a_frame_that_fails_ahead_is_counted_and_the_others_come_through() -> None:
    sink, stats = play({"a": Careful(lambda: 0, bad=7)}, FakeBackend())
    assert [index for _, index, _, _ in sink.rows] == [index for index in range(COUNT) if index != 7]
    assert (stats.sources[0].failed, stats.sources[0].processed) == (1, COUNT - 1)
    assert balanced(stats)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_more_files_than_threads_are_each_searched_in_order(workers: int) -> None:
    detectors = {name: Careful(lambda: 0) for name in "abcde"}
    sink, stats = play(detectors, FakeBackend(), workers)
    for detector in detectors.values():
        assert detector.order == list(range(COUNT))
    names = {name for name, *_ in sink.rows}
    assert len(names) == len(detectors)
    for name in names:
        assert [index for one, index, _, _ in sink.rows if one == name] == list(range(COUNT))
    assert balanced(stats)
