"""Video files: every frame once, in order, with its media time.

Must not know threads or clocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from leaf_rt.credentials import mask
from leaf_rt.errors import CodecError, DecoderUnavailable, LeafError, NoFrames, NoPermission, NotAVideo, NotFound
from leaf_rt.media import ffmpeg, nvdec
from leaf_rt.media.ffmpeg import Bounds
from leaf_rt.sources.base import Decoding, Selector, SourceOptions
from leaf_rt.sources.decoding import PacketDecoder
from leaf_rt.sources.timeline import Timeline
from leaf_rt.system.closing import Closing
from leaf_rt.text import counted
from leaf_rt.types import Frame, SourceInfo

_Decoded: TypeAlias = tuple[VideoFrame, int, float, int]  # picture, index, media time, s, and jumps of time before it

_MIN_STEP = 1e-3  # s between frames whose timestamps are equal or slightly out of order


class VideoFileSource(Closing):
    """One video file; see ``Source``. Opening it decodes the first frame, so that errors appear early.

    Args:
        path: The file.
        options: How to read it.
        bounds: What is accepted of a stranger's file; None accepts everything that FFmpeg reads.

    Raises:
        NotFound, NoPermission: The file does not exist or cannot be read.
        NotAVideo: It is a folder, empty, audio only, or no media file.
        CodecError: It is damaged, or this FFmpeg has no decoder for it.
        NoFrames: It has no frame, or none after ``start``.
        DecoderUnavailable: NVDEC is asked for and cannot be used.
    """

    def __init__(self, path: Path, options: SourceOptions, bounds: Bounds | None = None) -> None:
        self.warnings: list[str] = []
        self.decode_time: float | None = None
        self._path = path
        self._options, self._bounds = options, bounds
        self.damaged = 0
        self.decoding = Decoding()
        self._converter = ffmpeg.Converter()
        self._hardware = nvdec.accelerator() if options.decode == "nvdec" else None
        self._container = _open(path, bounds, self._hardware)
        try:
            self._stream = _video(path, self._container)
            self._start_time = (self._container.start_time or 0) / 1e6
            first_index = self._seek() if options.start > 0 else 0
            self._frames = self._decode(first_index)
            first = next(self._frames, None)
            if first is None and self._hardware is not None and self.damaged:
                raise DecoderUnavailable(f"it gives no picture of {path}", "use --decode cpu")
            if first is None:
                raise self._no_frames()
            if self._hardware is not None:
                nvdec.check_use(self._stream, str(path))
        except BaseException:
            self._container.close()
            raise
        self._first: _Decoded | None = first
        self.info = self._describe(first[0])

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that the options select. Damaged data adds a warning and may end the file early."""
        selector = Selector(self._options)
        index, last, offset = -1, -1.0, 0.0
        generation = jumps = 0
        while True:
            shift: int | None = None if self._options.loop else 0  # of the numbers in this pass
            for picture, number, time, jumps in self._read_once():
                if self._options.end is not None and time >= self._options.end:
                    break
                timestamp = max(time + offset, last + _MIN_STEP) if index >= 0 else time
                shift = index + 1 - number if shift is None else shift
                index = number + shift
                last = timestamp
                if selector.selects(index, timestamp):
                    image = self._converter.later(picture, self._options.mirror)
                    yield Frame(image, index, timestamp, self.info.name, generation=generation + jumps)
            else:
                self._check_end(last - offset, jumps)
            if not self._options.loop:
                return
            offset = last + 1.0 / (self.info.fps or 25.0) - self._options.start
            generation += jumps
            self._rewind()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        ffmpeg.close(self._container, self._stream)

    def _read_once(self) -> Iterator[_Decoded]:
        """Yield the pictures from ``start`` to the end of the file."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def _rewind(self) -> None:
        self.close()
        self._container = _open(self._path, self._bounds, self._hardware)
        self._stream = _video(self._path, self._container)
        first_index = self._seek() if self._options.start > 0 else 0
        self._frames = self._decode(first_index)

    def _seek(self) -> int:
        """Go to the key frame before ``start``; returns the index of the first frame at or after ``start``.

        It counts packets. That needs no decoding and is correct for variable frame rates.
        """
        start = self._options.start
        before = 0
        with _open(self._path, self._bounds) as container:
            stream = _video(self._path, container)
            try:
                for packet in container.demux(stream):
                    if packet.dts is not None and self._media_time(packet.dts, stream) >= start:
                        break  # no later packet is shown before this time
                    before += packet.pts is not None and self._media_time(packet.pts, stream) < start - 1e-6
            except (av.error.FFmpegError, OSError):
                pass  # decoding finds the same damage and reports it
        self._container.seek(round((start + self._start_time) * 1e6), backward=True)
        return before

    def _media_time(self, ticks: int, stream: VideoStream) -> float:
        base = stream.time_base
        return float(ticks * base) - self._start_time if base is not None else 0.0

    def _decode(self, index: int) -> Iterator[_Decoded]:
        """Decode from the position of the container, without the frames before ``start``."""
        if self._hardware is None:
            ffmpeg.use_threads(self._stream, is_live=self._options.realtime, most=self._options.decoder_threads)
        else:
            self._stream.thread_count = 1  # each thread needs surfaces of its own, of which NVDEC has 32
        decoder = PacketDecoder(self._stream, self.decoding)
        period = 1.0 / float(self._stream.average_rate or 25)
        time = self._options.start - period  # s, timestamp of the file
        timeline = Timeline(period)
        try:
            for packet in self._container.demux(self._stream):
                frames, damaged = decoder.decode(packet)
                self.damaged += damaged
                for frame, left_out in frames:
                    index += left_out
                    time = self._media_time(frame.pts, self._stream) if frame.pts is not None else time + period
                    media_time = timeline.media_time(time)
                    if media_time >= self._options.start - 1e-6:
                        yield frame, index, media_time, timeline.jumps
                        index += 1
        except (av.error.FFmpegError, OSError) as e:
            self.damaged += 1
            self.warnings.append(f"{self._path}: reading stopped early ({ffmpeg.reason(e)}); the file is damaged")

    def _check_end(self, last: float, jumps: int) -> None:
        """Add one warning if the file is damaged or ends before its stated duration."""
        length = self._length()
        is_short = length is not None and jumps == 0 and last + 2.0 / (self.info.fps or 25.0) + 0.25 < length
        if self.warnings or not (is_short or self.damaged):
            return
        if is_short:
            text = f"ends after {last:.1f} s of {length:.1f} s because it was cut off"
        else:
            text = f"{counted(self.damaged, 'packet')} of it damaged"
        self.warnings.append(f"{self._path}: {text}; get a fresh copy to read the rest")

    def _length(self) -> float | None:
        """Stated duration of the video stream, s."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if self._container.duration is None:
            return None
        # Matroska states the time at which it ends; it may begin at any time, as at 23 h.
        begin = self._start_time if "matroska" in self._container.format.name else 0.0
        return self._container.duration / 1e6 - max(begin, 0.0)

    def _no_frames(self) -> LeafError:
        """The reason why the file gives no frame."""
        if self._options.start > 0 and not self.damaged:
            length = self._length()
            duration = f", the file is {length:.1f} s long" if length is not None else ""
            return NoFrames(f"{self._path}: no frame at or after --start {self._options.start:g} s{duration}")
        if self.damaged:
            name = self._stream.codec_context.name
            return CodecError(f"{self._path}: its {name} video is damaged and cannot be decoded; get a fresh copy")
        return NoFrames(f"{self._path}: its video stream has no frames; get a fresh copy")

    def _describe(self, first: VideoFrame) -> SourceInfo:
        options, stream = self._options, self._stream
        fps = float(stream.average_rate) if stream.average_rate else None
        length = self._length()
        total = stream.frames or (round(length * fps) if length is not None and fps is not None else None)
        duration = count = None
        if length is not None and not options.loop:
            duration = max(min(length, length if options.end is None else options.end) - options.start, 0.0)
            if total is not None and length > 0:
                count = -(-round(total * duration / length) // options.stride)
                if options.max_fps is not None:
                    count = min(count, round(duration * options.max_fps) + 1)
        width, height = ffmpeg.shown_size(first)
        return SourceInfo(
            name=options.name or self._path.name,
            target=str(self._path),
            kind="file",
            width=width,
            height=height,
            fps=fps,
            frame_count=count,
            duration=duration,
            is_live=options.realtime,
            decoder=ffmpeg.decoder_name(stream),
            has_audio=bool(self._container.streams.audio) and not options.loop,
            path=self._path,
            endless=options.loop,
        )


def _open(path: Path, bounds: Bounds | None, hardware: HWAccel | None = None) -> InputContainer:
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH110, PTH112, PTH113 - never raise
        raise NotAVideo(f"{path}: is a pipe or a device, not a file; write the video to a file first")
    try:
        return ffmpeg.open_container(
            f"file:{os.fspath(path)}", {}, bounds=bounds, hardware=hardware
        )  # so that "a:b.mp4" is not read as a URL
    except FileNotFoundError as e:
        if os.path.lexists(path) and not os.path.islink(path):  # noqa: PTH114 - never raise
            raise _is_list(path) from e
        raise NotFound(f"{mask(str(path))}: no such file; check the name and the folder") from e
    except IsADirectoryError as e:
        raise NotAVideo(f"{path}: is a folder; pass the video files in it") from e
    except PermissionError as e:
        if os.access(path, os.R_OK):
            raise _is_list(path) from e
        raise NoPermission(f"{path}: no permission to read it; change its permissions") from e
    except av.error.InvalidDataError as e:
        raise _not_media(path) from e
    except (av.error.FFmpegError, OSError) as e:
        if e.errno == errno.ELOOP:
            raise NotFound(f"{path}: is a symbolic link that leads back to itself; remove it") from e
        if e.errno == errno.ENAMETOOLONG:
            raise NotFound(f"{mask(str(path))}: no such file, because the name is too long") from e
        raise CodecError(f"{mask(str(path))}: cannot be opened ({ffmpeg.reason(e)}); get a fresh copy") from e


def _is_list(path: Path) -> LeafError:
    """The error for a list of other files, such as ffconcat or M3U, that FFmpeg does not follow."""
    return NotAVideo(f"{path}: is a list of other files or addresses, which cannot all be read; give these themselves")


def _not_media(path: Path) -> LeafError:
    """The error for a file in which FFmpeg finds no media."""
    with path.open("rb") as f:
        head = f.read(12)
    if not head:
        return NotAVideo(f"{path}: is empty (0 bytes); get a fresh copy")
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return CodecError(f"{path}: has no index because it was cut off while it was written; get a fresh copy")
    return NotAVideo(f"{path}: is not a video that FFmpeg can read; use an MP4, MOV, MKV, AVI or WebM file")


def _video(path: Path, container: InputContainer) -> VideoStream:
    stream = ffmpeg.video_stream(container)
    if stream is None:
        if container.streams.audio:
            raise NotAVideo(f"{path}: contains only audio; use a file with video")
        raise NotAVideo(f"{path}: contains no video stream; use an MP4, MOV, MKV, AVI or WebM file")
    # PyAV gives no context to a stream that it has no decoder for, unlike its type hints say.
    if getattr(stream, "codec_context", None) is None:
        raise CodecError(f"{path}: this FFmpeg has no decoder for its video; convert it to H.264 first")
    return stream
