"""Network streams over RTSP, HTTP and the other protocols of FFmpeg: one connection, until it ends.

Reconnects, timeouts between frames and the correction of timestamps belong to ``leaf_rt.stream``. No error contains
the original address, because it may contain a password.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from leaf_rt.errors import AuthError, CodecError, ConnectionLost, LeafError, NoFrames, NotAVideo, NotFound, TimedOut
from leaf_rt.media import ffmpeg, nvdec
from leaf_rt.sources.address import parse
from leaf_rt.sources.base import Decoding, Selector, SourceOptions
from leaf_rt.sources.decoding import PacketDecoder
from leaf_rt.sources.rtsp_relay import RtspRelay
from leaf_rt.sources.timeline import RtpClock, Timeline
from leaf_rt.system.closing import Closing
from leaf_rt.types import Frame, SourceInfo


class NetworkSource(Closing):
    """One connection to a stream; see ``Source``. Opening waits for the first frame.

    Args:
        target: The URL, with user and password if necessary.
        options: How to read it.
        clock: Monotonic clock, s. It gives the timestamps of streams that have none.

    Raises:
        AuthError, NotFound, ConnectionLost, TimedOut, NotAVideo, CodecError, NoFrames: It cannot be opened.
        DecoderUnavailable: NVDEC is asked for and cannot be used.
    """

    def __init__(self, target: str, options: SourceOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.warnings: list[str] = []
        self.decode_time: float | None = 0.0
        self.damaged = 0
        self.decoding = Decoding()
        self._converter = ffmpeg.Converter()
        self._options = options
        self._clock = clock
        self._decode_seconds = 0.0  # since the newest frame
        hardware = nvdec.accelerator() if options.decode == "nvdec" else None
        address = parse(target)
        self._address = address.shown
        self._opening_since = clock()
        self._relay: RtspRelay | None = None
        try:
            if _is_rtsp(target) and options.rtsp_transport == "udp":
                ffmpeg.watch_losses()
            timeout = (options.open_timeout, options.read_timeout)
            opened = target
            if not options.redirects and _is_rtsp(target):
                self._relay = RtspRelay(target, options.open_timeout)
                opened = self._relay.address
            self._container = ffmpeg.open_container(opened, _ffmpeg_options(target, options), timeout, None, hardware)
        except (av.error.FFmpegError, OSError, ValueError) as e:
            self._end_relay()
            raise self._open_error(e, target) from None  # the message of the cause contains the password
        self._stream: VideoStream | None = None
        self._start_time = (self._container.start_time or 0) / 1e6
        try:
            stream = ffmpeg.video_stream(self._container)
            if stream is None:
                raise NotAVideo(f"{self._address}: has no video; check the path of the stream")
            if getattr(stream, "codec_context", None) is None:
                raise CodecError(f"{self._address}: this FFmpeg has no decoder for its video; set the camera to H.264")
            stream.codec_context.thread_count = 1  # more threads delay frames, and hide which picture was damaged
            self._stream = stream
            self._frames = self._decode(stream)
            first = next(self._frames, None)
            if first is None:
                raise NoFrames(f"{self._address}: opens but sends no frame; check the stream settings of the camera")
            if hardware is not None:
                nvdec.check_use(stream, self._address)
        except BaseException:
            self.close()
            raise
        first_picture, _ = first
        self._first: tuple[VideoFrame, int] | None = first
        fps = float(stream.average_rate) if stream.average_rate else None
        # A video file on a web server has an end. An RTSP server may state a duration too, but sends at its own pace.
        is_file = target.lower().startswith(("http:", "https:")) and self._container.duration is not None
        duration = (self._container.duration or 0) / 1e6 if is_file else None
        width, height = ffmpeg.shown_size(first_picture)
        self.info = SourceInfo(
            name=options.name or address.name,
            target=self._address,
            kind="network",
            width=width,
            height=height,
            fps=fps if fps is not None and 0 < fps < 1000 else None,
            duration=duration,
            is_live=duration is None or options.realtime,
            decoder=ffmpeg.decoder_name(stream),
            has_audio=bool(self._container.streams.audio),
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the connection ends. A server that fails may look like a regular end.

        Raises:
            ConnectionLost, TimedOut: The connection broke.
        """
        selector = Selector(self._options)
        opened = self._clock()
        # Motion JPEG over HTTP has no timestamps; FFmpeg makes them up at 25 frames per second.
        has_timestamps = self._container.format.name != "mpjpeg"
        rtp = RtpClock() if self._container.format.name in ("rtsp", "rtp", "sdp") else None
        index = 0
        timeline = Timeline(1.0 / (self.info.fps or 25.0))
        while True:
            first, self._first = self._first, None
            decoded = first if first is not None else next(self._frames, None)
            if decoded is None:
                return
            picture, left_out = decoded
            index += left_out
            now = self._clock() - opened
            ticks, base = picture.pts, picture.time_base
            if rtp is not None and ticks is not None:
                ticks = rtp.ticks(ticks)
            timestamp = float(ticks * base) if has_timestamps and ticks is not None and base is not None else now
            if not self.info.is_live:  # ``leaf_rt.stream`` corrects live sources
                timestamp = timeline.media_time(timestamp - self._start_time)
                if self._options.end is not None and timestamp >= self._options.end:
                    return
            if (self.info.is_live or timestamp >= self._options.start) and selector.selects(index, timestamp):
                image = self._converter.later(picture, self._options.mirror)
                self.decode_time, self._decode_seconds = self._decode_seconds, 0.0
                yield Frame(image, index, timestamp, self.info.name, generation=timeline.jumps)
            index += 1

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        ffmpeg.close(self._container, self._stream)
        self._end_relay()

    def _end_relay(self) -> None:
        if self._relay is not None:
            self._relay.close()

    def _decode(self, stream: VideoStream) -> Iterator[tuple[VideoFrame, int]]:
        """Decode the stream; with each picture comes the number of those that were left out before it."""
        has_frame = False
        decoder = PacketDecoder(stream, self.decoding)
        try:
            for packet, incomplete in ffmpeg.packets(self._container, stream):
                start = self._clock()
                frames, damaged = decoder.decode(packet)  # the next key frame repairs a damaged picture
                self._decode_seconds += self._clock() - start
                self.damaged += (damaged or incomplete) and has_frame  # a stream may start between two key frames
                has_frame |= bool(frames)
                yield from frames
        except (av.error.FFmpegError, OSError) as e:
            if self._relay is not None and self._relay.problem:
                raise ConnectionLost(f"{self._address}: {self._relay.problem}") from None
            if isinstance(e, TimeoutError | av.error.ExitError):
                text = f"{self._address}: sent nothing for {self._options.read_timeout:g} s"
                raise TimedOut(text) from None
            raise ConnectionLost(f"{self._address}: the connection broke ({ffmpeg.reason(e)})") from None

    def _open_error(self, error: Exception, target: str) -> LeafError:
        address = self._address
        problem = (self._relay.problem if self._relay is not None else "") or _address_problem(address, error)
        if problem:
            return ConnectionLost(f"{address}: {problem}")
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return AuthError(
                f"{address}: the server rejects the user or the password; write them as rtsp://user:password@host/path"
            )
        if isinstance(error, av.error.HTTPNotFoundError):
            return NotFound(f"{address}: the server has no such stream; check the path after the host")
        if isinstance(error, ConnectionRefusedError):
            return ConnectionLost(f"{address}: connection refused; check host and port, and that the camera is on")
        if target.lower().startswith(("rtsps:", "https:")):
            return ConnectionLost(
                f"{address}: no secure connection ({ffmpeg.reason(error)}); check that the server uses TLS on this port"
            )
        rtsp = _is_rtsp(target)
        if rtsp and isinstance(error, OSError) and error.errno == errno.EPROTONOSUPPORT:
            transport = self._options.rtsp_transport
            other = "udp" if transport == "tcp" else "tcp"
            return ConnectionLost(f"{address}: does not send over {transport}; try --rtsp-transport {other}")
        # FFmpeg reports an RTSP timeout as invalid data.
        timeout = min(self._options.open_timeout, self._options.read_timeout)
        rtsp_timed_out = rtsp and self._clock() - self._opening_since >= 0.95 * timeout
        if rtsp_timed_out or isinstance(error, TimeoutError | av.error.ExitError):
            return TimedOut(f"{address}: no answer within {self._options.open_timeout:g} s; check host and network")
        if isinstance(error, av.error.ProtocolNotFoundError):
            return NotAVideo(
                f"{address}: this FFmpeg cannot read such addresses; use rtsp://, rtsps://, http:// or https://"
            )
        reason = ffmpeg.reason(error)
        if isinstance(error, av.error.InvalidDataError) and rtsp:
            return ConnectionLost(
                f"{address}: closes the connection or is no RTSP server; check host, port and camera settings"
            )
        if isinstance(error, av.error.InvalidDataError) and not self._options.redirects:
            return NotAVideo(f"{address}: the server sends no video; a playlist is read only if the operator names it")
        if isinstance(error, av.error.InvalidDataError):
            return NotAVideo(f"{address}: the server sends no video, maybe a web page; check scheme, port and path")
        http, code = target.startswith("http"), getattr(error, "errno", None)
        if http and isinstance(error, av.error.HTTPError):
            return ConnectionLost(f"{address}: {reason[:1].lower()}{reason[1:]}; check the path and the server")
        if http and code in (errno.EPERM, errno.EINVAL):
            return NotAVideo(f"{address}: the server names a file or another kind of address, which is not followed")
        if http and code == errno.EIO:
            return NotAVideo(f"{address}: the server answers, but not with a video; check scheme, port and path")
        return ConnectionLost(f"{address}: cannot be reached ({reason}); check host, port and network")


def _address_problem(address: str, error: Exception) -> str:
    """What is wrong with host or port of an address that did not open, or "". FFmpeg does not tell."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "the host is malformed; write it as scheme://host/path"
    if parts.scheme not in ("rtsp", "rtsps", "http", "https"):  # other protocols may not need a host
        return ""
    if not parts.hostname:
        return f"contains no host; write it as {parts.scheme}://host/path"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "the port is not a number from 1 to 65535; leave it out to use the default"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        try:
            socket.getaddrinfo(parts.hostname, None)
        except (OSError, UnicodeError):
            return "unknown host; check its name, and that this machine is connected to the network"
    return ""


def _is_rtsp(target: str) -> bool:
    return target.lower().startswith(("rtsp:", "rtsps:"))


def _ffmpeg_options(target: str, options: SourceOptions) -> dict[str, str]:
    strict = {} if options.redirects else ffmpeg.OF_STRANGERS
    if _is_rtsp(target):
        # Without these options the delay is a second; with them, it is one frame.
        return {
            **strict,
            "rtsp_transport": options.rtsp_transport if options.redirects else "tcp",
            "fflags": "nobuffer",
            "analyzeduration": "200000",
            "fpsprobesize": "2",
        }
    # "nobuffer" would drop the first frames of a file
    return dict(strict)
