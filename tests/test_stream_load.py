"""Load shedding before frames are lost."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from fakes import FakeBackend, face_at, join
from streams import LIVE, OneFace, Opener, Script, balanced, frame, frames, play

from leaf_rt.faces.revisit import REVISIT_PERIOD, RevisitScheduler
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.smoothing import SmoothOptions
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream import source_worker
from leaf_rt.stream.context import Clock
from leaf_rt.stream.load_shedding import HIGH_DEMAND, LOW_DEMAND, MAX_LEVEL, Counters, LoadControl
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Detections, Frame

FPS = 25


def levels(
    control: LoadControl, cost: Callable[[float, int], float], seconds: float, lost: float = 0.0, sources: int = 1
) -> list[int]:
    """The level after every frame of one of ``sources`` cameras; ``cost`` (s) depends on the time and on the level."""
    seen, busy = [], 0.0
    for count in range(1, int(seconds * FPS) + 1):
        busy += cost(count / FPS, control.level) * sources
        control.update(count / FPS, Counters(count, int(lost * count), count * sources, count * sources, busy))
        seen.append(control.level)
    return seen


def cheaper(cost: float) -> Callable[[float, int], float]:
    """Every level halves the cost of a frame."""
    return lambda t, level: cost / 2**level


def test_the_level_rises_before_a_frame_is_lost() -> None:
    seen = levels(LoadControl(), lambda t, level: min(0.010 + 0.005 * t, 0.060) / 2**level, 20.0)
    first = seen.index(1)
    assert 0.010 + 0.005 * first / FPS < 1.0 / FPS  # at this time no frame is lost yet
    assert max(seen) == 1  # 0.060 / 2 is enough
    assert seen[-1] == 1


def test_a_low_load_keeps_level_0_and_a_very_high_one_reaches_the_top_quickly() -> None:
    assert max(levels(LoadControl(), cheaper(0.8 * HIGH_DEMAND / FPS), 60.0)) == 0
    assert levels(LoadControl(), lambda t, level: 0.5, 3.0)[-1] == 3


def test_a_very_high_demand_raises_the_level_by_as_much_as_it_asks_for() -> None:
    for cost, first in ((0.04, 1), (0.14, 2), (0.3, 3)):
        seen = levels(LoadControl(), cheaper(cost), 3.0)
        assert next(level for level in seen if level > 0) == first


def test_a_cold_start_does_not_count_as_load() -> None:
    assert max(levels(LoadControl(), lambda t, level: 0.3 if t < 0.2 else 0.01, 20.0)) == 0


def test_the_demand_of_all_cameras_counts() -> None:
    assert max(levels(LoadControl(), cheaper(0.012), 10.0, sources=1)) == 0
    assert max(levels(LoadControl(), cheaper(0.012), 10.0, sources=4)) == 1


def test_lost_frames_raise_the_level_at_any_demand() -> None:
    assert max(levels(LoadControl(), cheaper(0.002), 5.0, lost=0.2)) == 3
    assert max(levels(LoadControl(), cheaper(0.002), 60.0, lost=0.02)) == 0


def test_the_level_falls_only_after_a_calm_time_that_grows() -> None:
    control = LoadControl(calm=5.0)
    heavy_until = 10.0
    seen = levels(control, lambda t, level: (0.060 if t < heavy_until else 0.002) / 2**level, 60.0)
    falls = [k / FPS for k in range(1, len(seen)) if seen[k] < seen[k - 1]]
    assert seen[int(heavy_until * FPS) - 1] == 1
    assert len(falls) == 1
    assert heavy_until + 5.0 <= falls[0] < heavy_until + 7.0
    again = levels(LoadControl(calm=5.0), cheaper(0.030), 600.0)
    assert again == [0] * len(again)


@pytest.mark.parametrize("cost", [0.02, 0.03, 0.034, 0.036, 0.04, 0.05, 0.07, 0.1, 0.15, 0.3])
def test_a_steady_load_does_not_swing(cost: float) -> None:
    """If a level halves the cost, a demand below LOW_DEMAND is not too high one level lower."""
    assert 2 * LOW_DEMAND < HIGH_DEMAND
    seen = levels(LoadControl(), cheaper(cost), 600.0)
    assert seen == sorted(seen)


def test_the_growing_calm_time_damps_a_swing() -> None:
    seen = levels(LoadControl(), lambda t, level: 0.04 / 4**level, 600.0)
    changes = [k / FPS for k, (a, b) in enumerate(pairwise(seen)) if a != b]
    assert 2 <= len(changes) <= 22
    assert sum(t > 300 for t in changes) <= 6


def test_a_load_long_after_the_last_one_is_treated_like_the_first() -> None:
    peaks = [10.0, 20.0, 400.0, 800.0]
    seen = levels(LoadControl(), lambda t, level: 0.06 if any(0 <= t - p < 0.6 for p in peaks) else 0.005, 1000.0)
    rises = [k / FPS for k, (a, b) in enumerate(pairwise(seen)) if b > a]
    falls = [k / FPS for k, (a, b) in enumerate(pairwise(seen)) if b < a]
    assert len(rises) == len(falls) >= 4
    assert falls[0] - rises[0] < 8
    assert falls[-1] - next(t for t in rises if t >= 800) < 20


def test_a_file_next_to_a_camera_has_one_frame_per_round() -> None:
    control = LoadControl()
    for count in range(1, 100):  # both cost 15 ms: 25 frames of the camera and 25 or more of the file fit
        control.update(count / FPS, Counters(count, 0, count, 2 * count, 2 * count * 0.015, files=1))
    assert control.level == 0
    assert control.demand == pytest.approx(0.75)
    for count in range(100, 200):
        control.update(count / FPS, Counters(count, 0, count, 2 * count, 2 * count * 0.025, files=1))
    assert control.level > 0


def test_counts_from_a_lost_connection_are_ignored() -> None:
    control = LoadControl()
    levels(control, cheaper(0.01), 5.0)
    control.restart()
    assert not control.update(60.0, Counters(126, 100, 126, 126, 60.0))
    assert not control.update(60.5, Counters(127, 110, 127, 127, 61.0))


class SkippingFace(OneFace):
    """Finds one face, and skips frames as ``VideoFaceDetector`` does."""

    search_every = 1

    def reduce_effort(self, level: int) -> float:
        self.search_every = 1 + level
        return float(self.search_every)


def test_each_level_halves_the_classifications_and_makes_the_detector_skip_more_frames() -> None:
    detector = SkippingFace()
    pipeline = Pipeline(detector, FaceTracker(), FakeBackend())
    seen = []
    for level in (0, 1, 2, 3, 0):
        pipeline.reduce_effort(level)
        options = pipeline.options
        seen.append((options.classify_fps, options.max_classify_fps, options.max_per_frame, detector.search_every))
    assert seen == [(10.0, 40, 16, 1), (5.0, 20, 32, 2), (2.5, 10, 48, 3), (1.5, 5, 64, 4), (10.0, 40, 16, 1)]


def test_the_detector_skips_no_frame_where_faces_are_hidden() -> None:
    detector = SkippingFace()
    pipeline = Pipeline(detector, FaceTracker(), FakeBackend(), options=PipelineOptions(may_skip=False))
    pipeline.reduce_effort(3)
    assert detector.search_every == 1
    assert (pipeline.options.classify_fps, pipeline.options.max_per_frame) == (1.5, 16)


class Crowd:
    """Finds a standing crowd in the same order as the real detector, without images."""

    def __init__(self, size: int) -> None:
        self.all = join(*(face_at(24.0 * (i % 13), 24.0 * (i // 13), 20.0) for i in range(size)))
        self._search_every = 1
        self.lag = 0.0
        self._watch = RevisitScheduler()

    def detect(self, frame: Frame) -> Detections:
        now, found = frame.timestamp, self.all
        if not len(self._watch):
            self._watch.add(found.xyxy, now)
        elif frame.index % self._search_every:
            found = Detections.empty()
        else:
            due = self._watch.next_faces(now, REVISIT_PERIOD * self._search_every)
            parts = [face_at(*known.box[:2], size=20.0) for known in due]
            found, _ = self._watch.update(due, parts, now)
        self.lag = self._watch.lag(now)
        return found

    def reduce_effort(self, level: int) -> float:
        self._search_every = 1 + level
        return float(self._search_every)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("faces", "most"), [(4, 0.16), (100, 1.0)])
def test_classifications_are_reduced_once_and_stay_frequent_enough_for_the_filter(faces: int, most: float) -> None:
    """``most``: largest allowed share of the classifications that is left at the highest level."""
    given = []
    for level in (0, 3):
        pipeline = Pipeline(Crowd(faces), FaceTracker(), FakeBackend())
        pipeline.reduce_effort(level)
        seen = [pipeline.step(frame(i)) for i in range(6 * FPS)][FPS:]
        times = [[e.timestamp for e in seen if e.classified[e.track_id == k].any()] for k in range(1, faces + 1)]
        gaps = [late - early for one in times for early, late in pairwise(one)]
        assert sum(gap > SmoothOptions().max_gap for gap in gaps) <= 0.05 * len(gaps)
        given.append(sum(len(one) for one in times) / 5)
        assert given[-1] >= 1.1 * faces
    assert given[1] <= most * given[0]


def test_the_face_detector_skips_more_frames_at_less_effort() -> None:
    with VideoFaceDetector(detect_every=2) as detector:
        assert [detector.reduce_effort(level) for level in (0, 1, 3)] == [1.0, 1.5, 2.5]


class SimulatedTime(StopSignal):
    """A camera and a loop with work, on a simulated clock, so that a busy machine does not change the result.

    All threads are real. Time passes only while the loop works, and when the loop checks for a stop and has nothing to
    do. Then the camera gives the frames that are due.
    """

    def __init__(self, frames: int, interval: float) -> None:
        super().__init__()
        self.now = 0.0
        self.newest = -1  # index of the newest finished frame
        self._interval, self._count = interval, frames
        self._given = 0
        self._tick: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._tick.put(None)  # the first frame does not wait
        self.script = Script(
            LIVE, [entry for i in range(frames) for entry in (self._gate, frame(i))] + [self._done.set]
        )

    def clock(self) -> float:
        return self.now

    def finished(self, one: Frame) -> None:
        self.newest = one.index

    def work(self, seconds: float) -> None:
        """Called by the loop: let time pass while it works."""
        end = self.now + seconds
        while self._due() <= end:
            self._give()
        self.now = end

    def is_set(self) -> bool:
        """Called by the loop after every round: if no frame waits, let time pass until the next one."""
        if self.newest == self._given - 1 and self._due() < math.inf:
            self._give()
        return super().is_set()

    def _due(self) -> float:
        return self._given * self._interval if 0 < self._given < self._count else math.inf

    def _give(self) -> None:
        self.now = self._due()
        self._done.clear()
        self._given += 1
        self._tick.put(None)
        assert self._done.wait(20)

    def _gate(self) -> None:
        """Called by the camera: the last frame was passed on; wait until the next one is due."""
        self._given = self._given or 1
        self._done.set()
        self._tick.get(timeout=20)


class SlowFace(OneFace):
    """Needs ``cost`` s for a frame, and no time for a frame that it skips."""

    def __init__(self, simulation: SimulatedTime, cost: Callable[[Frame], float]) -> None:
        super().__init__(lambda one: simulation.work(cost(one)))
        self._search_every = 1
        self._skipped = 0

    def reduce_effort(self, level: int) -> float:
        self._search_every = 1 + level
        return float(self._search_every)

    def detect(self, frame: Frame) -> Detections:
        self._skipped += 1
        if self._skipped < self._search_every:
            return Detections.empty()
        self._skipped = 0
        return super().detect(frame)


def rising_load(shed: bool, seconds: float = 20.0) -> tuple[RunStats, list[tuple[str, int]]]:
    """Run a camera at 40 ms per frame, whose frames need 10 ms of work at first and 60 ms at the end.

    Returns:
        The counters, and the text of each load event with the number of frames lost before it.
    """
    simulation = SimulatedTime(int(seconds * FPS), 1.0 / FPS)
    reports: list[tuple[str, int]] = []
    stats: list[RunStats] = []
    backend = FakeBackend()

    def cost(one: Frame) -> float:
        return min(0.01 + 0.05 * one.index / (0.75 * seconds * FPS), 0.06)

    def on_event(event: Event) -> None:
        if event.kind == "load":
            reports.append((event.text, stats[-1].sources[0].dropped))

    result = run(
        [Target("rtsp://host/a", SourceOptions(max_reconnects=0))],
        lambda info: Pipeline(SlowFace(simulation, cost), FaceTracker(), backend),
        backend,
        opener=Opener(a=[simulation.script]),
        hooks=Hooks(event=on_event, progress=stats.append, frame=lambda info, one, found: simulation.finished(one)),
        options=RunOptions(shed=shed),
        stop=simulation,
        clock=Clock(monotonic=simulation.clock),
    )
    return result, reports


def test_a_rising_load_raises_the_level_before_frames_are_lost() -> None:
    stats, reports = rising_load(shed=True)
    (source,) = stats.sources
    (first, lost_by_then), *_ = reports
    assert "of the available time: less work per frame, so that fewer frames are dropped (level 1)" in first
    assert lost_by_then == 0
    assert 1 <= source.level <= 2
    assert source.captured == 500
    assert source.dropped <= 2
    assert balanced(stats)


def test_the_same_load_without_shedding_loses_many_frames() -> None:
    stats, reports = rising_load(shed=False)
    assert stats.sources[0].captured == 500
    assert stats.sources[0].dropped > 50
    assert reports == []


def test_a_very_high_load_reaches_the_highest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_worker, "LoadControl", lambda: LoadControl(period=0.1, warm_up=0.1))
    entries: list[Any] = [entry for one in frames(150) for entry in (one, lambda: time.sleep(0.005))]
    act = {"act": lambda one: time.sleep(0.02)}
    demands: list[float] = []
    hooks = Hooks(progress=lambda stats: demands.append(stats.sources[0].demand))
    stats = play(Opener(a=[Script(LIVE, entries)]), "a", ask=SourceOptions(max_reconnects=0), hooks=hooks, **act)
    assert stats.sources[0].level == 3
    assert max(demands) > 1.0
    assert balanced(stats)


def test_a_source_that_joins_others_under_load_begins_with_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    controls: list[LoadControl] = []

    def make() -> LoadControl:
        controls.append(LoadControl(period=0.1, warm_up=0.1) if not controls else LoadControl(period=1e6))
        return controls[-1]

    monkeypatch.setattr(source_worker, "LoadControl", make)
    loaded = threading.Event()

    def work(one: Frame) -> None:
        time.sleep(0.02)
        if controls[0].level == MAX_LEVEL:
            loaded.set()

    entries: list[Any] = [entry for one in frames(400) for entry in (one, lambda: time.sleep(0.005))]
    opener = Opener(a=[Script(LIVE, entries)], b=[Script(replace(LIVE, name="b"), [loaded, *frames(3)])])
    stats = play(opener, "a", "b", ask=SourceOptions(max_reconnects=0), act=work)
    assert [source.level for source in stats.sources] == [MAX_LEVEL, MAX_LEVEL]
