"""A camera that nobody here wrote: GStreamer's RTSP server, in a process of its own that can be killed and started."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from clips import DEMO, RATE, demo_frames
from receivers import free_port

_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or ""
_ELEMENTS = ("qtdemux", "h264parse", "rtph264pay", "h265parse", "rtph265pay", "jpegparse", "rtpjpegpay")
_PROBE = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0'); "
    f"from gi.repository import Gst; Gst.init(None); assert all(map(Gst.ElementFactory.find, {_ELEMENTS!r}))"
)
MISSING = "needs GStreamer's RTSP server: apt gir1.2-gst-rtsp-server-1.0, and its plugins"


def available() -> bool:
    """Whether the system's Python has GStreamer's RTSP server, its demuxer, parsers and payloaders."""
    if not _PYTHON:
        return False
    return subprocess.run([_PYTHON, "-c", _PROBE], capture_output=True, check=False, timeout=60).returncode == 0


# No pictures that refer to later ones, so packets are in the order of their times. RTP knows only JPEG's usual tables.
_ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}, "yuv420p"),
    "h265": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"}, "yuv420p"),
    "mjpeg": ("mjpeg", {"huffman": "default"}, "yuvj420p"),
}


class GstCamera:
    """Serves a clip from its beginning to every client, on loopback; use it as a context manager.

    Args:
        clip: See ``long_clip``.
        codec: "h264", "h265" or "mjpeg": what the clip holds.
        udp: Whether it serves over UDP and nothing else.
        login: "USER:PASSWORD" that it asks for.
        method: "basic" or "digest": how it asks.
        port: 0 takes a free one.
    """

    def __init__(
        self, clip: Path = DEMO, codec: str = "h264", *, udp: bool = False, login: str = "", method: str = "basic",
        port: int = 0,
    ) -> None:  # fmt: skip
        self.port = port or free_port()
        self.url = f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/live"
        self._line = [_PYTHON, str(Path(__file__).with_name("gst_server.py")), str(self.port), str(clip)]
        self._line += ["--codec", codec, *(["--udp"] if udp else [])]
        self._line += ["--login", login, "--method", method] if login else []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it listens."""
        self.process = subprocess.Popen(self._line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """May be called twice."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def long_clip(folder: Path, codec: str, seconds: float) -> Path:
    """Write two seconds of the demo clip again and again, as a file for ``GstCamera``; returns it.

    Args:
        folder: Where.
        codec: "h264", "h265" or "mjpeg".
        seconds: How long it is at least.
    """
    path = folder / f"{codec}.mov"
    encoder, options, pixels = _ENCODERS[codec]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt, stream.time_base = pixels, Fraction(1, RATE)
        pictures = [av.VideoFrame.from_ndarray(image, format="bgr24") for image in demo_frames(2 * RATE)]
        stream.width, stream.height = pictures[0].width, pictures[0].height
        parts = [bytes(packet) for picture in [*pictures, None] for packet in stream.encode(picture)]
        assert len(parts) == len(pictures)
        for number in range(round(seconds / 2 + 0.5) * len(parts)):
            packet = av.Packet(parts[number % len(parts)])
            packet.pts = packet.dts = number
            packet.stream, packet.time_base = stream, Fraction(1, RATE)  # the header has changed that of the stream
            packet.is_keyframe = codec == "mjpeg" or number % len(parts) == 0
            out.mux(packet)
    return path
