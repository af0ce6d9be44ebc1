"""The camera of a browser as a source: a WebSocket puts pictures in, the capture thread of a run takes them out.

Knows JPEG and frames; must not know sockets.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from leaf_rt.errors import CodecError, NotAVideo
from leaf_rt.media.images import picture_size
from leaf_rt.system.closing import Closing
from leaf_rt.types import U8, Frame, SourceInfo

_WAITING = 2  # pictures
_KEPT = 64  # times of pictures on their way through the pipeline


class BrowserCamera(Closing):
    """Pictures from a browser; see ``Source``.

    Args:
        name: Name of the source.
        width: Width of the first picture, px.
        height: Its height, px.
        max_pixels: Largest picture.
        clock: Monotonic clock, s; it gives the pictures their time.
    """

    def __init__(
        self, name: str, width: int, height: int, max_pixels: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.info = SourceInfo(name, "browser", "browser", width, height, is_live=True, decoder="JPEG")
        self.warnings: list[str] = []
        self.decode_time: float | None = 0.0
        self.damaged = 0
        self._max_pixels, self._clock = max_pixels, clock
        self._waiting: queue.Queue[tuple[float, bytes] | None] = queue.Queue(_WAITING + 1)
        self._client_times: dict[int, float] = {}  # by the index of the frame, ms

    def put(self, client_time: float, jpeg: bytes) -> None:
        """Add a picture, without waiting. If too many wait, the oldest one is skipped."""
        while self._waiting.qsize() >= _WAITING:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                break
        self._waiting.put((client_time, jpeg))

    def end(self) -> None:
        """No picture will come any more."""
        while True:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    continue

    def client_time(self, index: int) -> float | None:
        """When the browser took a frame, ms on its own clock."""
        return self._client_times.get(index)

    def __iter__(self) -> Iterator[Frame]:
        """Yield pictures until ``end``.

        Raises:
            NotAVideo, CodecError: The browser sent something else than a JPEG, or one that is too large.
        """
        begin: float | None = None
        index = 0
        while (item := self._waiting.get()) is not None:
            sent, jpeg = item
            start = self._clock()
            begin = start if begin is None else begin
            image = decode_jpeg(jpeg, self._max_pixels)
            self.decode_time = self._clock() - start
            self._client_times[index] = sent
            self._client_times.pop(index - _KEPT, None)
            yield Frame(image, index, start - begin, self.info.name)
            index += 1

    def close(self) -> None:
        """Nothing to free."""


def decode_jpeg(data: bytes, max_pixels: int) -> U8:
    """Decode a JPEG to (H, W, 3) uint8 BGR.

    Raises:
        NotAVideo: It is no JPEG.
        CodecError: It is damaged, or larger than ``max_pixels``.
    """
    width, height, kind = picture_size(data, "picture")
    if kind != "JPEG":
        raise NotAVideo(f"wanted JPEG pictures, got {kind}")
    if width * height > max_pixels:
        raise CodecError(f"a picture of {width}x{height} px is too large; send at most {max_pixels} px")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CodecError("the JPEG is damaged")
    return np.asarray(image, dtype=np.uint8)
