"""Failures during a run: frames, back ends, sinks."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import FakeBackend
from streams import (
    INFO,
    LIVE,
    Failing,
    Keeping,
    Opener,
    Script,
    balanced,
    frame,
    frames,
    play,
    slow_frames,
)

from leaf_rt.errors import BackendError, OutputError
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import SourceOptions
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.types import Frame, Prediction, SourceInfo

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def test_a_bad_frame_is_counted_reported_and_skipped() -> None:
    def act(one: Frame) -> None:
        if one.index == 5:
            raise RuntimeError("the detector failed")

    sink, events = Keeping(), []
    stats = play(Opener(a=[Script(INFO, frames(20))]), "a", act=act, shared=[sink], hooks=Hooks(event=events.append))
    assert [row[1] for row in sink.rows] == [i for i in range(20) if i != 5]
    assert stats.sources[0].failed == 1
    assert balanced(stats)
    assert "the detector failed" in events[0].text


def test_a_source_ends_if_every_frame_fails_and_the_other_continues() -> None:
    def act(one: Frame) -> None:
        if one.source == "clip.mp4":
            raise RuntimeError("never")

    opener = Opener(a=[Script(INFO, frames(100))], b=[Script(INFO, frames(100))])
    stats = play(opener, "a", "b", act=act)
    assert stats.sources[0].failed == 30
    assert stats.sources[1].processed == 100
    assert [str(e) for e in stats.failures] == ["never"]
    assert balanced(stats)


class FlakyBackend(FakeBackend):
    """Fails on the calls with these numbers."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.calls, self.fails = 0, calls

    def infer(self, faces: Any) -> Prediction:
        self.calls += 1
        if self.calls in self.fails:
            raise BackendError("the engine failed")
        return super().infer(faces)


def test_a_failed_inference_is_repeated_once() -> None:
    sink, events = Keeping(), []
    stats = play(
        Opener(a=[Script(INFO, frames(20))]),
        "a",
        backend=FlakyBackend(4),
        shared=[sink],
        hooks=Hooks(event=events.append),
    )
    assert len(sink.rows) == 20
    assert stats.inference_errors == 1
    assert [(e.level, e.kind) for e in events] == [("warning", "inference")]


def test_a_second_failed_inference_ends_the_run_and_closes_every_file() -> None:
    sink = Keeping()
    with pytest.raises(BackendError, match="the engine failed"):
        play(Opener(a=[Script(INFO, frames(20))]), "a", backend=FlakyBackend(4, 5), shared=[sink])
    assert sink.closed == 1
    assert [row[1] for row in sink.rows] == [0, 1, 2]


def test_a_failing_sink_is_switched_off_and_the_others_continue() -> None:
    def full(n: int) -> None:
        if n == 3:
            raise OutputError("failing: no space left")

    bad, good, events = Failing(full), Keeping(), []
    stats = play(Opener(a=[Script(INFO, frames(50))]), "a", shared=[bad, good], hooks=Hooks(event=events.append))
    assert (len(bad.rows), len(good.rows), bad.closed) == (3, 50, 1)
    assert [str(e) for e in stats.failures] == ["failing: no space left"]
    assert [(e.level, e.source, e.text) for e in events] == [("error", "failing", "no space left")]
    assert events[0].error is stats.failures[0]


def test_the_run_ends_with_the_error_of_the_last_sink() -> None:
    def full(n: int) -> None:
        raise OutputError("failing: no space left")

    script = Script(INFO, slow_frames(3000, 0.001))
    with pytest.raises(OutputError, match="no space left"):
        play(Opener(a=[script]), "a", shared=[Failing(full)])


def test_a_sink_skips_one_bad_frame_and_is_switched_off_after_ten() -> None:
    def fail_once(n: int) -> None:
        if n == 3:
            raise ValueError("one bad face")

    def fail_always(n: int) -> None:
        if n > 3:
            raise ValueError("all bad")

    first, second = Failing(fail_once, "first"), Failing(fail_always, "second")
    stats = play(Opener(a=[Script(INFO, frames(50))]), "a", shared=[first, second])
    assert (len(first.rows), len(second.rows)) == (49, 4)
    assert [s.failed for s in stats.sinks] == [1, 10]
    assert [type(e) for e in stats.failures] == [OutputError]


def test_a_sink_that_blocks_does_not_slow_a_live_source() -> None:
    gate = threading.Event()
    blocked = Failing(lambda n: gate.wait(20) and None)
    blocked.wants_image = True
    free = Keeping()
    script = Script(LIVE, [*slow_frames(60, 0.005), gate.set])
    stats = play(Opener(a=[script]), "a", ask=SourceOptions(max_reconnects=0), shared=[blocked, free])
    assert len(free.rows) == stats.sources[0].processed >= 50
    assert stats.sinks[0].dropped >= 40
    assert balanced(stats)


@pytest.mark.parametrize("own_sink", [True, False])
def test_a_sink_that_blocks_a_file_does_not_slow_a_live_source(own_sink: bool) -> None:
    gate = threading.Event()
    kept = Keeping()
    blocked = Failing(lambda n: gate.wait(20) and None)
    blocked.wants_image = True

    def sinks(info: SourceInfo) -> Sequence[Sink]:
        return [kept] if info.is_live else [blocked] if own_sink else []

    live, file = Script(LIVE, [*slow_frames(60), gate.set]), Script(INFO, frames(60))
    opener, options = Opener(a=[live], b=[file]), SourceOptions(max_reconnects=0)
    stats = play(opener, "a", "b", ask=options, sinks=sinks, shared=[] if own_sink else [blocked])
    assert len(kept.rows) == stats.sources[0].processed >= 50
    assert stats.sources[1].processed == 60
    assert [row[1] for row in blocked.rows if row[0] == "clip.mp4"] == list(range(60))
    assert balanced(stats)


def test_a_file_next_to_a_live_source_is_as_fast_as_its_sink() -> None:
    gate = threading.Event()
    slow = Failing(lambda n: gate.set() if n == 39 else time.sleep(0.01))
    slow.wants_image = True
    opener = Opener(a=[Script(LIVE, [frame(0), gate])], b=[Script(INFO, frames(40))])
    begin = time.monotonic()
    stats = play(
        opener, "a", "b", ask=SourceOptions(max_reconnects=0), options=RunOptions(queue=1),
        sinks=lambda info: [] if info.is_live else [slow],
    )  # fmt: skip
    assert stats.sources[1].processed == len(slow.rows) == 40
    assert time.monotonic() - begin < 5.0  # it would be 10 s if the loop only polled for space


def test_a_sink_that_hangs_is_abandoned_at_the_end() -> None:
    gate = threading.Event()
    sinks = [Failing(lambda n: gate.wait(20) and None), Keeping()]
    script, options = Script(LIVE, slow_frames(5)), RunOptions(drain_timeout=0.2)
    stats = play(Opener(a=[script]), "a", ask=SourceOptions(max_reconnects=0), shared=sinks, options=options)
    gate.set()
    assert "did not finish within" in str(stats.failures[-1])
