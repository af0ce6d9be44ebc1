"""Options of a run, and the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leaf_rt.stream.stats import Event, RunStats, SourceStats
from leaf_rt.types import Estimates, Frame, SourceInfo


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that a run calls, in the thread of its caller. They must return quickly.

    Attributes:
        opened: A source has its first frame.
        frame: A frame is finished.
        progress: Called from time to time, and once at the end.
        event: Something happened.
        closed: A source that had a frame has ended or was removed before the end of the run, and its own sinks have
            finished.
    """

    opened: Callable[[SourceInfo], None] = _ignore
    frame: Callable[[SourceInfo, Frame, Estimates], None] = _ignore
    progress: Callable[[RunStats], None] = _ignore
    event: Callable[[Event], None] = _ignore
    closed: Callable[[SourceStats], None] = _ignore


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run works.

    Attributes:
        queue: Frames to read ahead from a file, and frames that may wait for a sink.
        duration: s of wall time after which the run ends; None sets no limit.
        progress_every: s between calls of ``Hooks.progress``.
        handle_signals: Stop in good order on SIGINT and SIGTERM, if the caller is the main thread.
        drain_timeout: s for the sinks to finish at the end.
        workers: Threads that detect faces: in the frames of different sources, and in the next frames of a file while
            the last one is classified. 0 chooses by sources and CPU cores; 1 uses only the thread of the loop.
        shed: Do less work per frame when a live source cannot be processed in time.
        close_shared: Close the shared sinks at the end. False leaves them open for the next run.
    """

    queue: int = 8
    duration: float | None = None
    progress_every: float = 0.1
    handle_signals: bool = True
    drain_timeout: float = 10.0
    workers: int = 0
    shed: bool = True
    close_shared: bool = True
