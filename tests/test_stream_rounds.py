"""One call of the back end for the frames of several sources."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from fakes import FakeBackend
from streams import INFO, LIVE, Keeping, OneFace, Opener, Script, balanced, frames, play

from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.types import SourceInfo


def test_faces_of_all_ready_frames_go_into_one_call() -> None:
    backend = FakeBackend()
    opener = Opener(a=[Script(INFO, frames(20))], b=[Script(INFO, frames(20))])
    play(opener, "a", "b", backend=backend, act=lambda one: time.sleep(0.002))  # frames come while the loop is busy
    assert max(backend.batches) == 2
    assert sum(backend.batches) == 2 * 8  # 0.8 s at 10 classifications per second, for each source


def test_a_round_takes_only_as_many_frames_as_fit_into_its_time() -> None:
    """Otherwise each frame would wait for those of all sources, here 0.3 s."""
    backend, sink = FakeBackend(), Keeping()
    opener = Opener(**{name: [Script(replace(INFO, name=name), frames(6, source=name))] for name in "abcdefgh"})

    def pipeline(info: SourceInfo) -> Pipeline:
        slow = OneFace(lambda one: time.sleep(0.04))
        return Pipeline(slow, FaceTracker(), backend, options=PipelineOptions(classify_fps=0.0))

    targets = [Target(f"rtsp://host/{name}") for name in "abcdefgh"]
    stats = run(targets, pipeline, backend, shared=[sink], opener=opener, options=RunOptions(workers=1))
    assert [source.processed for source in stats.sources] == [6] * 8
    assert max(backend.batches) <= 2
    assert len({row[0] for row in sink.rows[:24]}) == 8  # all have their turn


def test_a_silent_source_does_not_delay_the_others() -> None:
    over = threading.Event()
    both: list[Any] = [entry for one in frames(10, source="b") for entry in (one, lambda: time.sleep(0.02))]
    alone: list[Any] = [entry for one in frames(60, source="a") for entry in (one, lambda: time.sleep(0.02))]
    opener = Opener(
        a=[Script(replace(LIVE, name="a", fps=50.0), [*alone, over.set])],
        b=[Script(replace(LIVE, name="b", fps=50.0), [*both, over])],
    )
    sink, backend = Keeping(), FakeBackend()
    targets = [Target(f"rtsp://host/{name}", SourceOptions(max_reconnects=0)) for name in ("a", "b")]

    def pipeline(info: SourceInfo) -> Pipeline:
        return Pipeline(OneFace(), FaceTracker(), backend, options=PipelineOptions(classify_fps=0.0))

    stats = run(targets, pipeline, backend, shared=[sink], opener=opener)
    assert balanced(stats)
    assert sum(row[0] == "a" for row in sink.rows) >= 30
    assert sorted(sink.latencies)[len(sink.latencies) // 2] < 0.1
