"""Decides what a live source leaves out when not all frames can be decoded in time, or not all are needed.

Decoding comes after everything else: a frame that is decoded late is only old, but a pipeline that waits for a core
loses the frames of all sources. Three measures, each stronger than the one before:

1. Pictures that no other picture needs are not decoded.
2. A source that still falls behind, or whose frames still come in vain, waits for its next key frame.
3. It then has its turn again, until it has to wait again. So the sources are decoded in turn.

Knows how sources decode; must not know pipelines. Times are arguments.
"""

from __future__ import annotations

import math
import threading
from typing import Self

from leaf_rt.sources.base import Decoding, Skip
from leaf_rt.system.cpu import cpu_count

LATE = 0.2  # s behind from which on pictures are left out
VERY_LATE = 0.5  # s behind from which on a source waits for its next key frame, if it falls back further
USELESS = 0.5  # share of frames in vain from which on pictures are left out; others need about half of the pictures
VAIN = 0.25  # the same, from which on a source waits for its next key frame
MAX_KEY_TIME = 5.0  # s; a source whose key frames are further apart does not wait for one
SURPLUS = 1.2  # sources' worth of frames in vain that there must be before one of the sources may wait
_SHARE = 1.0  # of the sources may begin to wait per second: what this brings shows after a second
_ASKS_TIME = 0.5  # s for which a source counts as one that asks
_GROWTH_TIME = 0.3  # s after which two delays are compared
_LOSS_TIME = 1.0  # s over which the share of frames in vain is averaged
_DRIFT = 1e-3  # s per s by which the clocks of a camera and of this machine may differ
_MAX_CALM = 120.0  # s


class DecodeTurns:
    """Bounds how many sources decode at the same time, and how many wait for a key frame. Safe to use from any thread.

    Use it as a context manager around each call of a decoder.

    Args:
        places: Sources that may decode at the same time; 0 leaves one CPU core to the pipeline.
    """

    def __init__(self, places: int = 0) -> None:
        self._places = threading.BoundedSemaphore(places or max(cpu_count() - 1, 1))
        self._lock = threading.Lock()
        self._sources: dict[DecodeControl, tuple[float, float]] = {}  # since when it is decoded, and when it asked, s
        self._waiting = 0
        self._next = -math.inf  # s; when the next source may begin to wait

    def __enter__(self) -> None:
        self._places.acquire()

    def __exit__(self, *_: object) -> None:
        self._places.release()

    def join(self, source: DecodeControl) -> None:
        """Count one more source."""
        with self._lock:
            self._sources[source] = (-math.inf, -math.inf)

    def leave(self, source: DecodeControl) -> None:
        """Count one source less."""
        with self._lock:
            del self._sources[source]

    def may_wait(self, source: DecodeControl, now: float) -> bool:
        """Whether a source may wait for its next key frame, from ``now``, s; it then counts as waiting.

        Of those that ask, the one goes first that has been decoded for longest. One whose frames come in vain, but in
        time, waits only where the others still give more frames than are taken.
        """
        with self._lock:
            since = self._sources[source][0]
            self._sources[source] = (since, now)
            decoded = len(self._sources) - self._waiting
            if now < self._next or not (source.is_late or source.vain * decoded >= SURPLUS):
                return False
            if any(other < since for other, asked in self._sources.values() if now - asked < _ASKS_TIME):
                return False
            self._next = now + 1.0 / (_SHARE * len(self._sources))
            self._waiting += 1
            return True

    def waited(self, source: DecodeControl, now: float) -> None:
        """A source waits no longer, from ``now``, s."""
        with self._lock:
            self._waiting -= 1
            self._sources[source] = (now, -math.inf)


class DecodeControl:
    """Chooses what one live source leaves out, for one connection. A context manager: it counts among the sources.

    Args:
        decoding: How the source is decoded; this object changes it.
        turns: Those of the run.
        fps: Of the source.
        calm: s without delay and loss after which everything is decoded again. It doubles each time.

    Attributes:
        delay: s by which the newest frame was late.
        vain: Share of the newest frames that another one replaced before they were processed.
        is_late: Whether the delay is large and grows.
    """

    def __init__(self, decoding: Decoding, turns: DecodeTurns, fps: float, calm: float = 5.0) -> None:
        self._decoding, self._turns, self._fps, self._calm = decoding, turns, fps, calm
        self._best = math.inf  # s; the smallest difference between arrival and time of a frame
        self._last: tuple[float, float] | None = None  # arrival and time of the last frame, s
        self._calm_since: float | None = None  # s
        self._noted, self._noted_delay = -math.inf, 0.0  # when a delay was noted, and that delay, s
        self._waits = False
        self._counted = 0  # pictures that were left out
        self.delay = self.vain = 0.0
        self.is_late = False

    def __enter__(self) -> Self:
        self._turns.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._waits:
            self._turns.waited(self, -math.inf)
        self._turns.leave(self)

    def update(self, now: float, timestamp: float, in_vain: bool) -> bool:
        """Note a decoded frame; returns whether less is decoded from now on.

        Args:
            now: When it came, s.
            timestamp: Its time in the source, s.
            in_vain: Whether it replaced the frame before it, which was not processed.
        """
        before = self._decoding.skip
        if self._waits:  # this is the key frame
            self._waits = False
            self._turns.waited(self, now)
            self.vain, self.is_late, self._noted_delay = 0.0, False, 0.0
        if self._last is None or timestamp < self._last[1]:  # the clock of the source was set
            self._best, passed = math.inf, 0.0
        else:
            passed = now - self._last[0]
        self._last = (now, timestamp)
        self._best = min(self._best + _DRIFT * passed, now - timestamp)
        self.delay = now - timestamp - self._best
        self.vain += (in_vain - self.vain) * min(passed / _LOSS_TIME, 1.0)
        if before is Skip.NONE:
            if self.delay > LATE or self.vain > USELESS:
                self._decoding.skip, self._calm_since = Skip.UNREFERENCED, None
        elif not self._is_calm(now) and self._should_wait(now):
            self._decoding.skip, self._waits = Skip.TO_KEY, True
        return self._decoding.skip > before

    def left_out(self) -> int:
        """Pictures that were left out since the last call."""
        count = self._decoding.skipped - self._counted
        self._counted += count
        return count

    def _is_calm(self, now: float) -> bool:
        """Decode everything again after a calm time; returns whether that happened."""
        if self.delay > LATE / 4 or self.vain > 0.05:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self._calm:
            self._decoding.skip = Skip.NONE
            self._calm = min(2 * self._calm, _MAX_CALM)
            return True
        return False

    def _should_wait(self, now: float) -> bool:
        if now - self._noted >= _GROWTH_TIME:
            self.is_late = self.delay > self._noted_delay > VERY_LATE
            self._noted, self._noted_delay = now, self.delay
        if not (self.is_late or self.vain > VAIN):
            return False
        known = 0 < self._decoding.key_distance <= MAX_KEY_TIME * self._fps
        return known and self._turns.may_wait(self, now)
