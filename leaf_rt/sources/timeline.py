"""Media time of recordings whose timestamps jump. Knows numbers only."""

from __future__ import annotations

import statistics
from collections import deque

MAX_GAP = 3600.0  # s; after a longer step, forwards or backwards, another recording follows


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
