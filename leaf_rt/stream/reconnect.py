"""The rules of a live connection: when to try again, what time it is, whether the picture stands still.

Pure: times are arguments. Knows numbers and pictures; must not know threads, clocks or sources.
"""

from __future__ import annotations

import random
import zlib

import numpy as np

from leaf_rt.types import U8


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter, anew after a while of health.

    Args:
        rng: Source of the jitter.
        first: s before the first attempt.
        longest: s before any attempt at most.
        jitter: Share by which a delay is lengthened or shortened at random.
        healthy_after: s of connection after which the count begins anew.
        attempts: Attempts in a row that are allowed; None sets no limit.
    """

    def __init__(
        self,
        rng: random.Random,
        first: float = 1.0,
        longest: float = 30.0,
        jitter: float = 0.1,
        healthy_after: float = 10.0,
        attempts: int | None = None,
    ) -> None:
        self._rng = rng
        self._first, self._longest, self._jitter = first, longest, jitter
        self._healthy_after = healthy_after
        self._allowed = attempts
        self._connected: float | None = None
        self.attempts = 0  # in a row

    def connected(self, now: float) -> None:
        """The attempt gave a frame at ``now``, s."""
        self._connected = now

    def lost(self, now: float) -> float | None:
        """The connection broke, or an attempt failed, at ``now``.

        Returns:
            s to wait before the next attempt; None when no attempt is left.
        """
        if self._connected is not None and now - self._connected >= self._healthy_after:
            self.attempts = 0
        self._connected = None
        if self._allowed is not None and self.attempts >= self._allowed:
            return None
        delay = self._first * 2.0 ** min(self.attempts, 30)
        self.attempts += 1
        return min(delay * (1.0 + self._jitter * (2.0 * self._rng.random() - 1.0)), self._longest)


class MediaClock:
    """Makes one steady time of what a stream says, over reconnects and jumps.

    Media time starts at 0 and always grows. Where the stream's own time runs backwards, leaps ahead of what has gone
    by here, or begins anew, the time that has gone by here takes its place.

    Args:
        max_leap: s by which a stream may run ahead between two frames.
    """

    MIN_STEP = 1e-3  # s

    def __init__(self, max_leap: float = 1.0) -> None:
        self._max_leap = max_leap
        self._offset: float | None = None  # media time minus stream time, s; None right after a restart
        self._last: tuple[float, float] | None = None  # media time of the newest frame, and when it came
        self.jumps = 0

    def restart(self) -> None:
        """The next frame comes over a new connection."""
        self._offset = None

    def stamp(self, stream_time: float, now: float) -> float:
        """Media time (s) of a frame that says ``stream_time`` and came at ``now``, both s."""
        if self._last is None:
            self._offset = -stream_time
            self._last = (0.0, now)
            return 0.0
        last, came = self._last
        gone = max(now - came, self.MIN_STEP)
        if self._offset is not None:
            step = stream_time + self._offset - last
            if not 0.0 < step <= gone + self._max_leap:
                self.jumps += 1
                self._offset = None
        if self._offset is None:
            self._offset = last + gone - stream_time
        time = max(stream_time + self._offset, last + self.MIN_STEP)
        self._last = (time, now)
        return time


class FreezeWatch:
    """Tells when a source goes on sending one and the same picture.

    Args:
        after: s of identical pictures that count as frozen.
    """

    def __init__(self, after: float = 10.0) -> None:
        self._after = after
        self._digest: int | None = None
        self._since = 0.0
        self.frozen = False

    def see(self, image: U8, now: float) -> bool:
        """Look at a picture (H, W, 3) that came at ``now``, s; True once, when it has stood still for too long.

        Every eighth pixel in each direction is compared: a real camera's noise changes some of them.
        """
        digest = zlib.crc32(np.ascontiguousarray(image[::8, ::8]).data)
        if digest != self._digest:
            self._digest, self._since, self.frozen = digest, now, False
            return False
        if not self.frozen and now - self._since >= self._after:
            self.frozen = True
            return True
        return False
