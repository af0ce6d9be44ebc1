"""How a run is driven, and what it calls on its way. Knows types alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.types import Estimates, Frame


class StopSignal(threading.Event):
    """Set it to end a run in good order; ``at_once`` beside it leaves out what waits.

    Attributes:
        at_once: A plain flag, which is looked at between frames: a signal that breaks into native code would crash it.
        begun: Whether the sources are open, so that there is something to end in good order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.begun = False


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
        batch_wait: s that a frame may wait for frames of other sources, to share a call of the back end; never more
            than one frame time of the fastest live source. 0 batches what is ready.
        handle_signals: End in good order on SIGINT and SIGTERM, where the caller is the main thread.
        drain_timeout: s for writers to finish at the end.
        workers: Threads that find faces in the frames of different sources; 0 chooses by sources and cores.
        shed: Do less per frame where a live source falls behind.
        close_shared: Close the shared sinks at the end of the run; False leaves them open for the next run.
    """

    queue: int = 8
    duration: float | None = None
    progress_every: float = 0.1
    batch_wait: float = 0.0
    handle_signals: bool = True
    drain_timeout: float = 10.0
    workers: int = 0
    shed: bool = True
    close_shared: bool = True
