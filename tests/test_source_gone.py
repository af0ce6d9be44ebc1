"""Sinks learn, after the last frame, that a source was lost, stopped, removed, or has ended."""

from __future__ import annotations

import time

import pytest
from receivers import until
from streams import INFO, LIVE, Keeping, Opener, Script, frame, frames, play, slow_frames
from test_stream_control import Going

from leaf_rt.errors import NotFound
from leaf_rt.sinks.base import WatchesSources
from leaf_rt.sources.base import SourceOptions
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.types import Estimates, Frame, SourceInfo


class Watching(Keeping):
    """Notes the frames and ends of sources in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        super().write(source, frame, estimates, latency)
        time.sleep(0.002)  # frames wait in the queue when the end comes
        self.log.append(f"{source.name} {frame.generation}")

    def source_gone(self, source: SourceInfo) -> None:
        self.log.append(f"{source.name} gone")


def test_only_sinks_that_ask_are_told() -> None:
    assert isinstance(Watching(), WatchesSources)
    assert not isinstance(Keeping(), WatchesSources)


def test_the_end_of_a_file_comes_after_its_last_frame() -> None:
    sink = Watching()
    stats = play(Opener(a=[Script(INFO, frames(40))]), "a", shared=[sink])
    assert sink.log == ["clip.mp4 0"] * 40 + ["clip.mp4 gone"]
    assert (stats.sinks[0].written, stats.sinks[0].dropped) == (40, 0)


def test_the_end_of_a_file_comes_after_frames_whose_search_takes_long() -> None:
    """The loop turns around several times while it waits for the last frames."""
    sink = Watching()
    play(
        Opener(a=[Script(INFO, frames(8))]),
        "a",
        shared=[sink],
        act=lambda image: time.sleep(0.3 if image.index >= 6 else 0.0),
        options=RunOptions(workers=2),
    )
    assert sink.log == ["clip.mp4 0"] * 8 + ["clip.mp4 gone"]


def test_a_loss_is_told_once_per_connection() -> None:
    sink = Watching()
    opener = Opener(a=[Script(LIVE, slow_frames(5)), Script(LIVE, slow_frames(5)), NotFound("gone")])
    play(opener, "a", ask=SourceOptions(max_reconnects=1), shared=[sink])
    log = [line for n, line in enumerate(sink.log) if n == 0 or sink.log[n - 1] != line]
    assert log == ["cam 0", "cam gone", "cam 1", "cam gone"]


@pytest.mark.parametrize("act", ["pause", "remove"])
def test_a_source_that_is_paused_or_removed_is_gone(act: str) -> None:
    sink = Watching()
    run = Going(Opener(a=[Script(LIVE, slow_frames(2000))]), sink, Hooks(), [])
    try:
        name = run.add("a")
        until(lambda: f"{name} 0" in sink.log)
        getattr(run.control, act)(name).result(30)
        until(lambda: sink.log[-1] == f"{name} gone")
    finally:
        run.stop.set()
        run.thread.join(30)
    assert sink.log.count(f"{name} gone") == 1


def test_an_error_of_the_sink_is_reported_like_one_of_a_frame() -> None:
    class Broken(Watching):
        def source_gone(self, source: SourceInfo) -> None:
            raise OSError("gone too")

    sink, events = Broken(), []
    hooks = Hooks(event=events.append)
    stats = play(Opener(a=[Script(INFO, [frame(0)])]), "a", shared=[sink], hooks=hooks)
    assert (stats.processed, stats.sinks[0].failed) == (1, 1)
    assert "gone too" in events[0].text
    assert sink.closed == 1
