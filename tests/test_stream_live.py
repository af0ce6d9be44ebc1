"""Runs over live sources: the newest frame, losses, stalls, jumps, cameras."""

from __future__ import annotations

import threading
import time
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeBackend
from streams import (
    INFO,
    LIVE,
    Calm,
    FakeCapture,
    Keeping,
    Opener,
    Script,
    balanced,
    frame,
    frames,
    pipelines,
    play,
    slow_frames,
    watched_frames,
)

from leaf_rt.errors import ConnectionLost, NotFound
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.camera import CameraSource
from leaf_rt.stream import connection, reconnect
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Frame, SourceInfo

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def quick_backoff(monkeypatch: pytest.MonkeyPatch, first: float = 0.02) -> None:
    monkeypatch.setattr(
        connection, "Backoff", lambda rng, attempts=None: reconnect.Backoff(rng, first, 0.1, attempts=attempts)
    )


def test_a_live_source_gives_the_newest_frame_and_counts_dropped_ones() -> None:
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


def test_a_lost_source_reconnects_and_the_other_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
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
        reset = pipeline.tracker.reset
        resets[info.name] = 0

        def counted() -> None:
            resets[info.name] += 1
            reset()

        pipeline.tracker.reset = counted  # type: ignore[method-assign]
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


def test_a_source_that_stalls_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [row[1] for row in sink.rows] == list(range(7))  # no later frame of the abandoned capture
    assert stats.sources[0].stalls == 1
    assert "sent no frame for 0.5 s" in events[0].text
    assert hung.closed.wait(5)
    assert balanced(stats)


def test_a_jump_of_the_clock_is_counted_and_removed() -> None:
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
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(events)
    assert "127.0.0.1" in shown
    assert "hunter2" not in shown
    assert "user" not in shown.replace("the user or", "")
