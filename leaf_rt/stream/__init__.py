"""The threaded shell round the pure pipeline; see ``leaf_rt.stream.runner``."""

from __future__ import annotations

from leaf_rt.stream.capture import Clock
from leaf_rt.stream.options import Hooks, RunOptions, StopSignal
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, RunStats, SinkStats, SourceStats, StageStats

__all__ = [
    "Clock",
    "Event",
    "Hooks",
    "RunOptions",
    "RunStats",
    "SinkStats",
    "SourceStats",
    "StageStats",
    "StopSignal",
    "run",
]
