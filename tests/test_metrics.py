from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from fakes import FakeBackend
from prometheus_client.parser import text_string_to_metric_families
from streams import INFO, LIVE, Keeping, Opener, Script, frame, pipelines

from leaf_rt.errors import ConnectionLost, OutputError
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.web import metrics
from leaf_rt.web.metrics import MetricsServer


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def values(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_counters_of_a_run_are_served() -> None:
    sink = Keeping("records")
    frames = [frame(i) for i in range(30)]
    with MetricsServer(0) as server:
        assert get(server, "/healthz")[0] == 503  # there is no run yet
        run(
            [Target("a")],
            pipelines(FakeBackend()),
            FakeBackend(),
            shared=[sink],
            hooks=Hooks(progress=server.update),
            opener=Opener(a=[Script(INFO, frames)]),
        )
        code, text = get(server, "/metrics")
        found = values(text)
        health = json.loads(get(server, "/healthz")[1])
    assert code == 200
    assert found["leaf_captured_total", "clip.mp4"] == found["leaf_processed_total", "clip.mp4"] == 30
    assert found["leaf_sink_written_total", "records"] == 30
    assert found["leaf_stage_seconds_count", "detect"] == 30
    median, late = (found["leaf_stage_newest_seconds", f"{q},detect"] for q in ("0.5", "0.95"))
    assert 0 <= median <= late
    assert found["leaf_latency_seconds_count", "clip.mp4"] == 30
    assert health["sources"][0]["state"] == "ended"


def test_health_reports_a_lost_source() -> None:
    gate = threading.Event()
    seen: list[tuple[int, Any, dict[Any, float]]] = []
    with MetricsServer(0) as server:

        def look(stats: RunStats) -> None:
            server.update(stats)
            if stats.sources[0].state == "lost" and not seen:
                code, body = get(server, "/healthz")
                seen.append((code, json.loads(body), values(get(server, "/metrics")[1])))
                gate.set()

        opener = Opener(a=[Script(LIVE, [frame(0)]), ConnectionLost("x")], b=[Script(INFO, [frame(0), gate])])
        targets = [Target("rtsp://u:p@h/a", SourceOptions(max_reconnects=1)), Target("b")]
        run(targets, pipelines(FakeBackend()), FakeBackend(), hooks=Hooks(progress=look), opener=opener)
    code, health, found = seen[0]
    assert code == 503
    assert [s["state"] for s in health["sources"]] == ["lost", "open"]
    assert health["sources"][0]["since_s"] >= 0
    assert (found["leaf_up", "cam"], found["leaf_up", "clip.mp4"]) == (0.0, 1.0)
    assert "u:p" not in json.dumps(health)


def test_unknown_paths_and_a_port_in_use() -> None:
    with MetricsServer(0) as server:
        assert get(server, "/")[0] == 404
        with pytest.raises(OutputError, match="choose another"):
            MetricsServer(server.port)
    with MetricsServer(server.port) as again:  # free once closed
        assert get(again, "/nothing")[0] == 404


def test_clients_that_go_away_and_foreign_names_are_no_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    with MetricsServer(0) as server:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                one.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20)
        for host, code in (("evil.example", 421), ("", 421), ("localhost:80", 200), ("127.0.0.1", 200), ("[::1]", 200)):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as client:
                client.request("GET", "/metrics", headers={"Host": host})
                assert client.getresponse().status == code, host
    assert capfd.readouterr().err == ""


def test_the_number_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_IDLE_SECONDS", 1.0)
    before = threading.active_count()
    with MetricsServer(0) as server, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            time.sleep(0.01)  # the kernel lets five wait for the server; the next would try again after a second
            assert threading.active_count() - before <= metrics._CLIENTS + 1
        time.sleep(0.5)
        assert threading.active_count() - before <= metrics._CLIENTS + 1
        deadline = time.monotonic() + 10
        while threading.active_count() - before > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() - before <= 1, "idle connections were not closed"
        assert get(server, "/metrics")[0] == 200
