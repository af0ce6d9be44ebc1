"""FFmpeg through PyAV: the functions that video files and network streams share."""

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

# FFmpeg would write log lines to the terminal. All that matters is raised as an error as well.
av.logging.set_level(None)

_ATTACHED_PIC = 0x0400  # disposition of a cover image, which is not a video


def open_container(target: str, options: dict[str, str], timeout: tuple[float, float] | None = None) -> InputContainer:
    """Open a file or an address for reading. Raises what PyAV raises."""
    container = av.open(target, mode="r", options=options, timeout=timeout, metadata_errors="replace")
    if not isinstance(container, InputContainer):
        raise TypeError(f"av.open: wanted an InputContainer, got {type(container).__name__}")
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream, or None."""
    for stream in container.streams.video:
        if not int(stream.disposition) & _ATTACHED_PIC:
            return stream
    return None


def decoder_name(stream: VideoStream) -> str:
    """Return the codec and the decoder, for messages."""
    return f"{stream.codec_context.name} (FFmpeg)"


def use_threads(stream: VideoStream) -> None:
    """Use frame threads for large images only.

    At 640x360 they are slower (1.15 instead of 0.78 ms per frame), and they delay a few frames.
    """
    stream.thread_type = "AUTO" if stream.codec_context.width > 1280 else "SLICE"


def to_bgr(frame: VideoFrame, mirror: bool = False) -> U8:
    """Convert a frame of any pixel format to 8-bit BGR, and apply the rotation that the file specifies.

    Args:
        frame: A decoded frame.
        mirror: Whether to swap left and right.

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
    """Return FFmpeg's message without the address, which may contain a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
