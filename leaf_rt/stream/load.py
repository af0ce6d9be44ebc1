"""Load shedding: a live source that falls behind costs less before it loses more. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from leaf_rt.pipeline import Pipeline

MAX_LEVEL = 3


@runtime_checkable
class Thrifty(Protocol):
    """A detector that can leave out frames, between which the tracker predicts."""

    detect_every: int


class Thrift:
    """What a pipeline costs at full work, and how to make it cheaper.

    Each level halves the answers per second and the faces asked for at once, and lets the detector look at one frame
    less often: every second one at level 1, every third at level 2.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._options = pipeline.options
        detector = pipeline.detector
        self._detect_every = detector.detect_every if isinstance(detector, Thrifty) else 1

    def set_level(self, level: int) -> None:
        """Work at this level from the next frame on; 0 is full work."""
        full = self._options
        if level == 0:
            self._pipeline.options = full
        else:
            rate = full.emotion_hz if full.emotion_hz > 0 else 20.0
            self._pipeline.options = replace(
                full,
                emotion_hz=max(rate / 2**level, 1.0),
                total_hz=full.total_hz / 2**level,
                max_per_frame=max(full.max_per_frame >> level, 1),
            )
        detector = self._pipeline.detector
        if isinstance(detector, Thrifty):
            detector.detect_every = self._detect_every + level


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
