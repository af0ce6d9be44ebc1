"""Copies the sound of a video file into the annotated video."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from leaf_rt.media.ffmpeg import open_container

_COPIED = frozenset({"aac", "mp3", "mp3float"})  # codecs that MP4 supports; others are encoded as AAC
_RATE = 48000  # Hz, of sound that is encoded
_SLACK = _RATE // 20  # samples by which timestamps may differ before this counts as a gap or an overlap


class Soundtrack:
    """Copies the first audio stream of a file.

    Create it before the first packet is written to ``output``. Sound whose timestamps go backwards is skipped. If a
    method raises, the sound ends, but video can still be written to ``output``.

    Args:
        path: The file to read.
        output: The file to write.
        start: Media time from which the sound is copied, s.

    Attributes:
        skipped: Number of packets or frames that were skipped.

    Raises:
        LookupError, av.error.FFmpegError, OSError, ValueError: The sound cannot be read or copied.
    """

    def __init__(self, path: Path, output: OutputContainer, start: float) -> None:
        self.skipped = 0
        self._input = open_container(f"file:{path}", {})
        try:
            if not self._input.streams.audio:
                raise ValueError("no audio stream")
            source: AudioStream = self._input.streams.audio[0]
            self._start = start
            self._zero = (self._input.start_time or 0) / 1e6  # s, timestamp in the file at media time 0
            if start > 0:
                self._input.seek(round((self._zero + start) * 1e6), backward=True)
            codec = source.codec_context
            # AAC in transport streams has its header in each packet, which MP4 does not support.
            self._copied = codec.name in _COPIED and not (codec.name == "aac" and codec.extradata is None)
            self._dts: int | None = None  # of the newest copied packet
            self._position: int | None = None  # samples encoded so far, from ``start`` on
            if self._copied:
                self._stream: AudioStream = output.add_stream_from_template(source)
            else:
                layout = "mono" if codec.channels == 1 else "stereo"
                self._stream = output.add_stream("aac", rate=_RATE, layout=layout)
                self._resampler = AudioResampler(format="fltp", layout=layout, rate=_RATE)
            self._packets = self._input.demux(source)
            self._next: Packet[AudioStream] | None = self._read()
        except BaseException:
            self._input.close()
            raise

    def advance(self, output: OutputContainer, until: float) -> None:
        """Write the sound up to the media time ``until``, s.

        Raises:
            av.error.FFmpegError, ValueError: The sound cannot be decoded, or not be written to ``output``.
            OSError: The file cannot be written.
        """
        while self._next is not None and (time := self._time(self._next)) < until:
            if time >= self._start:
                self._write(output, self._next)
            self._next = self._read()

    def finish(self, output: OutputContainer, until: float) -> None:
        """Write the rest up to the media time ``until``, s. Call it once. Raises what ``advance`` raises."""
        self.advance(output, until)
        if not self._copied:
            output.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the input file."""
        self._input.close()

    def _time(self, packet: Packet[AudioStream]) -> float:
        """Return the media time of a packet, s."""
        return float((packet.pts or 0) * (packet.time_base or Fraction(1))) - self._zero

    def _read(self) -> Packet[AudioStream] | None:
        with contextlib.suppress(av.error.FFmpegError, OSError):  # a damaged packet ends the sound
            for packet in self._packets:
                if packet.pts is not None:
                    return packet
        return None

    def _write(self, output: OutputContainer, packet: Packet[AudioStream]) -> None:
        if self._copied:
            self._copy(output, packet)
            return
        for decoded in packet.decode():
            self._encode(output, decoded)

    def _copy(self, output: OutputContainer, packet: Packet[AudioStream]) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts or 0
        if self._dts is not None and dts <= self._dts:
            self.skipped += 1
            return
        self._dts = dts
        shift = round((self._zero + self._start) / (packet.time_base or Fraction(1)))
        packet.pts = (packet.pts or 0) - shift
        packet.dts = dts - shift
        packet.stream = self._stream
        output.mux(packet)

    def _encode(self, output: OutputContainer, decoded: AudioFrame) -> None:
        """Encode a frame so that the samples are continuous: fill gaps with silence, skip overlaps."""
        if decoded.time is not None:
            due = round((decoded.time - self._zero - self._start) * _RATE)
            if self._position is None:
                self._position = due
            if due < self._position - _SLACK:
                self.skipped += 1
                return
            while due > self._position + _SLACK:
                self._append(output, _silence(min(due - self._position, _RATE), self._resampler.layout.name))
        for frame in self._resampler.resample(decoded):
            self._append(output, frame)

    def _append(self, output: OutputContainer, frame: AudioFrame) -> None:
        self._position = self._position or 0
        frame.pts, frame.time_base = self._position, Fraction(1, _RATE)
        self._position += frame.samples
        output.mux(self._stream.encode(frame))


def _silence(samples: int, layout: str) -> AudioFrame:
    channels = 1 if layout == "mono" else 2
    frame = AudioFrame.from_ndarray(np.zeros((channels, samples), np.float32), "fltp", layout)
    frame.sample_rate = _RATE
    return frame
