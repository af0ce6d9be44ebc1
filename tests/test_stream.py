from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from clips import DEMO
from fakes import FakeBackend
from streams import INFO, LABELS, LIVE, Failing, FakeCapture, Keeping, Opener, Script, frame, pipelines

from leaf_rt.errors import BackendError, CodecError, ConnectionLost, NotFound, OutputError
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources import SourceInfo, SourceOptions, Target, open_source
from leaf_rt.sources.camera import CameraSource
from leaf_rt.stream import Event, Hooks, RunOptions, RunStats, StopSignal, feed, lane, link, load, run
from leaf_rt.types import Frame, Prediction

QUICK = RunOptions(drain_timeout=5.0)


class Calm(random.Random):
    """Dice that always show the middle: no jitter."""

    def random(self) -> float:
        return 0.5


def frames(count: int, start: int = 0, **fields: Any) -> list[Frame]:
    return [frame(i, **fields) for i in range(start, start + count)]


def slow_frames(count: int, gap: float = 0.01, start: int = 0) -> list[Frame | Callable[[], None]]:
    """Frames that a pipeline can keep up with."""
    return [entry for one in frames(count, start) for entry in (one, lambda: time.sleep(gap))]


def watched_frames(count: int, sink: Keeping, name: str = "cam") -> list[Frame | Callable[[], None]]:
    """Frames of a live source, the next one no sooner than the last one has come through: none is dropped."""
    before: list[int] = []

    def rows() -> int:
        return sum(row[0] == name for row in list(sink.rows))

    def seen() -> None:
        deadline = time.monotonic() + 5
        while rows() <= before[-1] and time.monotonic() < deadline:
            time.sleep(0.002)

    return [entry for one in frames(count) for entry in (lambda: before.append(rows()), one, seen)]


def play(opener: Any, *names: str, ask: SourceOptions | None = None, **arguments: Any) -> RunStats:
    targets = [Target(f"rtsp://u:p@host/{name}", ask or SourceOptions()) for name in names]
    backend = arguments.pop("backend", None) or FakeBackend()
    act = arguments.pop("act", None)
    arguments.setdefault("options", QUICK)
    return run(targets, pipelines(backend, act), backend, opener=opener, rng=Calm(), **arguments)


def balanced(stats: RunStats) -> bool:
    return all(s.captured == s.processed + s.dropped + s.failed for s in stats.sources)


def capture_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("capture", "writer", "faces", "open"))]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterable[None]:
    yield
    deadline = time.monotonic() + 5
    while capture_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capture_threads() == []


# Files


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
    assert max(read_ahead) <= 8 + 8 + 3  # both queues, and what is in hand


def test_two_files_go_side_by_side_each_in_its_order() -> None:
    sink = Keeping()
    other = [frame(i, source="b") for i in range(40)]
    stats = play(Opener(a=[Script(INFO, frames(70))], b=[Script(INFO, other)]), "a", "b", shared=[sink])
    assert [s.info.name for s in stats.sources] == ["clip.mp4", "clip.mp4 #2"]
    for name, count in (("clip.mp4", 70), ("clip.mp4 #2", 40)):
        assert [row[1] for row in sink.rows if row[0] == name] == list(range(count))
    first = [row[0] for row in sink.rows[:40]]
    assert 12 <= first.count("clip.mp4") <= 28  # neither goes before the other


def test_faces_of_all_ready_frames_go_into_one_call() -> None:
    backend = FakeBackend()
    opener = Opener(a=[Script(INFO, frames(20))], b=[Script(INFO, frames(20))])
    play(opener, "a", "b", backend=backend, options=RunOptions(batch_wait=0.5))
    assert max(backend.batches) == 2
    assert sum(backend.batches) == 2 * 8  # 0.8 s at 10 answers per second, for each


def test_a_file_that_breaks_in_the_middle_keeps_what_came_before() -> None:
    sink, events = Keeping(), []
    opener = Opener(a=[Script(INFO, [*frames(10), CodecError("clip.mp4: broken")])])
    stats = play(opener, "a", shared=[sink], hooks=Hooks(event=events.append))
    assert len(sink.rows) == 10
    assert [str(e) for e in stats.failures] == ["clip.mp4: broken"]
    assert [(e.level, e.kind, e.text) for e in events] == [("error", "failed", "broken")]


def test_a_warning_of_a_source_is_told(tmp_path: Path) -> None:
    script = Script(INFO, frames(3))
    script.entries = [*frames(3), lambda: script.warnings.append("clip.mp4: was cut off")]
    events: list[Event] = []
    play(Opener(a=[script]), "a", hooks=Hooks(event=events.append))
    assert [(e.level, e.text) for e in events] == [("warning", "was cut off")]


def test_a_fault_of_the_program_in_a_capture_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        play(Opener(a=[Script(INFO, [ZeroDivisionError("a fault")])]), "a")


def test_a_first_open_that_fails_is_raised_and_all_is_closed() -> None:
    good, sink = Script(INFO, frames(3)), Keeping()
    with pytest.raises(NotFound):
        play(Opener(a=[good], b=[NotFound("b: no such file")]), "a", "b", shared=[sink])
    assert good.closed.is_set()
    assert (sink.rows, sink.closed) == ([], 1)


def test_a_real_clip_at_its_own_speed(tmp_path: Path) -> None:
    targets = [Target(str(DEMO), SourceOptions(realtime=True, start=1.0, end=2.0))]
    backend, sink = FakeBackend(), Keeping()
    stats = run(targets, pipelines(backend), backend, shared=[sink])
    assert 0.9 < stats.seconds < 2.0
    assert stats.sources[0].info.is_live
    assert balanced(stats)
    assert len(sink.rows) + stats.sources[0].dropped == 24


# Live sources


def quick_backoff(monkeypatch: pytest.MonkeyPatch, first: float = 0.02) -> None:
    monkeypatch.setattr(feed, "Backoff", lambda rng, attempts=None: link.Backoff(rng, first, 0.1, attempts=attempts))


def test_a_live_source_gives_the_newest_frame_and_counts_the_others() -> None:
    started, done = threading.Event(), threading.Event()

    def hold(one: Frame) -> None:
        started.set()
        assert done.wait(10)

    script = Script(LIVE, [frame(0), started, *frames(9, start=1), done.set])
    stop, sink = StopSignal(), Keeping()
    opener = Opener(a=[script, *[ConnectionLost("x")] * 9])
    options = SourceOptions(max_reconnects=0)
    stats = play(opener, "a", ask=options, shared=[sink], act=hold, stop=stop)
    assert [row[1] for row in sink.rows] == [0, 9]
    assert (stats.sources[0].captured, stats.sources[0].dropped) == (10, 8)
    assert balanced(stats)


def test_a_lost_source_comes_back_and_the_other_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_backoff(monkeypatch)
    sink, events = Keeping(), []
    opener = Opener(
        a=[
            Script(LIVE, watched_frames(5, sink)),
            ConnectionLost("cam: refused"),
            Script(LIVE, watched_frames(5, sink)),
            *[NotFound("x")] * 3,
        ],
        b=[Script(INFO, slow_frames(30))],
    )
    backend = FakeBackend()
    resets: dict[str, int] = {}
    inner = pipelines(backend)

    def make(info: SourceInfo) -> Any:
        pipeline = inner(info)
        reset = pipeline.reset
        resets[info.name] = 0

        def counted() -> None:
            resets[info.name] += 1
            reset()

        pipeline.reset = counted  # type: ignore[method-assign]
        return pipeline

    targets = [Target("rtsp://u:p@host/a", SourceOptions(max_reconnects=2)), Target("b")]
    stats = run(targets, make, backend, shared=[sink], opener=opener, rng=Calm(), hooks=Hooks(event=events.append))
    cam = [row for row in sink.rows if row[0] == "cam"]
    assert [row[2] for row in cam] == [0] * 5 + [1] * 5
    assert [row[1] for row in cam] == list(range(10))
    assert all(later[3] > earlier[3] for earlier, later in pairwise(cam))
    assert [row[1] for row in sink.rows if row[0] == "clip.mp4"] == list(range(30))
    assert resets == {"cam": 1, "clip.mp4": 0}
    assert (stats.sources[0].reconnects, stats.sources[0].generation) == (1, 1)
    assert [e.kind for e in events if e.source == "cam"][:3] == ["lost", "lost", "reconnected"]
    assert balanced(stats)


def test_a_source_that_falls_silent_is_given_up_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_backoff(monkeypatch)
    gate = threading.Event()
    sink, events = Keeping(), []
    hung = Script(LIVE, [*watched_frames(3, sink), gate, *frames(3, start=50)])
    back = Script(LIVE, [*watched_frames(4, sink), gate.set, lambda: time.sleep(0.1)])
    options = SourceOptions(stall_timeout=0.5, max_reconnects=1)
    begin = time.monotonic()
    stats = play(
        Opener(a=[hung, back, NotFound("gone")]), "a", ask=options, shared=[sink], hooks=Hooks(event=events.append)
    )
    assert time.monotonic() - begin < 5.0
    assert [row[1] for row in sink.rows] == list(range(7))  # nothing of what the hung capture gave later
    assert stats.sources[0].stalls == 1
    assert "sent no frame for 0.5 s" in events[0].text
    assert hung.closed.wait(5)
    assert balanced(stats)


def test_a_live_source_that_falls_behind_costs_less_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LoadControl", lambda: load.LoadControl(period=0.1))
    events: list[Event] = []
    script = Script(LIVE, slow_frames(150, 0.005))
    ask = SourceOptions(max_reconnects=0)
    hooks = Hooks(event=events.append)
    stats = play(Opener(a=[script]), "a", ask=ask, act=lambda one: time.sleep(0.02), hooks=hooks)
    assert stats.sources[0].level == 3
    assert next(e.text for e in events if e.kind == "load") == "falls behind: each frame gets less work (level 1)"
    assert balanced(stats)


def test_a_jump_of_the_clock_is_counted_and_taken_out() -> None:
    script = Script(
        LIVE, [e for i in range(8) for e in (frame(i, i / 25 + (999 if i > 3 else 0)), lambda: time.sleep(0.02))]
    )
    sink = Keeping()
    stats = play(Opener(a=[script]), "a", ask=SourceOptions(max_reconnects=0), shared=[sink])
    assert stats.sources[0].jumps == 1
    assert sink.rows[-1][3] < 1.0


def test_a_camera_that_is_unplugged_and_plugged_in_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick_backoff(monkeypatch)
    plug, sink, events = tmp_path / "video0", Keeping(), []
    plug.touch()
    captures = [FakeCapture(pictures=6), FakeCapture(pictures=6)]

    def opener(target: str, options: SourceOptions) -> CameraSource:
        return CameraSource(target, options, lambda number: captures.pop(0), devices=tmp_path)

    def on_event(event: Event) -> None:
        events.append(event)
        if len(captures) == 1 and len(events) == 1:
            plug.unlink()
        elif len(events) == 2:
            plug.touch()
        elif not captures:
            plug.unlink(missing_ok=True)

    hooks = Hooks(event=on_event)
    options = SourceOptions(max_reconnects=6)
    backend = FakeBackend()
    stats = run([Target("0", options)], pipelines(backend), backend, shared=[sink], opener=opener, hooks=hooks)
    assert {row[2] for row in sink.rows} == {0, 1}
    assert stats.sources[0].reconnects == 1
    texts = " ".join(event.text for event in events)
    assert "plugged in" in texts
    assert "does not exist" in texts
    assert balanced(stats)


def test_waiting_for_a_camera_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_backoff(monkeypatch)
    opened: list[SourceInfo] = []
    attempts = [ConnectionLost("cam: refused")] * 3
    options, sink = SourceOptions(wait=True, max_reconnects=3), Keeping()
    opener = Opener(a=[*attempts, Script(LIVE, watched_frames(4, sink, "host/a")), *attempts])
    stats = play(opener, "a", ask=options, shared=[sink], hooks=Hooks(opened=opened.append))
    assert len(sink.rows) == 4
    assert [i.name for i in opened] == ["host/a"]
    assert {row[2] for row in sink.rows} == {0}
    assert stats.sources[0].reconnects == 0


def test_no_password_in_any_event_record_or_message(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    quick_backoff(monkeypatch)
    caplog.set_level("DEBUG")
    events: list[Event] = []
    with pytest.raises(ConnectionLost) as caught:
        run(
            [Target("rtsp://user:hunter2@127.0.0.1:1/x?password=hunter2", SourceOptions(wait=True, max_reconnects=1))],
            pipelines(FakeBackend()),
            FakeBackend(),
            hooks=Hooks(event=events.append),
        )
    said = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(events)
    assert "127.0.0.1" in said
    assert "hunter2" not in said
    assert "user" not in said.replace("the user or", "")


# Ending


def test_stop_leaves_a_balanced_count_and_closed_sinks() -> None:
    stop, sink = StopSignal(), Keeping()
    hooks = Hooks(frame=lambda info, f, e: stop.set() if f.index == 20 else None)
    stats = play(Opener(a=[Script(INFO, frames(500))]), "a", shared=[sink], hooks=hooks, stop=stop)
    assert stats.interrupted
    assert sink.closed == 1
    assert 21 <= len(sink.rows) <= 21 + 8
    assert balanced(stats)
    assert [row[1] for row in sink.rows] == list(range(len(sink.rows)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_good_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    sink = Keeping()
    hooks = Hooks(frame=lambda info, f, e: signal.raise_signal(number) if f.index == 5 else None)
    stats = play(Opener(a=[Script(INFO, frames(500))]), "a", shared=[sink], hooks=hooks)
    assert stats.interrupted
    assert sink.closed == 1
    assert balanced(stats)
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once() -> None:
    gate = threading.Event()
    sink = Failing(lambda n: gate.wait(20) and None)
    hooks = Hooks(frame=lambda info, f, e: [signal.raise_signal(signal.SIGINT) for _ in range(2)][:0])
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        play(Opener(a=[Script(INFO, frames(500))]), "a", shared=[sink], hooks=hooks)
    assert time.monotonic() - begin < 2.0
    gate.set()


def test_a_run_ends_after_its_duration() -> None:
    stats = play(Opener(a=[Script(LIVE, slow_frames(3000))]), "a", options=RunOptions(duration=0.3))
    assert 0.25 < stats.seconds < 1.5
    assert not stats.interrupted
    assert balanced(stats)


# Faults


def test_a_bad_frame_is_counted_reported_and_left_out() -> None:
    def act(one: Frame) -> None:
        if one.index == 5:
            raise RuntimeError("the detector stumbled")

    sink, events = Keeping(), []
    stats = play(Opener(a=[Script(INFO, frames(20))]), "a", act=act, shared=[sink], hooks=Hooks(event=events.append))
    assert [row[1] for row in sink.rows] == [i for i in range(20) if i != 5]
    assert stats.sources[0].failed == 1
    assert balanced(stats)
    assert "stumbled" in events[0].text


def test_a_source_whose_every_frame_fails_is_given_up_and_the_other_goes_on() -> None:
    def act(one: Frame) -> None:
        if one.source == "clip.mp4":
            raise RuntimeError("never")

    opener = Opener(a=[Script(INFO, frames(100))], b=[Script(INFO, frames(100))])
    stats = play(opener, "a", "b", act=act)
    assert stats.sources[0].failed == 30
    assert stats.sources[1].processed == 100
    assert [str(e) for e in stats.failures] == ["never"]
    assert balanced(stats)


class Stumbling(FakeBackend):
    """Fails on the calls of these numbers."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.calls, self.fails = 0, calls

    def infer(self, faces: Any) -> Prediction:
        self.calls += 1
        if self.calls in self.fails:
            raise BackendError("the engine stumbled")
        return super().infer(faces)


def test_an_engine_that_fails_once_is_asked_again() -> None:
    sink, events = Keeping(), []
    stats = play(
        Opener(a=[Script(INFO, frames(20))]), "a", backend=Stumbling(4), shared=[sink], hooks=Hooks(event=events.append)
    )
    assert len(sink.rows) == 20
    assert stats.inference_errors == 1
    assert [(e.level, e.kind) for e in events] == [("warning", "inference")]


def test_an_engine_that_fails_twice_ends_the_run_and_every_file_is_closed() -> None:
    sink = Keeping()
    with pytest.raises(BackendError, match="stumbled"):
        play(Opener(a=[Script(INFO, frames(20))]), "a", backend=Stumbling(4, 5), shared=[sink])
    assert sink.closed == 1
    assert [row[1] for row in sink.rows] == [0, 1, 2]


def test_one_failing_sink_is_switched_off_and_the_others_go_on() -> None:
    def full(n: int) -> None:
        if n == 3:
            raise OutputError("failing: no room left")

    bad, good, events = Failing(full), Keeping(), []
    stats = play(Opener(a=[Script(INFO, frames(50))]), "a", shared=[bad, good], hooks=Hooks(event=events.append))
    assert (len(bad.rows), len(good.rows), bad.closed) == (3, 50, 1)
    assert [str(e) for e in stats.failures] == ["failing: no room left"]
    assert [(e.level, e.source, e.text) for e in events] == [("error", "failing", "no room left")]


def test_when_no_sink_is_left_the_run_stops_and_says_why() -> None:
    def full(n: int) -> None:
        raise OutputError("failing: no room left")

    script = Script(INFO, slow_frames(3000, 0.001))
    with pytest.raises(OutputError, match="no room left"):
        play(Opener(a=[script]), "a", shared=[Failing(full)])


def test_a_sink_that_stumbles_leaves_out_a_frame_one_that_lies_down_is_switched_off() -> None:
    def stumble(n: int) -> None:
        if n == 3:
            raise ValueError("one bad face")

    def lie_down(n: int) -> None:
        if n > 3:
            raise ValueError("all bad")

    first, second = Failing(stumble, "first"), Failing(lie_down, "second")
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


def test_a_sink_that_never_comes_back_is_given_up_at_the_end() -> None:
    gate = threading.Event()
    sinks = [Failing(lambda n: gate.wait(20) and None), Keeping()]
    script, patience = Script(LIVE, slow_frames(5)), RunOptions(drain_timeout=0.2)
    stats = play(Opener(a=[script]), "a", ask=SourceOptions(max_reconnects=0), shared=sinks, options=patience)
    gate.set()
    assert "did not finish within" in str(stats.failures[-1])


# All of it


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
    assert sum(backend.batches) == pytest.approx(30, abs=1)  # 10 answers per second


def test_the_terminal_belongs_to_the_caller() -> None:
    """Without any set-up of logging, warnings of a run must not appear on standard error by themselves."""
    code = (
        "import sys; sys.path[:0] = ['tests']\n"
        "from streams import *\n"
        "from leaf_rt.sources import Target\n"
        "from leaf_rt.stream import run\n"
        "script = Script(INFO, [frame(0)])\n"
        "script.warnings = ['clip.mp4: was cut off']\n"
        "run([Target('a')], pipelines(FakeBackend()), FakeBackend(), opener=Opener(a=[script]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO.parents[1], capture_output=True, timeout=60, check=True
    )
    assert done.stderr == b""
