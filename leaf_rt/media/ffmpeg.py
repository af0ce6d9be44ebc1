"""FFmpeg through PyAV: the pieces that files and network streams share.

Knows PyAV's containers, frames and errors; must not know options of ours, threads or reconnecting.
"""

from __future__ import annotations

from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from leaf_rt.types import U8

# FFmpeg's own log lines would run into the terminal; what matters comes as errors, which we put into words.
av.logging.set_level(None)

# AttachedPic marks the cover of a song: a video stream by name only.
_ATTACHED_PIC = 0x0400


def open_container(target: str, options: dict[str, str], timeout: tuple[float, float] | None = None) -> InputContainer:
    """Open for reading; raises what PyAV raises."""
    container = av.open(target, mode="r", options=options, timeout=timeout, metadata_errors="replace")
    if not isinstance(container, InputContainer):
        raise TypeError(f"av.open: wanted an InputContainer, got {type(container).__name__}")
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures, or None."""
    for stream in container.streams.video:
        if not int(stream.disposition) & _ATTACHED_PIC:
            return stream
    return None


def decoder_name(stream: VideoStream) -> str:
    """For people: codec and who decodes it."""
    return f"{stream.codec_context.name} (FFmpeg)"


def use_threads(stream: VideoStream) -> None:
    """Frame threads only where a picture is large.

    On 640x360 they cost more than they give (1.15 ms a frame against 0.78), and they hold back a few frames.
    """
    stream.thread_type = "AUTO" if stream.codec_context.width > 1280 else "SLICE"


def to_bgr(frame: VideoFrame, mirror: bool = False) -> U8:
    """The picture as it is meant to be seen.

    Any pixel format and depth becomes 8 bit BGR; the rotation that the file asks for is applied.

    Args:
        frame: A decoded frame.
        mirror: Swap left and right.

    Returns:
        (H, W, 3) uint8, contiguous.
    """
    image: Any = frame.to_ndarray(format="bgr24")
    turns = round(frame.rotation / 90) % 4
    if turns:
        image = np.rot90(image, turns)
    if mirror:
        image = image[:, ::-1]
    return np.ascontiguousarray(image, dtype=np.uint8)


def reason(error: Exception) -> str:
    """What FFmpeg says, without the address, in which a password may stand."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
