"""The tests of test_live with the RTSP server of GStreamer, if the system has it."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from gst_camera import MISSING, GstCamera, available
from receivers import free_port
from test_live import Watching

from leaf_rt.errors import LeafError, NotFound
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.sources.opening import open_source

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason=MISSING),
]


@pytest.fixture
def port() -> int:
    return free_port()


def test_frames_arrive_and_a_wrong_path_is_an_error(port: int) -> None:
    with GstCamera(port=port):
        with open_source(f"rtsp://127.0.0.1:{port}/live") as source:
            frames = [frame for frame, _ in zip(source, range(20), strict=False)]
            assert (source.info.width, source.info.height, source.info.is_live) == (640, 360, True)
        with pytest.raises(NotFound):
            open_source(f"rtsp://127.0.0.1:{port}/attic")
    assert len(frames) == 20


def test_a_server_that_is_killed_and_started_again(port: int) -> None:
    target = Target(f"rtsp://127.0.0.1:{port}/live", SourceOptions(name="cam"))
    with GstCamera(port=port):
        watch = Watching([target])
        watch.until(lambda: len(watch.rows) > 10)
    watch.until(lambda: "lost" in watch.kinds("cam"), 3.0)
    with GstCamera(port=port):
        watch.until(lambda: watch.rows[-1][2] == 1)
        stats = watch.end()
    assert stats.sources[0].reconnects == 1


def test_a_server_that_is_suspended_and_resumed(port: int) -> None:
    """With the default options the stall is detected after 10 s."""
    with GstCamera(port=port) as camera:
        watch = Watching([Target(f"rtsp://127.0.0.1:{port}/live", SourceOptions(name="cam"))])
        watch.until(lambda: len(watch.rows) > 10)
        camera.process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        watch.until(lambda: "lost" in watch.kinds("cam"), 15.0)
        assert time.monotonic() - begin < 10.5
        camera.process.send_signal(signal.SIGCONT)
        watch.until(lambda: watch.rows[-1][2] == 1, 20.0)
        watch.end()


def test_over_udp_frames_arrive_and_a_killed_server_is_a_loss(port: int) -> None:
    """The server supports only UDP, so that the test cannot use TCP by mistake."""
    udp = SourceOptions(name="cam", rtsp_transport="udp", read_timeout=2.0)
    with GstCamera(port=port, udp=True):
        with pytest.raises(LeafError) as caught:
            open_source(f"rtsp://127.0.0.1:{port}/live")
        watch = Watching([Target(f"rtsp://127.0.0.1:{port}/live", udp)])
        watch.until(lambda: len(watch.rows) > 24)
    assert "--rtsp-transport" in str(caught.value)
    watch.until(lambda: "lost" in watch.kinds("cam"), 10.5)
    with GstCamera(port=port, udp=True):
        watch.until(lambda: watch.rows[-1][2] == 1, 20.0)
        stats = watch.end()
    assert stats.sources[0].reconnects == 1
    assert stats.sources[0].jumps == 0
    steps = np.diff([row[3] for row in watch.rows if row[2] == 0])
    assert float(np.median(steps)) == pytest.approx(1 / 24, abs=0.005)
