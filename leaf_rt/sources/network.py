"""Network streams (RTSP, HTTP and what else FFmpeg speaks): one connection, until it ends.

Knows PyAV through ``leaf_rt.media.ffmpeg``; reconnecting, watching and straightening of times belong to
``leaf_rt.stream``. No error carries the address it was given, for a password may stand in it.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import av.error
from av.video.frame import VideoFrame

from leaf_rt.errors import AuthError, CodecError, ConnectionLost, LeafError, NoFrames, NotAVideo, NotFound, TimedOut
from leaf_rt.media import ffmpeg
from leaf_rt.sources.base import Selector, SourceInfo, SourceOptions, network_name, redact
from leaf_rt.system.closing import Closing
from leaf_rt.types import Frame


class NetworkSource(Closing):
    """One connection to a stream; see ``Source``. Opening waits for the first frame.

    Args:
        target: The address, with user and password if need be.
        options: See ``SourceOptions``.
        clock: s, monotonic; gives the times of streams that carry none.

    Raises:
        AuthError, NotFound, ConnectionLost, TimedOut, NotAVideo, CodecError, NoFrames: Why it does not open.
    """

    def __init__(self, target: str, options: SourceOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.warnings: list[str] = []
        self.decode_time: float | None = 0.0
        self._options = options
        self._clock = clock
        self._decoding = 0.0  # s spent in the decoder since the newest frame
        self._shown = redact(target)
        self._began = clock()
        try:
            timeout = (options.open_timeout, options.read_timeout)
            self._container = ffmpeg.open_container(target, _ffmpeg_options(target, options), timeout)
        except (av.error.FFmpegError, OSError, ValueError) as e:
            raise self._refused(e, target) from None  # the cause's text holds the password
        try:
            stream = ffmpeg.video_stream(self._container)
            if stream is None:
                raise NotAVideo(f"{self._shown}: carries no pictures; check the path of the stream")
            if getattr(stream, "codec_context", None) is None:
                raise CodecError(f"{self._shown}: this FFmpeg has no decoder for it; set the camera to H.264")
            stream.thread_type = "SLICE"  # frame threads hold frames back
            self._stream = stream
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise NoFrames(f"{self._shown}: opens but sends no frame; check the camera's stream settings")
        except BaseException:
            self._container.close()
            raise
        self._first: VideoFrame | None = first
        fps = float(stream.average_rate) if stream.average_rate else None
        # A film on a web server has an end. An RTSP server may name one too, but it sets the pace like a camera.
        films = target.lower().startswith(("http:", "https:")) and self._container.duration is not None
        duration = (self._container.duration or 0) / 1e6 if films else None
        turned = round(first.rotation / 90) % 2 == 1
        self.info = SourceInfo(
            name=options.name or network_name(target),
            target=self._shown,
            kind="network",
            width=first.height if turned else first.width,
            height=first.width if turned else first.height,
            fps=fps if fps is not None and 0 < fps < 1000 else None,
            duration=duration,
            is_live=duration is None or options.realtime,
            decoder=ffmpeg.decoder_name(stream),
            has_audio=bool(self._container.streams.audio),
        )

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the connection ends; a server that goes away may look like an orderly end.

        Raises:
            ConnectionLost, TimedOut: The connection broke.
        """
        selector = Selector(self._options)
        opened = self._clock()
        # Motion JPEG over HTTP carries no times; FFmpeg counts frames at 25 per second instead.
        timed = self._container.format.name != "mpjpeg"
        index = 0
        while True:
            first, self._first = self._first, None
            picture = first if first is not None else next(self._frames, None)
            if picture is None:
                return
            now = self._clock() - opened
            base = picture.time_base
            timestamp = float(picture.pts * base) if timed and picture.pts is not None and base is not None else now
            if not self.info.is_live and self._options.end is not None and timestamp >= self._options.end:
                return
            if (self.info.is_live or timestamp >= self._options.start) and selector.wants(index, timestamp):
                start = self._clock()
                image = ffmpeg.to_bgr(picture, self._options.mirror)
                self.decode_time = self._decoding + self._clock() - start
                self._decoding = 0.0
                yield Frame(image, index, timestamp, self.info.name)
            index += 1

    def close(self) -> None:
        """Hang up; may be called twice."""
        self._container.close()

    def _decode(self) -> Iterator[VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                start = self._clock()
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue  # a packet was lost on the way; the next key frame mends the picture
                self._decoding += self._clock() - start
                yield from frames
        except (av.error.FFmpegError, OSError) as e:
            if isinstance(e, TimeoutError | av.error.ExitError):
                text = f"{self._shown}: sent nothing for {self._options.read_timeout:g} s"
                raise TimedOut(text) from None
            raise ConnectionLost(f"{self._shown}: the connection broke ({ffmpeg.reason(e)})") from None

    def _refused(self, error: Exception, target: str) -> LeafError:
        shown = self._shown
        unfit = _unfit(shown, error)
        if unfit:
            return ConnectionLost(f"{shown}: {unfit}")
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return AuthError(f"{shown}: refuses the user or the password; write them as rtsp://user:password@host/path")
        if isinstance(error, av.error.HTTPNotFoundError):
            return NotFound(f"{shown}: the server knows no such stream; check the path after the host")
        if isinstance(error, ConnectionRefusedError):
            return ConnectionLost(f"{shown}: nothing listens there; check host and port, and that the camera is on")
        if target.lower().startswith(("rtsps:", "https:")):
            return ConnectionLost(
                f"{shown}: no secure connection ({ffmpeg.reason(error)}); does the camera speak TLS on this port?"
            )
        rtsp = target.lower().startswith("rtsp")
        if rtsp and isinstance(error, OSError) and error.errno == errno.EPROTONOSUPPORT:
            given = self._options.rtsp_transport
            other = "udp" if given == "tcp" else "tcp"
            return ConnectionLost(f"{shown}: does not send over {given}; try --rtsp-transport {other}")
        late = rtsp and self._clock() - self._began >= 0.95 * min(
            self._options.open_timeout, self._options.read_timeout
        )
        if late or isinstance(error, TimeoutError | av.error.ExitError):  # FFmpeg calls an RTSP time-out bad data
            return TimedOut(f"{shown}: gave no answer within {self._options.open_timeout:g} s; check host and network")
        if isinstance(error, av.error.ProtocolNotFoundError):
            return NotAVideo(f"{shown}: this kind of address is unknown; use rtsp://, rtsps://, http:// or https://")
        why = ffmpeg.reason(error)
        if isinstance(error, av.error.InvalidDataError) and rtsp:
            return ConnectionLost(
                f"{shown}: hangs up or does not speak RTSP; check host, port and the camera's settings"
            )
        if isinstance(error, av.error.InvalidDataError):
            return NotAVideo(f"{shown}: answers, but not with a video stream ({why}); check scheme, port and path")
        return ConnectionLost(f"{shown}: cannot be reached ({why}); check host, port and network")


def _unfit(shown: str, error: Exception) -> str:
    """What is wrong with the host or the port of an address that did not open, of which FFmpeg says little; or ""."""
    parts = urlsplit(shown)
    if parts.scheme not in ("rtsp", "rtsps", "http", "https"):  # others may listen instead of calling a host
        return ""
    if not parts.hostname:
        return f"names no host; write it as {parts.scheme}://host/path"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "the port is no number from 1 to 65535; leave it out for the usual one"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        try:
            socket.getaddrinfo(parts.hostname, None)
        except (OSError, UnicodeError):
            return "no host of that name is known; check the name, and that this machine is on the network"
    return ""


def _ffmpeg_options(target: str, options: SourceOptions) -> dict[str, str]:
    if target.lower().startswith(("rtsp:", "rtsps:")):
        # Without these the first frame is a second old before it is seen; with them, one frame.
        return {
            "rtsp_transport": options.rtsp_transport,
            "fflags": "nobuffer",
            "analyzeduration": "200000",
            "fpsprobesize": "2",
        }
    return {}  # "nobuffer" would throw away the first frames of a film
