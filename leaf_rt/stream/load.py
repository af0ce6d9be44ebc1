"""Load shedding: a live source that falls behind costs less before it loses more. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import replace

from leaf_rt.pipeline import PipelineOptions

MAX_LEVEL = 3


def cheaper(options: PipelineOptions, level: int) -> PipelineOptions:
    """What a frame may cost at a level: each level halves the answers per second, and the faces asked for at once."""
    if level == 0:
        return options
    rate = options.emotion_hz if options.emotion_hz > 0 else 20.0
    return replace(options, emotion_hz=max(rate / 2**level, 1.0), max_per_frame=max(options.max_per_frame >> level, 1))


class LoadControl:
    """Chooses how much work a live source's frames get: level 0 is all, each level above halves some of it.

    Args:
        period: s between decisions.
        too_many: Share of dropped frames above which the level rises.
        calm: Periods without a drop after which it falls again.
    """

    def __init__(self, period: float = 2.0, too_many: float = 0.1, calm: int = 5) -> None:
        self._period, self._too_many, self._calm = period, too_many, calm
        self._since: float | None = None
        self._captured = self._dropped = 0
        self._quiet = 0
        self.level = 0

    def update(self, now: float, captured: int, dropped: int) -> bool:
        """Look at the counters (since the start of the run) at ``now``, s; True when the level has changed."""
        if self._since is None:
            self._begin(now, captured, dropped)
            return False
        new, lost = captured - self._captured, dropped - self._dropped
        if now - self._since < self._period or new == 0:
            return False
        self._begin(now, captured, dropped)
        before = self.level
        if lost > self._too_many * new:
            self.level = min(self.level + 1, MAX_LEVEL)
            self._quiet = 0
        elif lost > 0:
            self._quiet = 0
        else:
            self._quiet += 1
            if self._quiet >= self._calm:
                self.level = max(self.level - 1, 0)
                # Each way back takes longer, so that a load at the edge does not swing to and fro.
                self._quiet, self._calm = 0, min(self._calm * 2, 60)
        return self.level != before

    def _begin(self, now: float, captured: int, dropped: int) -> None:
        self._since, self._captured, self._dropped = now, captured, dropped
