"""How programs watch a run: the metrics while it goes on, and its log as JSON."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from clips import demo_frames, write_clip
from commands import Leaf

QUIET = ("--no-save-video", "--no-plot", "--no-jsonl")


@pytest.fixture
def leaf(capfd: pytest.CaptureFixture[str]) -> Leaf:
    return Leaf(capfd)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", demo_frames(48))


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Scraper(threading.Thread):
    """Asks for the metrics until a frame was finished, then once for the health."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.address = f"http://127.0.0.1:{port}"
        self.metrics = self.health = ""
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            try:
                text = self.get("/metrics")
                if 'leaf_processed_total{source="face.mp4"}' in text and "leaf_up" in text:
                    self.metrics, self.health = text, self.get("/healthz")
                    return
            except (urllib.error.URLError, ConnectionError):  # not there yet, or no frame yet
                continue

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=5) as answer:
            return str(answer.read().decode())


def test_metrics_are_served_while_it_runs_and_not_after(leaf: Leaf, clip: Path, port: int) -> None:
    scraper = Scraper(port)
    scraper.start()
    done = leaf("video", clip, *QUIET, "--realtime", "--loop", "--duration", "2", "--metrics", port)
    scraper.over.set()
    scraper.join(10)
    assert done.code == 0, done.err
    assert 'leaf_up{source="face.mp4"} 1.0' in scraper.metrics
    assert json.loads(scraper.health)["healthy"] is True
    assert f"http://127.0.0.1:{port}/metrics" in done.err
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_port_that_is_taken_is_said_at_once(leaf: Leaf, clip: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begin = time.monotonic()
        done = leaf("video", clip, *QUIET, "--metrics", port)
        assert done.code == 9
        assert f"--metrics {port}: cannot listen" in done.sentence()
        assert time.monotonic() - begin < 10
    assert leaf("video", clip, "--metrics", "65536").code == 2


def test_metrics_without_their_library_say_what_to_install(
    leaf: Leaf, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = leaf("video", clip, *QUIET, "--metrics", "0")
    assert done.code == 9
    assert "pip install 'leaf-rt[metrics]'" in done.sentence()
