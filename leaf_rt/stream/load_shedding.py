"""Load shedding: a live source costs less before it loses frames. Pure: times and counters are arguments.

What counts is the demand: the time that the frames of all live sources need per second, one loop serving them all. At
1 the loop is never idle; above, frames are replaced by newer ones. It is known before any frame is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LEVEL = 3
TOO_MUCH = 0.85  # demand above which the level rises
LITTLE = 0.4  # demand below which it may fall: the level below costs up to twice as much, which must not be too much
_MEMORY = 2.0  # s over which the share of lost frames is averaged: one lost frame is no load


@dataclass(frozen=True, slots=True)
class Counters:
    """What a live source and the loop that serves it have counted since the start of the run.

    Attributes:
        captured: Frames of this source that came in.
        dropped: Those of them that a newer one replaced.
        live: Frames of all live sources that came in.
        served: Frames, of files too, that the loop took on.
        busy: s that it worked on them.
        files: Files that are read beside; each has one frame in every round, however many it could give.
    """

    captured: int = 0
    dropped: int = 0
    live: int = 0
    served: int = 0
    busy: float = 0.0
    files: int = 0


class LoadControl:
    """Chooses how much work a live source's frames get: level 0 is all, each level above halves some of it.

    It rises, a level per period, while the demand is above ``TOO_MUCH`` or a share of the frames is lost all the same;
    it falls by one after a calm time below ``LITTLE`` without a lost frame. Between the two it stays.

    Args:
        period: s between decisions.
        too_many: Share of dropped frames above which the level rises whatever the demand.
        calm: s of calm after which the level falls; doubled with each fall, so that a load at the edge does not swing,
            and as at first for a load that comes long after the last one.
        warm_up: s after a start that say nothing: first frames are searched everywhere, models are cold.
    """

    MAX_CALM = 120.0  # s

    def __init__(self, period: float = 0.5, too_many: float = 0.05, calm: float = 5.0, warm_up: float = 1.0) -> None:
        self._period, self._too_many, self._warm_up = period, too_many, warm_up
        self._first_calm = self._calm = calm
        self._fell = -math.inf  # s, when the level last fell
        self._ready = False  # whether the warm-up is over
        self._since: float | None = None
        self._last = Counters()
        self._calm_since: float | None = None
        self._lost = 0.0  # share of the newest frames
        self.level = 0
        self.demand = 0.0  # of the newest period

    def restart(self) -> None:
        """The source was away: what was counted meanwhile says nothing."""
        self._since = self._calm_since = None
        self._ready, self._lost = False, 0.0

    def update(self, now: float, counters: Counters) -> bool:
        """Look at the counters at ``now``, s; True when the level has changed."""
        if self._since is None:
            self._begin(now, counters)
            return False
        span = now - self._since
        captured, served = counters.captured - self._last.captured, counters.served - self._last.served
        if span < (self._period if self._ready else self._warm_up) or captured <= 0 or served <= 0:
            return False
        cost = (counters.busy - self._last.busy) / served
        self.demand = cost * (counters.live - self._last.live + counters.files * captured) / span
        lost = (counters.dropped - self._last.dropped) / captured
        warm, self._ready = self._ready, True
        self._begin(now, counters)
        if not warm:
            return False
        self._lost += (lost - self._lost) * min(span / _MEMORY, 1.0)
        return self._decide(now, lost)

    def _begin(self, now: float, counters: Counters) -> None:
        self._since, self._last = now, counters

    def _decide(self, now: float, lost: float) -> bool:
        before = self.level
        if self.demand > TOO_MUCH or self._lost > self._too_many:
            if now - self._fell > 2 * self.MAX_CALM:  # a load of its own, not the one that was there before
                self._calm = self._first_calm
            self.level = min(self.level + 1, MAX_LEVEL)
            self._calm_since, self._lost = None, 0.0
        elif self.demand > LITTLE or lost > 0:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif self.level > 0 and now - self._calm_since >= self._calm:
            self.level -= 1
            self._fell = now
            self._calm_since, self._calm = now, min(2 * self._calm, self.MAX_CALM)
        return self.level != before
