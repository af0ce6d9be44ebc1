"""Short soak tests: nothing grows, nothing leaks, the counters add up."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from clips import empty_frames
from fakes import FakeBackend
from gst_camera import MISSING, available
from rtsp_server import RtspServer, encode
from soak import held, soak, verdict
from streams import Calm, Keeping, balanced, pipelines

from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.network import NetworkSource
from leaf_rt.stream import connection, reconnect
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal

pytestmark = pytest.mark.slow

MINUTES = os.environ.get("LEAF_SOAK_MINUTES")


def test_five_seconds_of_two_cameras_with_losses(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=5.0, every=1.5, away=0.5)
    assert result["wrong"] == []
    assert result["lost"]["steady"] == []
    assert len(result["lost"]["shaky"]) >= 1
    assert result["sources"]["shaky"]["reconnects"] >= 1
    assert result["sources"]["steady"]["captured"] > 60
    assert result["records"] > 0
    assert all(count > 0 for count in result["video"].values())


def test_twenty_reconnects_leak_no_threads_or_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        connection, "Backoff", lambda rng, attempts=None: reconnect.Backoff(rng, 0.02, 0.1, attempts=attempts)
    )
    stop, backend, sink, ended = StopSignal(), FakeBackend(), Keeping(), []
    seen: list[tuple[int, int]] = []

    def settled(generation: int) -> tuple[int, int]:
        """Threads and descriptors once frames of this connection arrive and the last connection is closed."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if sink.rows and sink.rows[-1][2] >= generation:
                now = held()[1:]
                if not seen or all(value <= first for value, first in zip(now, seen[0], strict=True)):
                    return now
            time.sleep(0.01)
        return held()[1:]

    with RtspServer(encode(empty_frames(24, 96, 160))) as server:
        before = held()[1:]

        def go() -> None:
            target = Target(server.url(), SourceOptions(name="cam"))
            ended.append(run([target], pipelines(backend), backend, shared=[sink], stop=stop, rng=Calm()))

        thread = threading.Thread(target=go)
        thread.start()
        for generation in range(21):
            seen.append(settled(generation))
            server.drop()
        stop.set()
        thread.join(60)
        deadline = time.monotonic() + 30
        while held()[1:] != before and time.monotonic() < deadline:  # the server closes its sockets a moment later
            time.sleep(0.01)
        assert held()[1:] == before
    stats: RunStats = ended[0]
    assert stats.sources[0].reconnects >= 20
    assert balanced(stats)
    assert [max(values) for values in zip(*seen, strict=True)] == list(seen[0])


def test_a_session_is_kept_alive_and_a_silent_one_ends() -> None:
    with (
        RtspServer(encode(empty_frames(24, 96, 160)), session=2) as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as silent,
        NetworkSource(server.url(), SourceOptions()) as source,
    ):
        assert any(frame.timestamp > 5.0 for frame in source)  # else the server closed the session
        assert silent.recv(1) == b""


@pytest.mark.skipif(not available(), reason=MISSING)
def test_ten_seconds_with_a_camera_of_gstreamer_that_is_killed(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=10.0, every=4.0, away=0.5, gstreamer=True)
    assert result["wrong"] == []
    assert result["sources"]["shaky"]["reconnects"] >= 1
    assert result["video"]["shaky"] > 0


@pytest.mark.slow
@pytest.mark.skipif(MINUTES is None, reason="takes as long as LEAF_SOAK_MINUTES says; 30 is the measure")
@pytest.mark.parametrize(
    "gstreamer", [False, pytest.param(True, marks=pytest.mark.skipif(not available(), reason=MISSING))]
)
def test_half_an_hour_of_two_cameras(tmp_path: Path, gstreamer: bool) -> None:
    minutes = float(MINUTES or 30)
    result = soak(tmp_path, seconds=minutes * 60, every=60.0, gstreamer=gstreamer)
    assert result["wrong"] == []
    assert result["sources"]["shaky"]["reconnects"] >= minutes - 1


def good() -> dict[str, Any]:
    counters = {"captured": 10, "processed": 7, "dropped": 2, "failed": 1, "reconnects": 1, "stalls": 0}
    held = {"floor": (9, 9), "before": 4, "after": 4}
    return {
        "seconds": 1800.0,
        "sources": {"steady": dict(counters), "shaky": dict(counters)},
        "lost": {"steady": [], "shaky": [(60.1, "the stream ended; retrying in 1.0 s")]},
        "megabytes_per_10_minutes": 0.9,
        "threads": dict(held),
        "descriptors": dict(held),
        "failures": [],
    }


def test_the_verdict_lists_every_problem() -> None:
    assert verdict(good()) == []
    for change, text in (
        (lambda r: r["sources"]["steady"].update(captured=11), "steady: captured 11 !="),
        (lambda r: r["sources"]["shaky"].update(reconnects=0), "never came back"),
        (lambda r: r["lost"]["steady"].append((90.2, "ended")), "steady: lost after 90.2 s: ended"),
        (lambda r: r["threads"].update(floor=(9, 10)), "threads: never under 10"),
        (lambda r: r["descriptors"].update(after=6), "descriptors: 6 after the run, 4 before"),
        (lambda r: r.update(megabytes_per_10_minutes=1.0), "grows by 1.0 MB"),
        (lambda r: r.update(failures=["cam: gone"]), "failed: cam: gone"),
    ):
        result = good()
        change(result)
        assert len(verdict(result)) == 1
        assert text in verdict(result)[0]
    short = good() | {"seconds": 5.0, "megabytes_per_10_minutes": 300.0}
    assert verdict(short) == []
