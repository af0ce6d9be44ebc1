"""Frames from memory: an iterable of NumPy arrays as a source. Knows arrays and timestamps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeAlias

import cv2
import numpy as np

from leaf_rt.errors import NoFrames, OutOfResources, out_of_resources
from leaf_rt.sources.base import Selector, SourceOptions
from leaf_rt.system.closing import Closing
from leaf_rt.types import U8, Frame, SourceInfo

ArrayItem: TypeAlias = U8 | tuple[U8, float]


def as_bgr(image: object, what: str) -> U8:
    """Check a picture and give it three channels.

    Args:
        image: (H, W, 3) uint8 in BGR order, or (H, W) uint8 grey.
        what: Name of the picture in error messages.

    Returns:
        (H, W, 3) uint8 BGR, contiguous; a copy only where the input is grey or not contiguous.

    Raises:
        TypeError: It is not a NumPy array.
        ValueError: Wrong dtype or shape.
        OutOfResources: The memory is too small for a copy.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{what}: wanted a NumPy array, got {type(image).__name__}")
    color = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (color or image.ndim == 2) or image.size == 0:
        raise ValueError(
            f"{what}: wanted uint8 (H, W, 3) in BGR order or uint8 (H, W) grey, got {image.dtype} {image.shape}"
        )
    try:
        bgr = image if color else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
        return np.ascontiguousarray(bgr, dtype=np.uint8)
    except (MemoryError, cv2.error) as e:
        if out_of_resources(e) is None:
            raise
        raise OutOfResources(f"{what}: the memory is too small for an array of {image.shape}; make it smaller") from e


class ArraySource(Closing):
    """An iterable of pictures as a source; see ``Source``.

    Each picture is copied, so the iterable may reuse its buffer.

    Args:
        frames: Pictures as ``as_bgr`` takes them, or pairs (picture, seconds). Seconds must grow.
        options: ``fps`` gives the time between pictures that come without one.

    Raises:
        NoFrames: The iterable is empty.
        TypeError: An item is not a picture.
        ValueError: A picture has the wrong dtype or shape, or its time is missing or does not grow.
    """

    def __init__(self, frames: Iterable[ArrayItem], options: SourceOptions) -> None:
        if options.loop:
            raise ValueError("loop: wanted a video file as the source, got an iterable of arrays")
        self.warnings: list[str] = []
        self.damaged = 0
        self.decode_time: float | None = None
        self._options = options
        self._items = iter(frames)
        self._count = 0
        self._last = -math.inf
        name = options.name or "frames"
        try:
            self._first: tuple[U8, float] | None = self._read(next(self._items))
        except StopIteration:
            raise NoFrames(f"{name}: the iterable holds no frame; give at least one array") from None
        height, width = self._first[0].shape[:2]
        total = len(frames) if isinstance(frames, Sized) and options == SourceOptions(fps=options.fps) else None
        self.info = SourceInfo(
            name, name, "file", width, height, options.fps, total, is_live=options.realtime, decoder="NumPy"
        )

    def __iter__(self) -> Iterator[Frame]:
        """The frames, each one once."""
        selector, options = Selector(self._options), self._options
        for index, (image, time) in enumerate(self._pictures()):
            if options.end is not None and time >= options.end:
                return
            if time >= options.start and selector.selects(index, time):
                picture = image[:, ::-1] if options.mirror else image
                yield Frame(np.array(picture, order="C"), index, time, self.info.name)

    def close(self) -> None:
        """Close a generator, so that its own clean-up runs."""
        close: Any = getattr(self._items, "close", None)
        if callable(close):
            close()

    def _pictures(self) -> Iterator[tuple[U8, float]]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        for item in self._items:
            yield self._read(item)

    def _read(self, item: ArrayItem) -> tuple[U8, float]:
        what = f"frame {self._count}"
        if isinstance(item, tuple) and len(item) == 2:
            image, time = item[0], float(item[1])
        elif self._options.fps is None:
            as_bgr(item, what)
            raise ValueError(f"{what}: wanted a time; give fps=FRAMES_PER_SECOND, or pairs (array, seconds)")
        else:
            image, time = item, self._count / self._options.fps
        if not (math.isfinite(time) and time > self._last and time >= 0):
            raise ValueError(f"{what}: wanted seconds from 0 that grow from frame to frame, got {time!r}")
        self._last = time
        self._count += 1
        return as_bgr(image, what), time
