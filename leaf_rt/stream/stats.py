"""Counters, timings and events of a run. Their memory does not grow with its length."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np

from leaf_rt.results.events import DeliveryStats
from leaf_rt.types import SourceInfo

STAGES = ("decode", "detect", "track", "align", "infer", "smooth", "draw", "write", "wait")
_WINDOW = 2048  # measurements that the percentiles use

State: TypeAlias = Literal["waiting", "open", "lost", "stopped", "ended"]
Level: TypeAlias = Literal["info", "warning", "error"]


class EventKind(StrEnum):
    """What an event is about. The values appear in JSON logs."""

    LOST = "lost"  # a live source was lost and will be opened again
    RECONNECTED = "reconnected"  # a lost source is open again
    FROZEN = "frozen"  # a live source repeats one picture
    CLOCK = "clock"  # the clock of a stream jumped
    DAMAGED = "damaged"  # a source contains damaged data
    FAILED = "failed"  # a source ended with an error
    FRAME = "frame"  # the pipeline failed on a frame
    INFERENCE = "inference"  # the back end failed and is called again
    SINK = "sink"  # a sink failed on a frame, or was switched off
    LOAD = "load"  # load shedding changed the work per frame


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened during a run.

    Attributes:
        level: "info", "warning" or "error".
        source: Name of the source or sink.
        kind: What the event is about, for programs.
        text: One sentence for people.
        error: For an event of level "error", the exception that ended the source or sink. It is the same object that
            ``RunStats.failures`` holds or that ``run`` raises. None otherwise.
    """

    level: Level
    source: str
    kind: EventKind
    text: str
    error: Exception | None = None


class StageStats:
    """Durations of one stage, s. Safe to use from several threads.

    Attributes:
        total: Sum of all durations, s.
        count: Number of all durations.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[float] = deque(maxlen=_WINDOW)
        self.total = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """Add one duration, s."""
        with self._lock:
            self._newest.append(seconds)
            self.total += seconds
            self.count += 1

    @property
    def mean(self) -> float:
        """Mean of the newest durations, s; 0 if there are none. Durations without work count too."""
        with self._lock:
            return sum(self._newest) / len(self._newest) if self._newest else 0.0

    def percentile(self, q: float) -> float:
        """Percentile ``q`` in [0, 100] of the newest durations, s; 0 if there are none."""
        with self._lock:
            values = np.array(self._newest)
        return float(np.percentile(values, q)) if len(values) else 0.0

    @property
    def p50(self) -> float:
        """Median, s."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """95th percentile, s."""
        return self.percentile(95)


@dataclass(slots=True)
class SourceStats:
    """Counters of one source. After the run, ``captured == processed + dropped + failed``.

    Attributes:
        info: The source, as last opened.
        captured: Captured frames.
        processed: Frames with finished estimates.
        dropped: Frames that a newer frame replaced, that were not decoded, or that were left at the end of the run.
        skipped: Those of the dropped ones that were not even decoded.
        failed: Frames on which the pipeline failed.
        queued: Frames that wait for the pipeline now.
        position: Media time of the newest finished frame, s.
        faces: People in the newest finished frame.
        reconnects: Connections after the first one.
        stalls: How often no frame came for too long.
        jumps: How often the clock of the stream jumped.
        damaged: Damaged packets and pictures. A damaged picture is processed all the same.
        frozen: Whether the picture stands still.
        generation: Number of the newest connection, or of the newest recording of a file, from 0.
        state: "waiting" for its first frame, "open", "lost", "stopped" by a request, or "ended".
        since: When ``state`` began, s on the clock of the run.
        reason: Why it is lost, could not be opened yet, or has failed; "" if all is well. Without the address.
        retry_at: When it will be opened again, s on the clock of the run; None if no attempt is planned.
        cut: Whether the run ended the source before its own end.
        last_frame: When the newest frame was captured, s on the clock of the run; None before the first.
        capture_fps: Frames captured per second, over the last seconds.
        fps: Frames finished per second, over the last seconds.
        level: Level of load shedding; 0 is full effort, see ``Pipeline.reduce_effort``.
        demand: s of work per second that the frames of all live sources need; the loop can do 1.
        seconds: Wall time from the start of the run until the source had ended.
        latency: s from capture (live) or from the start of processing (files) to finished estimates.
    """

    info: SourceInfo
    captured: int = 0
    processed: int = 0
    dropped: int = 0
    skipped: int = 0
    failed: int = 0
    queued: int = 0
    position: float = 0.0
    faces: int = 0
    reconnects: int = 0
    stalls: int = 0
    jumps: int = 0
    damaged: int = 0
    frozen: bool = False
    generation: int = 0
    state: State = "waiting"
    since: float = 0.0
    reason: str = ""
    retry_at: float | None = None
    cut: bool = False
    last_frame: float | None = None
    capture_fps: float = 0.0
    fps: float = 0.0
    level: int = 0
    demand: float = 0.0
    seconds: float = 0.0
    latency: StageStats = field(default_factory=StageStats)
    _past: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=64))

    def update_rates(self, now: float, window: float = 3.0) -> None:
        """Update both rates at ``now``, s, over the last ``window`` s."""
        self._past.append((now, self.captured, self.processed))
        while len(self._past) > 2 and now - self._past[1][0] >= window:
            self._past.popleft()
        then, captured, processed = self._past[0]
        if now > then:
            self.capture_fps = (self.captured - captured) / (now - then)
            self.fps = (self.processed - processed) / (now - then)


@dataclass(slots=True)
class SinkStats:
    """Counters of one sink.

    Attributes:
        name: Name of the sink.
        written: Frames written.
        dropped: Frames dropped because the sink was slow or switched off.
        failed: Frames that it could not write.
        queued: Frames that wait for it now.
        off: Whether it is switched off.
        delivery: Counters of the events that it sends over the network; None if it does not.
    """

    name: str
    written: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0
    off: bool = False
    delivery: DeliveryStats | None = None


@dataclass(slots=True)
class RunStats:
    """State of a run, updated during the run.

    Attributes:
        sources: Counters of each source, in the order of the targets.
        sinks: Counters of each sink.
        stages: Durations for each of ``STAGES``; "wait" is the time without work.
        seconds: Wall time since the sources were opened.
        fps: Finished frames of all sources per second of wall time.
        batches: Calls of the back end with at least one face.
        inference_errors: Calls of the back end that failed and were repeated.
        failures: Errors that ended sources or sinks, oldest first.
        interrupted: Whether a signal or the user ended the run.
    """

    sources: list[SourceStats] = field(default_factory=list)
    sinks: list[SinkStats] = field(default_factory=list)
    stages: dict[str, StageStats] = field(default_factory=lambda: {name: StageStats() for name in STAGES})
    seconds: float = 0.0
    fps: float = 0.0
    batches: int = 0
    inference_errors: int = 0
    failures: list[Exception] = field(default_factory=list)
    interrupted: bool = False

    @property
    def processed(self) -> int:
        """Finished frames of all sources."""
        return sum(s.processed for s in self.sources)

    def update(self, seconds: float, now: float) -> None:
        """Update what depends on time: ``seconds`` of wall time so far, and ``now``, s on the clock of the run."""
        self.seconds = seconds
        self.fps = self.processed / seconds if seconds > 0 else 0.0
        for source in self.sources:
            source.update_rates(now)
            if source.state != "ended" or source.queued or source.seconds == 0:
                source.seconds = seconds
