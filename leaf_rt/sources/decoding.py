"""Decodes the packets of one video stream, or only some of them where the machine is too slow for all.

Knows FFmpeg's packets; must not know threads, clocks or files.
"""

from __future__ import annotations

import heapq
from typing import Literal

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from leaf_rt.errors import DecoderUnavailable
from leaf_rt.media import ffmpeg
from leaf_rt.sources.base import Decoding, Skip

# Names of FFmpeg. While a source waits for a key frame, nothing reaches the decoder.
_DISCARD: dict[Skip, Literal["DEFAULT", "NONREF"]] = {Skip.NONE: "DEFAULT", Skip.UNREFERENCED: "NONREF"}


class PacketDecoder:
    """Decodes one stream.

    Args:
        stream: The stream.
        decoding: How to decode it.
    """

    def __init__(self, stream: VideoStream, decoding: Decoding) -> None:
        self._context = stream.codec_context
        self._decoding = decoding
        self._applied = Skip.NONE
        self._times: list[int] = []  # heap: when the pictures are shown that were sent to the decoder
        self._skips = False  # whether anything was ever left out

    def decode(self, packet: Packet[VideoStream]) -> tuple[list[tuple[VideoFrame, int]], bool]:
        """Decode a packet.

        Returns:
            The frames, each with the number of pictures that were left out before it; and whether data was damaged.

        Raises:
            DecoderUnavailable: The GPU failed.
            FFmpegError: The CPU failed, other than for damaged data.
        """
        decoding, is_picture = self._decoding, packet.size > 0  # the last packet is empty: it asks for what is left
        if is_picture:
            if packet.pts is not None:
                heapq.heappush(self._times, packet.pts)
            self._see_key(packet.is_keyframe)
        skip = decoding.skip
        if skip is Skip.TO_KEY:
            if is_picture:
                return [], False
        elif skip is not self._applied:
            self._context.skip_frame = _DISCARD[skip]
            self._applied, self._skips = skip, True
        try:
            frames, damaged = ffmpeg.decode(packet)
        except av.error.FFmpegError as e:
            if not self._context.is_hwaccel:
                raise
            raise DecoderUnavailable(ffmpeg.reason(e), "use --decode cpu") from e
        return [(frame, self._left_out(frame)) for frame in frames], damaged

    def _see_key(self, is_key: bool) -> None:
        """Measure the distance of key frames, and decode again from a key frame on."""
        decoding = self._decoding
        if is_key:
            decoding.key_distance = max(decoding.key_distance, decoding.since_key)
            decoding.keys, decoding.since_key = decoding.keys + 1, 0
            if decoding.skip is Skip.TO_KEY:
                decoding.skip = Skip.UNREFERENCED
                self._context.flush_buffers()  # what it holds back is old
        decoding.since_key += 1

    def _left_out(self, frame: VideoFrame) -> int:
        """Count the pictures before this one that the decoder did not give. They come in the order of their times."""
        count = 0
        while self._times and (self._times[0] <= frame.pts if frame.pts is not None else count == 0):
            heapq.heappop(self._times)
            count += 1
        left_out = max(count - 1, 0) if self._skips else 0  # elsewhere it is damage, which is counted already
        self._decoding.skipped += left_out
        return left_out
