"""Rules of a live connection: when to retry, what time it is, whether the picture stands still.

Times are arguments. Knows numbers and pictures; must not know threads, clocks or sources.
"""

from __future__ import annotations

import random
import zlib

import numpy as np

from leaf_rt.types import U8


class Backoff:
    """Delay before the next attempt to connect: it doubles each time, with jitter, and is reset by a good connection.

    Args:
        rng: For the jitter.
        first: First delay, s.
        longest: Longest delay, s.
        jitter: Share by which a delay varies at random.
        healthy_after: s of connection after which the delay is reset.
        attempts: Attempts allowed in a row; None sets no limit.

    Attributes:
        attempts: Attempts in a row so far.
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
        self._max_attempts = attempts
        self._connected: float | None = None
        self.attempts = 0

    def connected(self, now: float) -> None:
        """An attempt succeeded at ``now``, s."""
        self._connected = now

    def lost(self, now: float) -> float | None:
        """The connection was lost, or an attempt failed, at ``now``, s.

        Returns:
            s to wait before the next attempt; None if none is left.
        """
        if self._connected is not None and now - self._connected >= self._healthy_after:
            self.attempts = 0
        self._connected = None
        if self._max_attempts is not None and self.attempts >= self._max_attempts:
            return None
        delay = self._first * 2.0 ** min(self.attempts, 30)
        self.attempts += 1
        return min(delay * (1.0 + self._jitter * (2.0 * self._rng.random() - 1.0)), self._longest)


class MediaClock:
    """Turns the timestamps of a stream into one steady media time, over reconnects and clock jumps.

    Media time starts at 0 and always grows. If the stream's timestamps run backwards, jump ahead or start again, media
    time grows by the time that has passed here instead.

    Args:
        max_leap: s by which a timestamp may be ahead of the time that has passed here since the last frame.

    Attributes:
        jumps: Jumps so far.
        jump: Size of the newest jump, s; negative for a jump backwards.
    """

    MIN_STEP = 1e-3  # s

    def __init__(self, max_leap: float = 1.0) -> None:
        self._max_leap = max_leap
        self._offset: float | None = None  # media time minus stream time, s; None right after a restart
        self._last: tuple[float, float] | None = None  # media time and arrival of the newest frame, s
        self.jumps, self.jump = 0, 0.0

    def restart(self) -> None:
        """The next frame comes over a new connection."""
        self._offset = None

    def stamp(self, stream_time: float, now: float) -> float:
        """Media time, s, of a frame with the timestamp ``stream_time``, s, that arrived at ``now``, s."""
        if self._last is None:
            self._offset = -stream_time
            self._last = (0.0, now)
            return 0.0
        last, arrived = self._last
        passed = max(now - arrived, self.MIN_STEP)
        if self._offset is not None:
            step = stream_time + self._offset - last
            if not 0.0 < step <= passed + self._max_leap:
                self.jumps, self.jump = self.jumps + 1, step - passed
                self._offset = None
        if self._offset is None:
            self._offset = last + passed - stream_time
        time = max(stream_time + self._offset, last + self.MIN_STEP)
        self._last = (time, now)
        return time


class FreezeWatch:
    """Detects a source that sends the same picture again and again.

    Args:
        after: s of identical pictures that count as frozen.

    Attributes:
        frozen: Whether the newest picture is frozen.
    """

    def __init__(self, after: float = 10.0) -> None:
        self._after = after
        self._digest: int | None = None
        self._since = 0.0
        self.frozen = False

    def see(self, image: U8, now: float) -> bool:
        """Compare a picture with the one before it.

        Only every eighth pixel in each direction is read. The noise of a real camera changes some of them.

        Args:
            image: (H, W, 3) uint8.
            now: When it arrived, s.

        Returns:
            True once, when the picture has become frozen.
        """
        digest = zlib.crc32(np.ascontiguousarray(image[::8, ::8]).data)
        if digest != self._digest:
            self._digest, self._since, self.frozen = digest, now, False
            return False
        if not self.frozen and now - self._since >= self._after:
            self.frozen = True
            return True
        return False
