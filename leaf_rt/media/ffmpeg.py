"""FFmpeg through PyAV: the functions that video files and network streams share."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from leaf_rt.credentials import mask_in
from leaf_rt.types import U8, LazyImage

# FFmpeg tells only in its log that it had to guess parts of a picture. Errors reach ``decode``; nothing is printed.
av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)  # two pictures may have the same damage
_libav = logging.getLogger("libav")
_libav.addHandler(logging.NullHandler())
_libav.propagate = False

# What the parts of a file, or of a stream, may be read from. FFmpeg follows playlists and redirects: those of a server
# must not reach the files of this machine, and those in a file must not reach the network.
_FROM_FILE = "file,crypto,data"
_FROM_NETWORK = "http,https,httpproxy,tls,tcp,udp,rtp,srtp,rtsp,rtsps,rtmp,rtmps,srt,crypto,data"
# For the address of a stranger: its server leads nowhere else. Playlists are no such format.
OF_STRANGERS = {
    "max_redirects": "0",
    "protocol_whitelist": "http,https,httpproxy,tls,tcp",
    "format_whitelist": "rtsp,mpjpeg,mjpeg,jpeg_pipe,png_pipe,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,"
    "mpegvideo,flv,live_flv,asf,ogg,h264,hevc,m4v",
}

# The layout of NVDEC, and that of the same picture from a CPU. FFmpeg converts the former to BGR in another way: up to
# 9 of 255 lie between them in the demo clip. Reordered first, the picture is the same, bit by bit.
_NVDEC, _CPU = "nv12", "yuv420p"
_LOST = re.compile(r"RTP: missed -?\d+ packets")
_ATTACHED_PIC = 0x0400  # disposition of a cover image, which is not a video


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is accepted of a stranger's file.

    Attributes:
        formats: Names of FFmpeg's formats, with commas. Others, such as playlists, name further files and addresses.
        pixels: Of a picture; larger ones are not decoded.
    """

    formats: str
    pixels: int


def open_container(
    target: str,
    options: dict[str, str],
    timeout: tuple[float, float] | None = None,
    bounds: Bounds | None = None,
    hardware: HWAccel | None = None,
) -> InputContainer:
    """Open an address, or a file as "file:PATH", for reading. Raises what PyAV raises.

    Args:
        target: What to open.
        options: For FFmpeg. ``OF_STRANGERS`` goes here too.
        timeout: s to open, and s between two reads.
        bounds: What is accepted of a stranger's file.
        hardware: What decodes the video; None is the CPU. See ``nvdec.accelerator``.
    """
    allowed = _FROM_FILE if target.startswith("file:") else _FROM_NETWORK
    options = {"protocol_whitelist": allowed, **options}
    if bounds is not None:  # PyAV passes the options on to the decoders that look for the size
        options |= {"protocol_whitelist": "file", "format_whitelist": bounds.formats, "max_pixels": str(bounds.pixels)}
    container = av.open(target, mode="r", options=options, timeout=timeout, metadata_errors="replace", hwaccel=hardware)
    if not isinstance(container, InputContainer):
        raise TypeError(f"av.open: wanted an InputContainer, got {type(container).__name__}")
    if bounds is not None:
        for stream in container.streams.video:
            if getattr(stream, "codec_context", None) is not None:
                stream.codec_context.options = {"max_pixels": str(bounds.pixels)}
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream, or None."""
    for stream in container.streams.video:
        if not int(stream.disposition) & _ATTACHED_PIC:
            return stream
    return None


def decoder_name(stream: VideoStream) -> str:
    """Return the codec and the decoder, for messages."""
    context = stream.codec_context
    return f"{context.name} ({'NVDEC' if context.is_hwaccel else 'FFmpeg'})"


def use_threads(stream: VideoStream, *, is_live: bool = False, most: int = 0) -> None:
    """Use frame threads for large images only.

    At 640x360 they are slower (1.15 instead of 0.78 ms per frame), and they delay a few frames.

    Args:
        stream: The stream.
        is_live: Whether other sources may run beside this one. Each then gets one thread, or two for images that one
            thread cannot decode in time.
        most: Largest number of threads; 0 lets FFmpeg choose.
    """
    width = stream.codec_context.width
    stream.thread_type = "AUTO" if width > 1280 else "SLICE"
    if is_live:
        stream.thread_count = 2 if width > 1920 else 1
    elif most > 0:
        stream.thread_count = most


def close(container: InputContainer, stream: VideoStream | None) -> None:
    """Close a container. Safe to call twice."""
    context = getattr(stream, "codec_context", None)
    if context is not None and context.is_open:
        # Waits for the decoder's threads without the lock of the interpreter, which they need for their error messages.
        context.flush_buffers()
    container.close()


def watch_losses() -> None:
    """Let ``packets`` see lost packets of RTP, from now on: FFmpeg tells of them in warnings only."""
    av.logging.set_level(av.logging.WARNING)


def packets(container: InputContainer, stream: VideoStream) -> Iterator[tuple[Packet[VideoStream], bool]]:
    """Yield the packets of a stream, and whether others before it were lost on the way."""
    found = container.demux(stream)
    while True:
        with av.logging.Capture() as notes:
            packet = next(found, None)
        if packet is None:
            return
        yield packet, any(_LOST.search(text) for _, _, text in notes)


def decode(packet: Packet[VideoStream]) -> tuple[list[VideoFrame], bool]:
    """Decode a packet.

    Returns:
        The frames, and whether the data was damaged. A damaged picture may be among them, with parts that were guessed.

    Raises:
        FFmpegError: Other than for damaged data.
    """
    with av.logging.Capture() as errors:
        try:
            frames = list(packet.decode())
        except av.error.InvalidDataError:
            return [], True
    return frames, any(level <= av.logging.ERROR for level, _, _ in errors) or any(frame.is_corrupt for frame in frames)


def quarter_turns(frame: VideoFrame) -> int:
    """Quarter turns to the left, 0 to 3, by which the file wants the picture to be turned."""
    degrees = frame.rotation
    return round(degrees / 90) % 4 if abs(degrees) <= 360 else 0  # a matrix of zeros gives a number without meaning


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of a picture after its rotation, px."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)


class Converter:
    """Converts the pictures of one stream to BGR. May be used from several threads.

    It keeps FFmpeg's tables from picture to picture: making them anew takes three times as long as converting a picture
    of 640x360.
    """

    def __init__(self) -> None:
        self._reorder, self._reformatter = VideoReformatter(), VideoReformatter()
        self._lock = threading.Lock()

    def later(self, frame: VideoFrame, mirror: bool = False) -> LazyImage:
        """Convert a frame when its picture is first needed; arguments as for ``to_bgr``."""
        return LazyImage(functools.partial(self.to_bgr, frame, mirror))

    def to_bgr(self, frame: VideoFrame, mirror: bool = False) -> U8:
        """Convert a frame of any pixel format to 8-bit BGR, and apply the rotation that the file specifies.

        Args:
            frame: A decoded frame.
            mirror: Whether to swap left and right.

        Returns:
            (H, W, 3) uint8, contiguous. FFmpeg's own memory without a copy, where that has no gaps between the rows.
        """
        with self._lock:
            reorder = frame.format.name == _NVDEC
            ordered = self._reorder.reformat(frame, format=_CPU, threads=1) if reorder else frame
            converted = self._reformatter.reformat(ordered, format="bgr24", threads=1)
        plane = converted.planes[0]
        size, strides = (converted.height, converted.width, 3), (plane.line_size, 3, 1)
        if plane.line_size >= 3 * converted.width:
            image: Any = np.ndarray(size, np.uint8, buffer=plane, strides=strides)  # type: ignore[arg-type]
        else:  # stored upside down
            image = converted.to_ndarray()
        turns = quarter_turns(frame)
        if turns:
            image = np.rot90(image, turns)
        if mirror:
            image = image[:, ::-1]
        return np.ascontiguousarray(image, dtype=np.uint8)


def reason(error: Exception) -> str:
    """Return FFmpeg's message without the address, which may contain a password."""
    text = str(getattr(error, "strerror", None) or type(error).__name__)
    return mask_in(text, [str(getattr(error, "filename", None) or "")])
