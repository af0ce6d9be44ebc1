"""Monitoring of a run: metrics, the JSON log, and the status lines."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from commands import Leaf

from leaf_rt.cli.progress import status
from leaf_rt.stream.stats import SourceStats
from leaf_rt.types import SourceInfo

QUIET = ("--no-save-video", "--no-plot", "--no-jsonl")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def scrape(port: int, until: float) -> tuple[str, str]:
    """Poll until a frame was finished; return the metrics and the health."""
    while time.monotonic() < until:
        try:
            text = get(port, "/metrics")
            if 'leaf_processed_total{source="face.mp4"}' in text and "leaf_up" in text:
                return text, get(port, "/healthz")
        except (urllib.error.URLError, ConnectionError):  # not listening yet
            pass
        time.sleep(0.05)
    raise TimeoutError("no metrics of a finished frame")


@pytest.mark.slow
def test_metrics_are_served_until_the_command_ends(clip: Path, port: int) -> None:
    command = [sys.executable, "-m", "leaf_rt", "video", str(clip), *QUIET, "--realtime", "--loop", "--duration", "60"]
    with subprocess.Popen([*command, "--metrics", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            metrics, health = scrape(port, time.monotonic() + 40)
            run.send_signal(signal.SIGINT)
            _, err = run.communicate(timeout=20)
        finally:
            run.kill()
    assert run.returncode == 0, err.decode()
    assert 'leaf_up{source="face.mp4"} 1.0' in metrics
    assert json.loads(health)["healthy"] is True
    assert f"http://127.0.0.1:{port}/metrics" in err.decode()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_port_in_use_is_reported_before_the_run(leaf: Leaf, clip: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begin = time.monotonic()
        done = leaf("video", clip, *QUIET, "--metrics", port)
        assert done.code == 9
        assert f"--metrics {port}: cannot listen" in done.sentence()
        assert time.monotonic() - begin < 10
    assert leaf("video", clip, "--metrics", "65536").code == 2


def test_metrics_without_their_library_name_the_extra(leaf: Leaf, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = leaf("video", clip, *QUIET, "--metrics", "0")
    assert done.code == 10
    assert 'pip install ".[metrics]"' in done.sentence()


def lines(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def test_stderr_carries_only_json(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cut.mp4"
    broken.write_bytes(b"no film")
    done = leaf("video", clip, broken, "--no-save-video", "--no-plot", "--jsonl", "-", "--log-json")
    assert done.code == 5
    messages = lines(done.err)
    for line in messages:
        numbers = {"summary"} if line["event"] == "finished" else set()
        assert set(line) == {"time", "level", "source", "event", "text"} | numbers
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert line["level"] in {"info", "warning", "error"}
    opened_and_finished = [
        (line["event"], line["source"]) for line in messages if line["event"] in {"opened", "finished"}
    ]
    assert opened_and_finished == [("opened", "face.mp4"), ("finished", "face.mp4")]
    (error,) = [line for line in messages if line["level"] == "error"]
    assert "cut.mp4" in error["text"]
    assert len(lines(done.out)) == 30


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_event_is_logged_once_with_its_kind(leaf: Leaf, clip: Path) -> None:
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--jsonl", "/dev/full", "--log-json")
    assert done.code == 9
    messages = lines(done.err)
    (failed,) = [line for line in messages if line["level"] == "error"]
    assert (failed["event"], failed["source"]) == ("sink", "/dev/full")
    assert "no space left" in failed["text"]


@pytest.mark.parametrize("debug", [False, True])
def test_the_final_error_is_json_too(leaf: Leaf, tmp_path: Path, debug: bool) -> None:
    done = leaf("video", tmp_path / "none.mp4", "--log-json", *(["--debug"] if debug else []))
    assert done.code == 3
    last = lines(done.err)[-1]
    assert (last["level"], last["event"]) == ("error", "error")
    assert "none.mp4" in last["text"]
    assert ("traceback" in last) is debug
    assert leaf("video", tmp_path / "none.mp4").sentence()  # and words again for the next call


def test_the_status_line_of_a_source() -> None:
    camera = SourceInfo("door", "0", "camera", 640, 360, is_live=True)
    source = SourceStats(camera, state="open", dropped=3, level=1, faces=2, capture_fps=25.2, fps=24.8)
    for milliseconds in range(1, 101):
        source.latency.add(milliseconds / 1e3)
    assert status(source, 5.0) == "open, 25 frames/s in, 25 out, 3 dropped, load level 1, 2 faces, 95 ms"
    source.state, source.since = "lost", 2.0
    assert status(source, 9.0) == "lost for 7 s"
    film = SourceInfo("a.mp4", "a.mp4", "file", 640, 360, frame_count=10)
    assert status(SourceStats(film, state="open", fps=30.0), 1.0) == "30 frames/s"
