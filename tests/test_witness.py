"""The tests of test_live with the RTSP server of GStreamer, if the system has it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from clips import DEMO
from test_live import Watching

from leaf_rt.errors import LeafError, NotFound
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or ""
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')"


def available() -> bool:
    """Whether the system's Python has GStreamer's RTSP server, its payloader and its demuxer."""
    if not PYTHON:
        return False
    plugins = "; from gi.repository import Gst; Gst.init(None)"
    plugins += "; assert all(map(Gst.ElementFactory.find, ('rtph264pay', 'qtdemux', 'h264parse')))"
    return subprocess.run([PYTHON, "-c", PROBE + plugins], capture_output=True, check=False, timeout=60).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="needs GStreamer's RTSP server: apt gir1.2-gst-rtsp-server-1.0"),
]


@contextmanager
def serving(port: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [PYTHON, str(Path(__file__).with_name("gst_server.py")), str(port), str(DEMO), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_frames_arrive_and_a_wrong_path_is_an_error(port: int) -> None:
    with serving(port):
        with open_source(f"rtsp://127.0.0.1:{port}/live") as source:
            frames = [frame for frame, _ in zip(source, range(20), strict=False)]
            assert (source.info.width, source.info.height, source.info.is_live) == (640, 360, True)
        with pytest.raises(NotFound):
            open_source(f"rtsp://127.0.0.1:{port}/attic")
    assert len(frames) == 20


def test_a_server_that_is_killed_and_started_again(port: int) -> None:
    target = Target(f"rtsp://127.0.0.1:{port}/live", SourceOptions(name="cam"))
    with serving(port):
        watch = Watching([target])
        watch.until(lambda: len(watch.rows) > 10)
    watch.until(lambda: "lost" in watch.kinds("cam"), 3.0)
    with serving(port):
        watch.until(lambda: watch.rows[-1][2] == 1)
        stats = watch.end()
    assert stats.sources[0].reconnects == 1


def test_a_server_that_is_suspended_and_resumed(port: int) -> None:
    """With the default options the stall is detected after 10 s."""
    with serving(port) as process:
        watch = Watching([Target(f"rtsp://127.0.0.1:{port}/live", SourceOptions(name="cam"))])
        watch.until(lambda: len(watch.rows) > 10)
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        watch.until(lambda: "lost" in watch.kinds("cam"), 15.0)
        assert time.monotonic() - begin < 10.5
        process.send_signal(signal.SIGCONT)
        watch.until(lambda: watch.rows[-1][2] == 1, 20.0)
        watch.end()


def test_over_udp_frames_arrive_and_a_killed_server_is_a_loss(port: int) -> None:
    """The server supports only UDP, so that the test cannot use TCP by mistake."""
    udp = SourceOptions(name="cam", rtsp_transport="udp", read_timeout=2.0)
    with serving(port, "udp"):
        with pytest.raises(LeafError) as caught:
            open_source(f"rtsp://127.0.0.1:{port}/live")
        watch = Watching([Target(f"rtsp://127.0.0.1:{port}/live", udp)])
        watch.until(lambda: len(watch.rows) > 24)
    assert "--rtsp-transport" in str(caught.value)
    watch.until(lambda: "lost" in watch.kinds("cam"), 10.5)
    with serving(port, "udp"):
        watch.until(lambda: watch.rows[-1][2] == 1, 20.0)
        stats = watch.end()
    assert stats.sources[0].reconnects == 1
    assert stats.sources[0].jumps == 0
    steps = np.diff([row[3] for row in watch.rows if row[2] == 0])
    assert float(np.median(steps)) == pytest.approx(1 / 24, abs=0.005)
