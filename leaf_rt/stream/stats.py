"""What a run counts and measures. Memory does not grow with its length. Knows numbers alone."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np

from leaf_rt.sources.base import SourceInfo

STAGES = ("decode", "detect", "track", "align", "infer", "smooth", "draw", "write", "wait")
_WINDOW = 2048  # newest measurements that the percentiles are taken over

State: TypeAlias = Literal["waiting", "open", "lost", "ended"]
Level: TypeAlias = Literal["info", "warning", "error"]


class EventKind(StrEnum):
    """What an event is about. The values stand in JSON logs."""

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
    """Durations of one stage, s; may be added to from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[float] = deque(maxlen=_WINDOW)
        self.total = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one duration, s."""
        with self._lock:
            self._newest.append(seconds)
            self.total += seconds
            self.count += 1

    def percentile(self, q: float) -> float:
        """Of the newest durations, s; 0 where there is none. ``q`` in [0, 100]."""
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
    """One source's counters; ``captured == processed + dropped + failed`` once the run is over.

    Attributes:
        info: The source, as last opened.
        captured: Frames that came in.
        processed: Frames whose estimates were finished.
        dropped: Frames that a newer one replaced, or that came too late to be used.
        failed: Frames that broke the pipeline.
        queued: Frames that wait for the pipeline.
        position: Media time of the newest finished frame, s.
        faces: People in the newest finished frame.
        reconnects: Connections after the first.
        stalls: Times that no frame came for too long.
        jumps: Times that the stream's clock jumped.
        frozen: Whether the picture stands still.
        generation: Of the newest connection.
        state: "waiting" for its first frame, "open", "lost" or "ended".
        since: When ``state`` began, s, on the run's clock.
        cut: Whether it was ended while more could have come.
        last_frame: When the newest frame came, s, on the run's clock; None before the first.
        capture_fps: Frames that came in per second, over the last seconds.
        fps: Frames finished per second, over the last seconds.
        level: Load shedding: 0 does all the work, each step above halves some of it.
        demand: What all live frames ask of the loop that serves this one: s of work per s, 1 is all it can do.
        latency: s from capture (live) or start of processing (files) to finished estimates.
    """

    info: SourceInfo
    captured: int = 0
    processed: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0
    position: float = 0.0
    faces: int = 0
    reconnects: int = 0
    stalls: int = 0
    jumps: int = 0
    frozen: bool = False
    generation: int = 0
    state: State = "waiting"
    since: float = 0.0
    cut: bool = False
    last_frame: float | None = None
    capture_fps: float = 0.0
    fps: float = 0.0
    level: int = 0
    demand: float = 0.0
    latency: StageStats = field(default_factory=StageStats)
    _past: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=64))

    def update_rates(self, now: float, window: float = 3.0) -> None:
        """Renew the two rates at ``now``, s, over the last ``window`` s."""
        self._past.append((now, self.captured, self.processed))
        while len(self._past) > 2 and now - self._past[1][0] >= window:
            self._past.popleft()
        then, captured, processed = self._past[0]
        if now > then:
            self.capture_fps = (self.captured - captured) / (now - then)
            self.fps = (self.processed - processed) / (now - then)


@dataclass(slots=True)
class SinkStats:
    """One sink's counters: frames written, dropped because it was slow, failed, waiting; whether it is switched off."""

    name: str
    written: int = 0
    dropped: int = 0
    failed: int = 0
    queued: int = 0
    off: bool = False


@dataclass(slots=True)
class RunStats:
    """A run as it stands; renewed while it goes on.

    Attributes:
        sources: One per target, in their order.
        sinks: Every sink.
        stages: Durations by ``STAGES``; "wait" is the time the pipeline had nothing to do.
        seconds: Wall time since the sources were open.
        fps: Frames finished over wall time, all sources together.
        batches: Calls of the back end that held a face.
        inference_errors: Calls of the back end that failed and were tried again.
        failures: What made sources or sinks give up, first one first.
        interrupted: A signal or the user ended the run.
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
        """Frames finished, all sources together."""
        return sum(s.processed for s in self.sources)

    def update(self, seconds: float, now: float) -> None:
        """Renew what depends on time: wall time so far (s), and the clock's reading (s)."""
        self.seconds = seconds
        self.fps = self.processed / seconds if seconds > 0 else 0.0
        for source in self.sources:
            source.update_rates(now)
