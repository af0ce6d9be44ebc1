"""Sources that are added, removed, stopped and started while a run goes on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeBackend
from streams import INFO, LIVE, QUICK, Calm, Keeping, Opener, Script, frames, pipelines, slow_frames

from leaf_rt.errors import ConnectionLost, NotFound
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.control import Addition, RunControl
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal

pytestmark = pytest.mark.usefixtures("no_thread_stays")


class Going:
    """A run in a thread of its own."""

    def __init__(self, opener: Any, sink: Keeping, hooks: Hooks, targets: list[Target]) -> None:
        self.control, self.stop, self.sink = RunControl(keep_open=True), StopSignal(), sink
        self.stats = RunStats()
        self.result: RunStats | None = None
        backend = FakeBackend()

        def progress(stats: RunStats) -> None:
            self.stats = stats

        def go() -> None:
            self.result = run(
                targets,
                pipelines(backend),
                backend,
                shared=[sink],
                hooks=Hooks(opened=hooks.opened, closed=hooks.closed, progress=progress),
                options=QUICK,
                stop=self.stop,
                opener=opener,
                rng=Calm(),
                control=self.control,
            )

        self.thread = threading.Thread(target=go)
        self.thread.start()

    def add(self, name: str, **fields: Any) -> str:
        return self.control.add(Addition(Target(f"rtsp://host/{name}", SourceOptions(name=name)), **fields)).result(5)

    def frames_of(self, name: str) -> list[tuple[str, int, int, float]]:
        return [row for row in list(self.sink.rows) if row[0] == name]


@contextmanager
def going(opener: Any, hooks: Hooks | None = None, targets: list[Target] | None = None) -> Iterator[Going]:
    one = Going(opener, Keeping(), hooks or Hooks(), targets or [])
    try:
        yield one
    finally:
        one.stop.set()
        one.thread.join(10)
        assert not one.thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_a_run_without_sources_goes_on_and_takes_one_that_is_added() -> None:
    gate = threading.Event()
    seen: list[tuple[str, str]] = []
    hooks = Hooks(
        opened=lambda i: seen.append(("opened", i.name)), closed=lambda s: seen.append(("closed", s.info.name))
    )
    with going(Opener(cam=[Script(LIVE, [*slow_frames(5), gate])]), hooks) as one:
        time.sleep(0.4)
        assert one.thread.is_alive()
        assert one.add("cam") == "cam"
        wait_for(lambda: len(one.frames_of("cam")) > 0)
        assert [s.info.name for s in one.stats.sources] == ["cam"]
        gate.set()  # the capture thread cannot leave its source before
        one.control.remove("cam").result(5)
        wait_for(lambda: one.stats.sources == [])
    assert seen == [("opened", "cam"), ("closed", "cam")]
    assert one.result is not None
    assert one.result.failures == []


def test_a_removed_source_leaves_the_others_alone() -> None:
    gates = [threading.Event() for _ in range(2)]
    opener = Opener(
        a=[Script(LIVE, [*slow_frames(200), gates[0]])], b=[Script(LIVE, [*slow_frames(200, start=0), gates[1]])]
    )
    with going(opener) as one:
        one.add("a")
        one.add("b")
        wait_for(lambda: bool(one.frames_of("a") and one.frames_of("b")))
        one.control.remove("a").result(5)
        before, gone = len(one.frames_of("b")), len(one.frames_of("a"))
        wait_for(lambda: len(one.frames_of("b")) > before + 5)
        assert len(one.frames_of("a")) <= gone + 1  # one may have been on its way to the sink
        with pytest.raises(NotFound, match="no such source"):
            one.control.remove("a").result(5)
        for gate in gates:
            gate.set()


def test_a_stopped_source_starts_again_with_growing_time_and_numbers() -> None:
    gate = threading.Event()
    first, second = Script(LIVE, [*slow_frames(4), gate]), Script(LIVE, [*slow_frames(4), gate])
    with going(Opener(cam=[first, second])) as one:
        one.add("cam")
        wait_for(lambda: len(one.frames_of("cam")) >= 3)
        one.control.pause("cam").result(5)
        gate.set()
        wait_for(lambda: [s.state for s in one.stats.sources] == ["stopped"])
        count = len(one.frames_of("cam"))
        time.sleep(0.2)
        assert len(one.frames_of("cam")) <= count + 1
        gate.clear()
        one.control.resume("cam").result(5)
        wait_for(lambda: any(row[2] == 1 for row in one.frames_of("cam")))
        assert one.stats.sources[0].reconnects == 0
        gate.set()
    rows = one.frames_of("cam")
    assert [r[1] for r in rows] == sorted({r[1] for r in rows})
    assert all(b[3] > a[3] for a, b in itertools.pairwise(rows))


def test_a_stopped_file_continues_its_time() -> None:
    from dataclasses import replace

    info = replace(INFO, name="clip", is_live=True)
    gate = threading.Event()
    with going(Opener(clip=[Script(info, [*frames(3), gate]), Script(info, [*frames(3), gate])])) as one:
        one.control.add(Addition(Target("clip", SourceOptions(name="clip", realtime=True)))).result(5)
        wait_for(lambda: len(one.frames_of("clip")) >= 2)
        one.control.pause("clip").result(5)
        gate.set()
        gate.clear()
        one.control.resume("clip").result(5)
        wait_for(lambda: sum(r[2] == 1 for r in one.frames_of("clip")) >= 2)
        gate.set()
    times = [r[3] for r in one.frames_of("clip")]
    assert times == sorted(set(times))


def test_a_source_that_does_not_open_is_refused_with_its_reason() -> None:
    opener = Opener(bad=[ConnectionLost("rtsp://host/bad: connection refused")], good=[Script(LIVE, [*frames(2)])] * 2)
    with going(opener) as one:
        one.add("bad")
        wait_for(lambda: any(s.state == "ended" for s in one.stats.sources))
        source = one.stats.sources[0]
        assert source.reason == "connection refused"
        assert opener.attempts["bad"] == 1
    assert one.result is not None
    assert one.result.failures == [], "an added source is no failure of the run"


def test_a_lost_source_says_why_and_when_it_is_tried_again() -> None:
    opener = Opener(cam=[Script(LIVE, [*slow_frames(2)]), *[ConnectionLost("rtsp://host/cam: no answer")] * 3])
    with going(opener) as one:
        one.add("cam")
        wait_for(lambda: bool(one.stats.sources) and one.stats.sources[0].state == "lost")
        source = one.stats.sources[0]
        assert source.reason == "the stream ended"
        assert source.retry_at is not None
        assert 0 < source.retry_at - source.since <= 1.2


def test_own_sinks_keep_a_source_from_the_shared_ones() -> None:
    own, opened = Keeping("own"), []
    with going(Opener(), Hooks(opened=opened.append)) as one:
        script = Script(INFO, [*frames(20)])
        one.control.add(Addition(Target("job"), script, [own])).result(5)
        wait_for(lambda: own.closed > 0)
    assert len(own.rows) == 20  # a file loses no frame
    assert one.sink.rows == []
    assert opened == []


def test_a_call_runs_in_the_loop_and_its_error_comes_back() -> None:
    with going(Opener()) as one:
        assert one.control.call(threading.current_thread).result(5) is one.thread

        def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            one.control.call(fail).result(5)


def test_requests_after_the_end_are_refused() -> None:
    with going(Opener()) as one:
        pass
    with pytest.raises(ConnectionLost, match="has ended"):
        one.control.remove("a").result(5)


def test_a_run_that_is_not_kept_open_ends_with_its_sources(tmp_path: Path) -> None:
    control, backend = RunControl(), FakeBackend()
    stats = run(
        [Target("rtsp://host/a")],
        pipelines(backend),
        backend,
        opener=Opener(a=[Script(INFO, [*frames(3)])]),
        options=QUICK,
        control=control,
    )
    assert stats.processed == 3
    with pytest.raises(ConnectionLost):
        control.call(lambda: 1).result(1)
