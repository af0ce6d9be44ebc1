"""Runs over files: every frame, in order, through all threads."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest
from clips import DEMO
from fakes import FakeBackend
from streams import (
    INFO,
    LABELS,
    Failing,
    Keeping,
    Opener,
    Script,
    balanced,
    frame,
    frames,
    pipelines,
    play,
)

from leaf_rt.errors import CodecError, NotFound
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, EventKind
from leaf_rt.types import SourceInfo

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def test_every_frame_of_a_file_comes_through_in_order() -> None:
    sink = Keeping()
    opener = Opener(a=[Script(INFO, frames(100))])
    stats = play(opener, "a", shared=[sink])
    assert [row[1] for row in sink.rows] == list(range(100))
    assert (stats.sources[0].captured, stats.sources[0].processed, stats.sources[0].dropped) == (100, 100, 0)
    assert (stats.sources[0].state, stats.interrupted, stats.failures) == ("ended", False, [])
    assert sink.closed == 1
    assert stats.fps == pytest.approx(100 / stats.seconds, rel=0.01)
    assert stats.stages["detect"].count == 100


def test_a_slow_sink_makes_a_file_wait_and_loses_nothing() -> None:
    sink = Failing(lambda n: time.sleep(0.005))
    sink.wants_image = True
    read_ahead = []
    script = Script(INFO, [e for f in frames(60) for e in (lambda f=f: read_ahead.append(f.index - len(sink.rows)), f)])
    stats = play(Opener(a=[script]), "a", shared=[sink])
    assert len(sink.rows) == stats.sources[0].processed == 60
    assert max(read_ahead) <= 8 + 8 + 3  # both queues, and the frames in work


def test_two_files_run_at_the_same_time_each_in_order() -> None:
    sink = Keeping()
    other = [frame(i, source="b") for i in range(40)]
    stats = play(Opener(a=[Script(INFO, frames(70))], b=[Script(INFO, other)]), "a", "b", shared=[sink])
    assert [s.info.name for s in stats.sources] == ["clip.mp4", "clip.mp4 #2"]
    for name, count in (("clip.mp4", 70), ("clip.mp4 #2", 40)):
        assert [row[1] for row in sink.rows if row[0] == name] == list(range(count))
    first = [row[0] for row in sink.rows[:40]]
    assert 12 <= first.count("clip.mp4") <= 28  # neither file runs ahead


def test_an_error_in_the_middle_of_a_file_keeps_the_frames_before_it() -> None:
    sink, events = Keeping(), []
    opener = Opener(a=[Script(INFO, [*frames(10), CodecError("clip.mp4: broken")])])
    stats = play(opener, "a", shared=[sink], hooks=Hooks(event=events.append))
    assert len(sink.rows) == 10
    assert [str(e) for e in stats.failures] == ["clip.mp4: broken"]
    assert [(e.level, e.kind, e.text) for e in events] == [("error", EventKind.FAILED, "broken")]
    assert events[0].error is stats.failures[0]


def test_a_warning_of_a_source_is_reported(tmp_path: Path) -> None:
    script = Script(INFO, frames(3))
    script.entries = [*frames(3), lambda: script.warnings.append("clip.mp4: was cut off")]
    events: list[Event] = []
    play(Opener(a=[script]), "a", hooks=Hooks(event=events.append))
    assert [(e.level, e.text) for e in events] == [("warning", "was cut off")]


def test_a_bug_in_a_capture_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        play(Opener(a=[Script(INFO, [ZeroDivisionError("a fault")])]), "a")


def test_a_failed_first_open_is_raised_and_everything_is_closed() -> None:
    good, sink = Script(INFO, frames(3)), Keeping()
    with pytest.raises(NotFound):
        play(Opener(a=[good], b=[NotFound("b: no such file")]), "a", "b", shared=[sink])
    assert good.closed.is_set()
    assert (sink.rows, sink.closed) == ([], 1)


def test_a_real_clip_in_real_time(tmp_path: Path) -> None:
    targets = [Target(str(DEMO), SourceOptions(realtime=True, start=1.0, end=2.0))]
    backend, sink = FakeBackend(), Keeping()
    stats = run(targets, pipelines(backend), backend, shared=[sink])
    assert 0.9 < stats.seconds < 2.0
    assert stats.sources[0].info.is_live
    assert balanced(stats)
    assert len(sink.rows) + stats.sources[0].dropped == 24


def test_a_real_clip_through_real_parts(tmp_path: Path) -> None:
    """Capture, pipeline, records and video with sound; every frame is in both."""
    backend = FakeBackend()

    def sinks(info: SourceInfo) -> list[Any]:
        return [VideoSink(tmp_path / "v.mp4", LABELS, lambda image, e, labels: image)]

    calls: list[int] = []
    stats = run(
        [Target(str(DEMO), SourceOptions(end=3.0))],
        pipelines(backend),
        backend,
        sinks,
        [JsonlSink(tmp_path / "r.jsonl", LABELS)],
        Hooks(progress=lambda s: calls.append(s.processed)),
    )
    assert stats.sources[0].processed == 72
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 72
    with av.open(str(tmp_path / "v.mp4")) as container, open_source(str(DEMO), SourceOptions(end=3.0)) as original:
        shown = [float(f.pts * f.time_base) for f in container.decode(video=0)]
        assert shown == pytest.approx([f.timestamp for f in original], abs=1e-3)
        assert container.streams.audio
    assert calls[-1] == 72
    assert len(backend.batches) == 72
    assert sum(backend.batches) == pytest.approx(30, abs=1)  # 10 classifications per second


def test_a_run_prints_nothing() -> None:
    """Warnings must not appear on standard error unless the caller configures logging."""
    code = (
        "import sys; sys.path[:0] = ['tests']\n"
        "from streams import *\n"
        "from leaf_rt.sources.base import Target\n"
        "from leaf_rt.stream.runner import run\n"
        "script = Script(INFO, [frame(0)])\n"
        "script.warnings = ['clip.mp4: was cut off']\n"
        "run([Target('a')], pipelines(FakeBackend()), FakeBackend(), opener=Opener(a=[script]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO.parents[1], capture_output=True, timeout=60, check=True
    )
    assert done.stderr == b""
