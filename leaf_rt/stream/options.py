"""How a run is driven, and what it calls on its way. Knows types alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.types import Estimates, Frame


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called while a run goes on, always in the caller's thread; keep each one short.

    Attributes:
        opened: A source has given its first frame.
        frame: A frame is finished.
        progress: From time to time, and once at the end.
        event: Something that a person may want to know.
    """

    opened: Callable[[SourceInfo], None] = _ignore
    frame: Callable[[SourceInfo, Frame, Estimates], None] = _ignore
    progress: Callable[[RunStats], None] = _ignore
    event: Callable[[Event], None] = _ignore


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is driven.

    Attributes:
        queue: Frames that a file is read ahead, and that may wait for a sink.
        duration: s of wall time after which the run ends; None sets no limit.
        progress_every: s between calls of ``Hooks.progress``.
        handle_signals: End in good order on SIGINT and SIGTERM, where the caller is the main thread.
        drain_timeout: s for writers to finish at the end.
        workers: Threads that find faces in the frames of different sources; 0 chooses by sources and cores.
        shed: Do less per frame where a live source falls behind.
    """

    queue: int = 8
    duration: float | None = None
    progress_every: float = 0.1
    handle_signals: bool = True
    drain_timeout: float = 10.0
    workers: int = 0
    shed: bool = True
