"""Load shedding: do less work per frame of a live source before it loses frames. Times and counters are arguments.

The decision follows the demand: how many seconds of work the frames of all live sources need per second. One loop
serves all of them, so at 1 it is never idle. Above 1, newer frames replace older ones. The demand shows a high load
before any frame is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LEVEL = 3
HIGH_DEMAND = 0.85  # above, the level rises
LOW_DEMAND = 0.4  # below, it may fall; the next lower level costs up to twice as much, which must not be too high again
_LOSS_WINDOW = 2.0  # s over which the share of lost frames is averaged, so that one lost frame is not a load


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of a live source and of the loop since the start of the run.

    Attributes:
        captured: Captured frames of this source.
        dropped: Those that a newer frame replaced.
        live: Captured frames of all live sources.
        served: Frames that the loop has worked on, including those of files.
        busy: s that the loop has worked on them.
        files: Files that are read at the same time. Each has one frame in every round of the loop.
    """

    captured: int = 0
    dropped: int = 0
    live: int = 0
    served: int = 0
    busy: float = 0.0
    files: int = 0


class LoadControl:
    """Chooses how much work a live source's frames get: level 0 is full effort; see ``Pipeline.reduce_effort``.

    The level rises once per period while the demand is above ``HIGH_DEMAND`` or too many frames are lost: by one, or by
    as many as the demand asks for. It falls
    by one after a calm time with a demand below ``LOW_DEMAND`` and no lost frame.

    Args:
        period: s between decisions.
        max_loss: Share of dropped frames above which the level rises at any demand.
        calm: s of calm after which the level falls. It doubles with each fall, so that the level does not swing under
            a load near the limit. It starts again at this value for a load that comes long after the last one.
        warm_up: s after the start of a source that are not measured: the first frames are searched completely, and
            models are still cold.

    Attributes:
        level: The chosen level.
        demand: The demand in the last period.
    """

    MAX_CALM = 120.0  # s

    def __init__(self, period: float = 0.5, max_loss: float = 0.05, calm: float = 5.0, warm_up: float = 1.0) -> None:
        self._period, self._max_loss, self._warm_up = period, max_loss, warm_up
        self._first_calm = self._calm = calm
        self._last_fall = -math.inf  # s
        self._warm = False
        self._since: float | None = None  # s; start of the period
        self._last = Counters()  # at the start of the period
        self._calm_since: float | None = None  # s
        self._loss = 0.0  # average share of lost frames
        self.level = 0
        self.demand = 0.0

    def restart(self) -> None:
        """Ignore what was counted while the source was away."""
        self._since = self._calm_since = None
        self._warm, self._loss = False, 0.0

    def update(self, now: float, counters: Counters) -> bool:
        """Read the counters at ``now``, s; returns whether the level has changed."""
        if self._since is None:
            self._begin(now, counters)
            return False
        seconds = now - self._since
        captured, served = counters.captured - self._last.captured, counters.served - self._last.served
        if seconds < (self._period if self._warm else self._warm_up) or captured <= 0 or served <= 0:
            return False
        cost = (counters.busy - self._last.busy) / served  # s per frame
        self.demand = cost * (counters.live - self._last.live + counters.files * captured) / seconds
        loss = (counters.dropped - self._last.dropped) / captured
        was_warm, self._warm = self._warm, True
        self._begin(now, counters)
        if not was_warm:
            return False
        self._loss += (loss - self._loss) * min(seconds / _LOSS_WINDOW, 1.0)
        return self._decide(now, loss)

    def _begin(self, now: float, counters: Counters) -> None:
        self._since, self._last = now, counters

    def _decide(self, now: float, loss: float) -> bool:
        before = self.level
        if self.demand > HIGH_DEMAND or self._loss > self._max_loss:
            if now - self._last_fall > 2 * self.MAX_CALM:  # a new load, not the last one again
                self._calm = self._first_calm
            # Every level about halves the cost of a frame. A very high demand must not wait for several decisions.
            rise = int(math.log2(max(self.demand / HIGH_DEMAND, 2.0)))
            self.level = min(self.level + rise, MAX_LEVEL)
            self._calm_since, self._loss = None, 0.0
        elif self.demand > LOW_DEMAND or loss > 0:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif self.level > 0 and now - self._calm_since >= self._calm:
            self.level -= 1
            self._last_fall = now
            self._calm_since, self._calm = now, min(2 * self._calm, self.MAX_CALM)
        return self.level != before
