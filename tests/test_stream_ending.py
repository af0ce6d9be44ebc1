"""How a run ends: stopped, interrupted, timed out; the counters add up every time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable

import pytest
from streams import (
    INFO,
    LIVE,
    Failing,
    Keeping,
    Opener,
    Script,
    balanced,
    frames,
    no_thread_stays,
    play,
    slow_frames,
)

from leaf_rt.stream import Hooks, RunOptions, StopSignal


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterable[None]:
    yield
    no_thread_stays()


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
