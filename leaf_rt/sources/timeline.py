"""Media time where timestamps jump. Knows numbers only."""

from __future__ import annotations

import statistics
from collections import deque

MAX_GAP = 3600.0  # s; after a longer step, forwards or backwards, another recording follows


_RTP_TICKS = 1 << 32  # RTP's clock starts again after so many ticks, 13.3 h at 90 kHz


class RtpClock:
    """Timestamps of RTP as steady numbers of ticks.

    FFmpeg takes every step of the 32-bit clock as one forwards, so a camera whose clock is set back by 500 s seems to
    jump ahead by 13.1 h. Here a step is the shorter way round.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None  # as it came, and as it was given

    def ticks(self, ticks: int) -> int:
        """Ticks of the next frame."""
        steady = ticks
        if self._last is not None:
            step = (ticks - self._last[0] + _RTP_TICKS // 2) % _RTP_TICKS - _RTP_TICKS // 2
            steady = self._last[1] + step
        self._last = (ticks, steady)
        return steady


class Timeline:
    """Continues media time where the timestamps of a recording start again or jump, as in joined files.

    There, media time grows by the usual step between frames: the median of the last steps. Timestamps that only rise
    by less than ``MAX_GAP`` stay as they are.

    Args:
        period: Stated time between frames, s; used until there is a step.

    Attributes:
        jumps: Steps of more than ``MAX_GAP`` so far. What follows such a step is another recording.
    """

    def __init__(self, period: float) -> None:
        self.jumps = 0
        self._period = period
        self._steps: deque[float] = deque(maxlen=31)  # s
        self._last: float | None = None  # s, timestamp of the newest frame
        self._offset = 0.0  # s, media time minus timestamp

    def media_time(self, time: float) -> float:
        """Media time, s, of the next frame, which has the timestamp ``time``, s."""
        if self._last is not None:
            step = time - self._last
            if step < 0 or step > MAX_GAP:
                usual = statistics.median(self._steps) if self._steps else self._period
                if step > MAX_GAP or step < -1.5 * usual:  # a smaller step back means two frames in the wrong order
                    self._offset += usual - step
                    self.jumps += abs(step) > MAX_GAP
            elif step > 0:
                self._steps.append(step)
        self._last = time
        return time + self._offset
