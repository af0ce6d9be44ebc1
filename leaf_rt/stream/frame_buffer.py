"""Frames of one source between its capture thread and the loop."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from leaf_rt.stream.context import RunContext
from leaf_rt.stream.stats import SourceStats
from leaf_rt.types import Frame


@dataclass(frozen=True, slots=True, eq=False)
class CapturedFrame:
    """A frame, the time at which it was captured, s on the monotonic clock, and how long its decoder needed, s.

    The picture of a frame of a live source is converted when the frame is taken: most may never be.
    """

    frame: Frame
    captured: float
    decode_time: float = 0.0


class FrameBuffer:
    """The newest frame of a live source, or a bounded queue of frames of a file.

    Call every method under the lock of the run.

    Attributes:
        space: Condition on that lock. It is notified when a frame was taken and when the capture must end.
    """

    def __init__(self, context: RunContext, stats: SourceStats) -> None:
        self.space = threading.Condition(context.lock)
        self._ready = context.ready
        self._capacity = context.options.queue
        self._stats = stats
        self._frames: deque[CapturedFrame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_full(self) -> bool:
        """Whether a frame of a file has to wait."""
        return len(self._frames) >= self._capacity

    def put(self, captured: CapturedFrame, is_live: bool) -> bool:
        """Add a frame. A live frame replaces the one before it, which counts as dropped.

        Returns:
            Whether it replaced one.
        """
        replaces = is_live and bool(self._frames)
        if replaces:
            self.drop_all()
        self._frames.append(captured)
        self._stats.queued = len(self._frames)
        self._ready.notify_all()
        return replaces

    def take(self) -> CapturedFrame:
        """Remove and return the oldest frame; the buffer must not be empty."""
        captured = self._frames.popleft()
        self._stats.queued = len(self._frames)
        self.space.notify_all()
        return captured

    def peek(self, place: int) -> CapturedFrame:
        """Return the frame at a place, counted from the oldest one, without taking it."""
        return self._frames[place]

    def drop_all(self) -> None:
        """Remove all frames and count them as dropped."""
        self._stats.dropped += len(self._frames)
        self._stats.queued = 0
        self._frames.clear()
