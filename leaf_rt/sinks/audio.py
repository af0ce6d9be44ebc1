"""The sound of a file, brought over into another file beside its new pictures. Knows PyAV."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from leaf_rt.sources.ffmpeg import open_container

_COPIED = frozenset({"aac", "mp3", "mp3float"})  # fit into an MP4 as they are; others become AAC
_RATE = 48000  # Hz of sound that is encoded anew


class Soundtrack:
    """Copies the first sound stream of ``path`` into ``output``, from the media time ``start`` (s) on.

    Construct it before the first packet is written to ``output``.

    Raises:
        LookupError, av.error.FFmpegError, OSError, ValueError: The sound cannot be read or taken over.
    """

    def __init__(self, path: Path, output: OutputContainer, start: float) -> None:
        self._input = open_container(f"file:{path}", {})
        try:
            if not self._input.streams.audio:
                raise ValueError("no sound stream")
            source: AudioStream = self._input.streams.audio[0]
            self._start = start
            self._zero = (self._input.start_time or 0) / 1e6  # s on the file's own clock where media time is 0
            if start > 0:
                self._input.seek(round((self._zero + start) * 1e6), backward=True)
            self._copied = source.codec_context.name in _COPIED
            if self._copied:
                self._stream: AudioStream = output.add_stream_from_template(source)
            else:
                layout = "mono" if source.codec_context.channels == 1 else "stereo"
                self._stream = output.add_stream("aac", rate=_RATE, layout=layout)
                self._resampler = AudioResampler(format="fltp", layout=layout, rate=_RATE)
            self._packets = self._input.demux(source)
            self._next: Packet[AudioStream] | None = self._read()
        except BaseException:
            self._input.close()
            raise

    def advance(self, output: OutputContainer, until: float) -> None:
        """Write what sounds before the media time ``until``, s."""
        while self._next is not None and (time := self._time(self._next)) < until:
            if time >= self._start:
                self._write(output, self._next)
            self._next = self._read()

    def finish(self, output: OutputContainer, until: float) -> None:
        """Write the rest up to the media time ``until``, s; once, before ``output`` is closed."""
        self.advance(output, until)
        if not self._copied:
            output.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the file that is read."""
        self._input.close()

    def _time(self, packet: Packet[AudioStream]) -> float:
        """Media time of a packet, s."""
        return float((packet.pts or 0) * (packet.time_base or Fraction(1))) - self._zero

    def _read(self) -> Packet[AudioStream] | None:
        with contextlib.suppress(av.error.FFmpegError, OSError):  # damaged: the sound ends here
            for packet in self._packets:
                if packet.pts is not None:
                    return packet
        return None

    def _write(self, output: OutputContainer, packet: Packet[AudioStream]) -> None:
        base = packet.time_base or Fraction(1)
        shift = round((self._zero + self._start) / base)
        if self._copied:
            packet.pts = (packet.pts or 0) - shift
            if packet.dts is not None:
                packet.dts -= shift
            packet.stream = self._stream
            output.mux(packet)
            return
        for decoded in packet.decode():
            if decoded.pts is not None:
                decoded.pts -= shift
            for frame in self._resampler.resample(decoded):
                output.mux(self._stream.encode(frame))
