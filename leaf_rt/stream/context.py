"""What the parts of one run share: its lock, clock, options, counters and events."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from leaf_rt.stream.decode_control import DecodeBudget
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.system.signals import StopSignal


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a run.

    Attributes:
        monotonic: For durations, s.
        utc: For dates, s since 1970.
    """

    monotonic: Callable[[], float] = time.monotonic
    utc: Callable[[], float] = time.time


class RunContext:
    """Shared by all threads of one run.

    Attributes:
        options: How the run works.
        stop: The request to stop.
        clock: The time.
        stats: The counters of the run.
        budget: What its live sources may decode.
        events: Events that ``Hooks.event`` has not received yet. Any thread may put one here.
        lock: Guards the frame buffers and the state of every source.
        ready: Condition on ``lock``. It is notified when the loop may have something to do.
    """

    def __init__(self, options: RunOptions, stop: StopSignal, clock: Clock) -> None:
        self.options, self.stop, self.clock = options, stop, clock
        self.stats = RunStats()
        self.budget = DecodeBudget()
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.lock = threading.RLock()
        self.ready = threading.Condition(self.lock)

    def now(self) -> float:
        """Time for durations, s."""
        return self.clock.monotonic()

    def report(self, event: Event) -> None:
        """Queue an event for the caller of ``run``."""
        self.events.put(event)
