"""How a run ends: stopped, interrupted or after its duration. The counters always add up."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
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
    frames,
    play,
    slow_frames,
)

from leaf_rt.errors import BackendError, NotFound, OutputError
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Estimates, Frame, Prediction, SourceInfo

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def test_a_stop_leaves_balanced_counters_and_closed_sinks() -> None:
    stop, sink = StopSignal(), Keeping()
    hooks = Hooks(frame=lambda info, f, e: stop.set() if f.index == 20 else None)
    stats = play(Opener(a=[Script(INFO, frames(500))]), "a", shared=[sink], hooks=hooks, stop=stop)
    assert stats.interrupted
    assert sink.closed == 1
    assert 21 <= len(sink.rows) <= 21 + 8 + 1  # those in the buffer, and the one that was searched ahead
    assert balanced(stats)
    assert [row[1] for row in sink.rows] == list(range(len(sink.rows)))


def test_shared_sinks_stay_open_for_the_next_run_if_the_caller_closes_them() -> None:
    sink, options = Keeping(), RunOptions(close_shared=False)
    for _ in range(2):
        play(Opener(a=[Script(INFO, frames(10))]), "a", shared=[sink], options=options)
    with pytest.raises(NotFound):
        play(Opener(a=[NotFound("a: no such file")]), "a", shared=[sink], options=options)
    assert (len(sink.rows), sink.closed) == (20, 0)


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


def endless(name: str) -> Script:
    """A live source that is faster than the pipeline."""
    entries = [entry for one in frames(4000, source=name) for entry in (one, lambda: time.sleep(0.002))]
    return Script(replace(LIVE, name=name), entries)


class Breaking(FakeBackend):
    """Fails after a few calls."""

    def infer(self, faces: np.ndarray) -> Prediction:
        if len(self.batches) >= 12:
            raise BackendError("the engine broke")
        return super().infer(faces)


def no_room(n: int) -> None:
    if n == 10:
        raise OutputError("failing: no space left")


def break_off(info: SourceInfo, one: Frame, found: Estimates) -> None:
    if one.index > 20:
        raise ZeroDivisionError("a fault of the caller")


def raise_signal(number: signal.Signals) -> Callable[[SourceInfo, Frame, Estimates], None]:
    """Raise the signal once, after some frames."""
    count = itertools.count()
    return lambda info, one, found: signal.raise_signal(number) if next(count) == 20 else None


def no_sink(info: SourceInfo) -> list[Keeping]:
    if info.name == "b":
        raise OutputError("b.mp4: cannot be written")
    return []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"hooks": Hooks(frame=raise_signal(signal.SIGINT))}, None),
        ({"hooks": Hooks(frame=raise_signal(signal.SIGTERM))}, None),
        ({"options": RunOptions(duration=0.3)}, None),
        ({"backend": Breaking()}, BackendError),
        ({"shared": [Failing(no_room)]}, OutputError),
        ({"hooks": Hooks(frame=break_off)}, ZeroDivisionError),
        ({"sinks": no_sink}, OutputError),
    ],
    ids=["SIGINT", "SIGTERM", "duration", "engine", "sink", "hook", "sink that does not open"],
)
def test_the_counters_of_two_live_sources_add_up(arguments: dict[str, Any], error: type[Exception] | None) -> None:
    last: list[RunStats] = []
    hooks = replace(arguments.pop("hooks", Hooks()), progress=last.append)
    opener = Opener(a=[endless("a")], b=[endless("b")])
    with pytest.raises(error) if error is not None else contextlib.nullcontext():
        play(opener, "a", "b", hooks=hooks, act=lambda one: time.sleep(0.004), **arguments)
    stats = last[-1]
    assert balanced(stats)
    assert sum(s.captured for s in stats.sources) > 10 or arguments.get("sinks") is no_sink
    assert [s.queued for s in stats.sources] == [0, 0]
