"""Live streams over real sockets: reconnects, stalls, clock jumps, refused connections."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import empty_frames
from commands import Leaf
from fakes import FakeBackend
from rtsp_server import RtspServer, encode
from streams import LABELS, Keeping, pipelines

from leaf_rt.errors import AuthError, ConnectionLost, LeafError, NotFound, TimedOut
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import Frame, SourceInfo


@pytest.fixture(scope="module")
def units() -> list[list[bytes]]:
    return encode(empty_frames(24))


@pytest.fixture(scope="module")
def small_units() -> list[list[bytes]]:
    return encode(empty_frames(24, 96, 160))


@pytest.fixture
def server(units: list[list[bytes]]) -> Iterator[RtspServer]:
    with RtspServer(units) as running:
        yield running


class Watching(Keeping):
    """A run in its own thread, and its results."""

    def __init__(self, targets: list[Target], sinks: Callable[[SourceInfo], list[Any]] = lambda info: []) -> None:
        super().__init__("watching", wants_image=True)
        self.events: list[Event] = []
        self.shapes: list[tuple[int, ...]] = []
        self.dates: list[float | None] = []
        self.stop = StopSignal()
        self.stats: RunStats | None = None
        self.progress: RunStats | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(targets, sinks), daemon=True)
        self._thread.start()

    def _run(self, targets: list[Target], sinks: Callable[[SourceInfo], list[Any]]) -> None:
        backend = FakeBackend()
        hooks = Hooks(event=self.events.append, progress=lambda s: setattr(self, "progress", s))
        try:
            self.stats = run(targets, pipelines(backend), backend, sinks, [self], hooks, stop=self.stop)
        except LeafError as e:
            self.error = e

    def write(self, source: SourceInfo, frame: Frame, estimates: Any, latency: float) -> None:
        super().write(source, frame, estimates, latency)
        self.shapes.append(frame.image.shape[:2])
        self.dates.append(frame.captured_at)

    def until(self, what: Callable[[], bool], timeout: float = 15.0) -> float:
        """Wait until a condition is true; returns the time that it took, s."""
        begin = time.monotonic()
        while not what():
            assert self._thread.is_alive(), f"the run ended early: {self.error!r}, {self.events}"
            assert time.monotonic() - begin < timeout, f"not within {timeout} s; {self.events}"
            time.sleep(0.01)
        return time.monotonic() - begin

    def of(self, name: str) -> list[tuple[str, int, int, float]]:
        return [row for row in list(self.rows) if row[0] == name]

    def kinds(self, name: str) -> list[str]:
        return [event.kind for event in list(self.events) if event.source == name]

    def end(self) -> RunStats:
        self.stop.set()
        self._thread.join(15)
        assert self.stats is not None, self.error
        assert all(s.captured == s.processed + s.dropped + s.failed for s in self.stats.sources)
        for source in self.stats.sources:
            rows = self.of(source.info.name)
            assert all(b[3] > a[3] and b[1] > a[1] and b[2] >= a[2] for a, b in pairwise(rows)), "time went back"
        return self.stats


def test_frames_arrive_quickly_and_have_a_date(server: RtspServer) -> None:
    watch = Watching([Target(server.url())])
    watch.until(lambda: len(watch.rows) >= 40)
    stats = watch.end()
    info = stats.sources[0].info
    assert (info.width, info.height, info.is_live, info.kind) == (320, 180, True, "network")
    assert sorted(watch.latencies)[len(watch.latencies) // 2] < 0.1
    assert all(d is not None and abs(d - time.time()) < 60 for d in watch.dates)
    steps = np.diff([row[3] for row in watch.rows])
    assert float(np.median(steps)) == pytest.approx(0.04, abs=0.005)
    assert watch.rows[0][3] == 0.0


@pytest.mark.slow
def test_a_server_that_stops_and_starts_again(units: list[list[bytes]], server: RtspServer) -> None:
    """The lost source reconnects after the documented delays, in a new generation. The other source loses nothing."""
    options = SourceOptions(name="dying")
    with RtspServer(units) as first:
        watch = Watching([Target(first.url(), options), Target(server.url(), SourceOptions(name="steady"))])
        watch.until(lambda: len(watch.of("dying")) > 10 and len(watch.of("steady")) > 10)
    lost = watch.until(lambda: watch.kinds("dying").count("lost") >= 2)
    assert lost < 3.0  # the loss is noticed at once, and the first attempt follows after 1 s
    with RtspServer(units, port=first.port):
        watch.until(lambda: watch.of("dying")[-1][2] == 1)
        watch.until(lambda: len(watch.of("dying")) > 40)
        stats = watch.end()
    dying, steady = stats.sources
    assert (dying.reconnects, dying.generation, steady.reconnects, steady.generation) == (1, 1, 0, 0)
    assert set(watch.kinds("steady")) <= {"load"}  # a busy machine may shed load
    gaps = np.diff([row[3] for row in watch.of("dying")])
    assert 1.0 < gaps.max() < 6.0  # media time continues by the time that has passed
    still = np.diff([row[3] for row in watch.of("steady")])
    assert still.max() < 0.5
    waits = [float(e.text.rsplit(" in ", 1)[1].removesuffix(" s")) for e in watch.events if e.kind == "lost"]
    assert waits[:2] == [pytest.approx(1.0, abs=0.11), pytest.approx(2.0, abs=0.21)]


def test_a_server_that_stalls_is_detected(server: RtspServer) -> None:
    assert SourceOptions().stall_timeout == 10.0
    watch = Watching([Target(server.url(), SourceOptions(name="cam", stall_timeout=1.0))])
    watch.until(lambda: len(watch.rows) > 10)
    server.stalled = True
    assert watch.until(lambda: "lost" in watch.kinds("cam")) < 1.5
    server.stalled = False
    watch.until(lambda: watch.rows[-1][2] >= 1)
    stats = watch.end()
    assert stats.sources[0].stalls == 1
    assert any("sent no frame for 1 s" in event.text for event in watch.events)


def test_a_read_that_times_out_is_a_loss(server: RtspServer) -> None:
    watch = Watching([Target(server.url(), SourceOptions(name="cam", read_timeout=0.3))])
    watch.until(lambda: len(watch.rows) > 5)
    server.stalled = True
    watch.until(lambda: "lost" in watch.kinds("cam"), 3.0)
    watch.end()
    assert any("sent nothing for 0.3 s" in event.text for event in watch.events)


def test_a_stream_that_changes_its_size(server: RtspServer, small_units: list[list[bytes]], tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    watch = Watching([Target(server.url())], lambda info: [VideoSink(path, LABELS, lambda i, e, labels: i)])
    watch.until(lambda: len(watch.rows) > 10)
    server.units = small_units
    watch.until(lambda: (96, 160) in watch.shapes)
    watch.until(lambda: watch.shapes[-5:] == [(96, 160)] * 5)
    stats = watch.end()
    assert set(watch.shapes) == {(180, 320), (96, 160)}
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    assert {(f.height, f.width) for f in shown} == {(180, 320)}
    assert len(shown) == stats.sources[0].processed
    span = watch.rows[-1][3] - watch.rows[0][3]
    assert float(shown[-1].pts * shown[-1].time_base) == pytest.approx(span, abs=0.01)


@pytest.mark.parametrize(("jump", "generation"), [(500.0, 0), (-500.0, 0), (80_000.0, 1), (-8_000.0, 1)])
def test_a_stream_whose_clock_jumps(server: RtspServer, jump: float, generation: int) -> None:
    """Media time continues. After a jump of hours the stream counts as a new connection, without a reconnect."""
    server.jump = 10_000.0
    watch = Watching([Target(server.url())])
    watch.until(lambda: len(watch.rows) > 15)
    server.jump += jump
    count = len(watch.rows)
    watch.until(lambda: len(watch.rows) > count + 25)
    stats = watch.end()
    assert np.diff([row[3] for row in watch.rows]).max() < 1.5
    assert stats.sources[0].jumps >= 1
    assert (stats.sources[0].generation, watch.rows[-1][2]) == (generation, generation)
    assert stats.sources[0].reconnects == 0
    texts = [event.text for event in watch.events if event.kind == "clock"]
    assert len(texts) == 1
    assert ("new connection" in texts[0]) == (generation == 1)


def test_damage_is_counted_and_reported(units: list[list[bytes]], server: RtspServer) -> None:
    """Every fifth picture has broken slices: it is processed, counted and reported once."""
    watch = Watching([Target(server.url(), SourceOptions(name="cam"))])
    watch.until(lambda: len(watch.rows) > 20)
    assert watch.progress is not None
    assert watch.progress.sources[0].damaged == 0
    rng = random.Random(1)
    server.units = [unit if i % 5 != 3 else [damaged(nal, rng) for nal in unit] for i, unit in enumerate(units)]
    count = len(watch.rows)
    watch.until(lambda: len(watch.rows) > count + 60)
    stats = watch.end()
    assert 8 <= stats.sources[0].damaged <= 30  # of 60 or more pictures; a broken one may break those after it
    reports = [event.text for event in watch.events if event.kind == "damaged"]
    assert reports == [r for r in reports if r.startswith(("1 damaged picture so far", "2 damaged pictures so far"))]
    assert len(reports) == 1
    assert stats.sources[0].dropped < 30


def damaged(nal: bytes, rng: random.Random) -> bytes:
    """A slice of a picture with some bytes changed behind its header; parameter sets stay whole."""
    if nal[0] & 31 not in (1, 5):
        return nal
    data = bytearray(nal)
    for _ in range(12):
        data[rng.randrange(len(data) // 4, len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda url: url.replace("127.0.0.1", "me:wrong@127.0.0.1"), AuthError),
        (lambda url: url, AuthError),
        (lambda url: url.replace("127.0.0.1", "me:secret@127.0.0.1").replace("live", "attic"), NotFound),
        (lambda url: "rtsp://me:secret@127.0.0.1:1/live", ConnectionLost),
        (lambda url: url.replace("rtsp:", "rtsps:").replace("127.0.0.1", "me:secret@127.0.0.1"), ConnectionLost),
    ],
    ids=["wrong password", "no password", "wrong path", "closed port", "no TLS there"],
)
def test_each_failed_open_has_its_error_and_exit_code(
    units: list[list[bytes]], change: Callable[[str], str], error: type[LeafError], capfd: pytest.CaptureFixture[str]
) -> None:
    with RtspServer(units, login="me:secret") as locked:
        url = change(locked.url())
        options = SourceOptions(open_timeout=2.0, read_timeout=1.0)
        with pytest.raises(error) as caught:
            open_source(url, options)
        assert "secret" not in str(caught.value)
        assert "wrong" not in str(caught.value)
        done = Leaf(capfd)("video", url)
    assert done.code == error.exit_code
    assert "secret" not in done.out + done.err
    assert "127.0.0.1" in done.sentence()


def test_the_password_is_never_shown(units: list[list[bytes]], caplog: Any) -> None:
    caplog.set_level("DEBUG")
    with RtspServer(units, login="me:secret") as locked:
        watch = Watching([Target(locked.url(login="me:secret"))])
        watch.until(lambda: len(watch.rows) > 3)
        locked.refusing = True
        locked.drop()
        watch.until(lambda: len(watch.events) >= 2)
        stats = watch.end()
    shown = caplog.text + repr(watch.events) + repr(stats.sources[0].info) + repr(watch.rows)
    assert "lost" in shown or "retrying" in shown
    assert "secret" not in shown


def test_a_server_that_accepts_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"
        begin = time.monotonic()
        with pytest.raises(TimedOut, match=r"no answer within 0\.5 s"):
            open_source(url, SourceOptions(open_timeout=0.5, read_timeout=0.5))
        assert time.monotonic() - begin < 3.0


def test_packets_that_udp_loses_are_counted() -> None:
    """Every picture is whole by itself, so that only the numbers of the packets tell of a loss."""
    units = encode([np.full((96, 160, 3), 90, np.uint8)])
    with RtspServer(units) as server:
        server.udp = True
        watch = Watching([Target(server.url(), SourceOptions(name="cam", rtsp_transport="udp", read_timeout=15.0))])
        watch.until(lambda: len(watch.rows) > 5, 60.0)
        server.units = [units[0][-1:]]  # one packet each: without it, nothing is damaged
        count = len(watch.rows)
        watch.until(lambda: len(watch.rows) > count + 5, 60.0)
        server.lossy = 7
        count = len(watch.rows)
        watch.until(lambda: len(watch.rows) > count + 40, 60.0)
        stats = watch.end()
    assert stats.sources[0].damaged >= 3
    assert "damaged" in watch.kinds("cam")


def test_a_server_without_udp_is_reported(server: RtspServer) -> None:
    with pytest.raises(ConnectionLost, match=r"does not send over udp; try --rtsp-transport tcp$"):
        open_source(server.url(), SourceOptions(rtsp_transport="udp"))


def test_max_reconnects_ends_the_source(server: RtspServer) -> None:
    watch = Watching([Target(server.url(), SourceOptions(name="cam", max_reconnects=1))])
    watch.until(lambda: len(watch.rows) > 3)
    server.refusing = True
    server.drop()
    watch._thread.join(15)
    assert watch.stats is not None
    assert [type(e) for e in watch.stats.failures] == [ConnectionLost]
    # The connection may be cut within a picture, which is then damaged.
    assert [kind for kind in watch.kinds("cam") if kind != "damaged"] == ["lost", "failed"]
    assert watch.stats.sources[0].state == "ended"
