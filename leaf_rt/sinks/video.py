"""Annotated video: H.264 in a fragmented MP4, which can be played even if the process is killed.

Does not know how faces are drawn, threads or clocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from leaf_rt.errors import LeafError, OutputError
from leaf_rt.sinks.audio import Soundtrack
from leaf_rt.system.closing import Closing
from leaf_rt.system.files import output_error
from leaf_rt.system.result_file import ResultFile
from leaf_rt.types import U8, Estimates, Frame, SourceInfo

Draw: TypeAlias = Callable[[U8, Estimates, Sequence[str]], U8]

TIME_BASE = Fraction(1, 90000)
FRAGMENT = 1.0  # s of video that is lost at most if the process is killed, besides a few frames in the encoder

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # the application decides where log lines go
av.logging.set_level(None)


class VideoSink(Closing):
    """Writes the annotated frames of one source with their original timestamps; see ``Sink``.

    If frames were dropped, the frame before them is shown longer, so the speed stays right. The sound of a file is
    copied. A frame whose size differs from the first one is fitted into the size of the first one.

    Args:
        target: The .mp4 file to write, or a result; whoever opened a result completes it after ``close``.
        labels: Class names in the order of the model, passed to ``draw``.
        draw: Returns the annotated image. It gets a copy of the frame and may draw on it.
        codec: FFmpeg name of the encoder.
        sound: Whether to copy the sound of a file.

    Attributes:
        draw_time: Seconds that drawing the newest frame took.

    Raises:
        OutputError, NoPermission: The file cannot be created, or another process writes it.
    """

    wants_image = True

    def __init__(
        self,
        target: Path | ResultFile,
        labels: Sequence[str],
        draw: Draw,
        codec: str = "libx264",
        sound: bool = True,
    ) -> None:
        self.name = target.name if isinstance(target, ResultFile) else str(target)
        self.draw_time = 0.0
        self._labels = tuple(labels)
        self._draw = draw
        self._codec = codec
        self._keep_sound = sound
        self._sound: Soundtrack | None = None
        self._stream: VideoStream | None = None
        self._size = (0, 0)  # width, height
        self._first = self._end = self._key = 0.0  # s, media time
        self._pts = -1
        self._encode_failure = f"the encoder {codec} rejects the frames"
        if codec not in av.codecs_available:
            raise OutputError(f"{self.name}: this FFmpeg has no encoder {codec}; omit the video with --no-save-video")
        self._is_ours = not isinstance(target, ResultFile)
        self._result = target if isinstance(target, ResultFile) else ResultFile(target)
        self._writer = _Writer(self._result.fd)
        container = av.open(self._writer, "w", format="mp4", options=_container_options())
        if not isinstance(container, OutputContainer):
            raise TypeError(f"av.open: wanted an OutputContainer, got {type(container).__name__}")
        self._container: OutputContainer | None = container

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Draw and encode one frame."""
        container = self._container
        if container is None:
            raise ValueError(f"{self.name}: write after close")
        start = time.perf_counter()
        image = self._draw(frame.image.copy(), estimates, self._labels)
        self.draw_time = time.perf_counter() - start
        if self._stream is None:
            with self._reported(self._encode_failure):
                self._stream = self._begin(container, source, frame, image)
        with self._reported(self._encode_failure):
            packets = self._encode(self._stream, image, frame.timestamp, source.fps)
        with self._reported():
            container.mux(packets)
            self._copy_sound(container, frame.timestamp)

    def close(self) -> None:
        """Complete the file. A video without frames is removed."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            if self._stream is None:
                container.close()
                self._result.discard()
            elif self._result.failed:
                with contextlib.suppress(av.error.FFmpegError, OSError):  # reported when it happened
                    container.close()
            else:
                with self._reported(self._encode_failure):
                    packets = self._stream.encode(None)
                with self._reported():
                    container.mux(packets)
                    self._copy_sound(container, self._end, last=True)
                    container.close()
                    if self._writer.error is not None:
                        raise self._writer.error
        finally:
            if self._sound is not None:
                self._sound.close()
            if self._is_ours and not self._result.failed:
                self._result.complete()
            elif self._is_ours:
                self._result.close()

    def _begin(self, container: OutputContainer, source: SourceInfo, frame: Frame, image: U8) -> VideoStream:
        """Create the streams for the size of the first frame."""
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # the color planes have half the size, so it must be even
        rate = Fraction(source.fps or 25.0).limit_denominator(1001)
        # No B frames and a short look-ahead, so that frames are written soon.
        options = {"preset": "veryfast", "crf": "23", "bf": "0", "rc-lookahead": "10", "forced-idr": "1", "g": "100000"}
        stream = container.add_stream(self._codec, rate=rate, options=options if self._codec == "libx264" else {})
        if not isinstance(stream, VideoStream):
            raise OutputError(f"{self.name}: {self._codec} is not a video encoder; choose another one")
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        self._first = frame.timestamp
        self._key = float("-inf")
        if self._keep_sound and source.has_audio and source.path is not None and not source.is_live:
            try:
                self._sound = Soundtrack(source.path, container, frame.timestamp)
            except (LeafError, av.error.FFmpegError, OSError, ValueError) as e:
                _log.warning("%s: the sound cannot be copied (%s)", source.name, e)
        return stream

    def _copy_sound(self, container: OutputContainer, until: float, last: bool = False) -> None:
        """Copy the sound up to the media time ``until``, s. If it fails, only the sound ends."""
        sound = self._sound
        if sound is None:
            return
        try:
            if last:
                sound.finish(container, until)
            else:
                sound.advance(container, until)
        except (av.error.FFmpegError, ValueError) as e:
            if isinstance(e, OSError):  # for example a full disk: the video fails as well
                raise
            _log.warning("%s: the sound ends early (%s)", self.name, e)
            self._sound = None
            sound.close()
        else:
            if last and sound.skipped:
                _log.warning(
                    "%s: skipped %d parts of the sound with decreasing timestamps",
                    self.name,
                    sound.skipped,
                )

    def _encode(self, stream: VideoStream, image: U8, timestamp: float, fps: float | None) -> list[Packet[VideoStream]]:
        picture = VideoFrame.from_numpy_buffer(letterbox(image, *self._size), format="bgr24")  # without a copy
        self._pts = max(round((timestamp - self._first) / TIME_BASE), self._pts + 1)
        picture.pts, picture.time_base = self._pts, TIME_BASE
        picture.duration = round(1.0 / (fps or 25.0) / TIME_BASE)
        self._end = timestamp + 1.0 / (fps or 25.0)
        if timestamp - self._key >= FRAGMENT:
            picture.pict_type = PictureType.I
            self._key = timestamp
        return stream.encode(picture)

    @contextlib.contextmanager
    def _reported(self, failure: str = "the video cannot be written") -> Iterator[None]:
        """Convert FFmpeg's errors to ours. ``failure`` says what did not work."""
        try:
            yield
        except OSError as e:
            self._result.failed = True
            raise output_error(self.name, e) from e
        except (av.error.FFmpegError, ValueError) as e:
            self._result.failed = True
            raise OutputError(f"{self.name}: {failure} ({e})") from e


class _Writer:
    """The file for FFmpeg, which may forget an error of a write that came after a flush: a full disk at the end.

    Attributes:
        error: The first error of a write.
    """

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self._fd = fd

    def write(self, data: bytes) -> int:
        """Append bytes; nothing more after an error."""
        if self.error is not None:
            raise self.error
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as e:
            self.error = e
            raise
        return done


def letterbox(image: U8, width: int, height: int) -> U8:
    """Fit an image into a size, with black borders and without distortion. Returns (height, width, 3) uint8."""
    h, w = image.shape[:2]
    if (w, h) == (width, height):
        return np.ascontiguousarray(image)
    out = np.zeros((height, width, 3), np.uint8)
    if width - w in (0, 1) and height - h in (0, 1):  # the first size made even: repeat the border
        return np.asarray(cv2.copyMakeBorder(image, 0, height - h, 0, width - w, cv2.BORDER_REPLICATE), np.uint8)
    scale = min(width / w, height / h)
    new_w, new_h = max(round(w * scale), 1), max(round(h * scale), 1)
    x, y = (width - new_w) // 2, (height - new_h) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out[y : y + new_h, x : x + new_w] = cv2.resize(image, (new_w, new_h), interpolation=method)
    return out


def _container_options() -> dict[str, str]:
    return {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
