"""Fakes for runs: scripted sources, failing sinks, estimates."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from fakes import FakeBackend, FakeDetector, face_at

from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.labels import FERPLUS8
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.closing import Closing
from leaf_rt.types import Detections, Estimates, Frame, SourceInfo

LABELS = FERPLUS8
INFO = SourceInfo("clip.mp4", "clip.mp4", "file", 320, 240, 25.0)
LIVE = replace(INFO, name="cam", target="rtsp://cam/1", kind="network", is_live=True)


def picture(value: int, height: int = 240, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), value % 256, np.uint8)


def frame(index: int, timestamp: float | None = None, source: str = "clip.mp4", **fields: Any) -> Frame:
    return Frame(picture(index), index, index / 25 if timestamp is None else timestamp, source, **fields)


def estimates(timestamp: float, faces: int = 1) -> Estimates:
    """Estimates of ``faces`` happy people."""
    probs = np.full((faces, len(LABELS)), 0.01, np.float32)
    probs[:, 1] = 1 - 0.01 * (len(LABELS) - 1)
    boxes = np.array([[10 + 70 * i, 20, 70 + 70 * i, 80] for i in range(faces)], np.float32).reshape(-1, 4)
    ids = np.arange(1, faces + 1, dtype=np.int64)
    emotion = np.ones(faces, np.int64)
    yes = np.ones(faces, np.bool_)
    return Estimates(timestamp, ids, boxes, np.full(faces, 0.9, np.float32), probs, probs, emotion, yes, ~yes, boxes)


class Script(Closing):
    """A source that follows a list.

    Entries: a Frame is yielded, an Exception is raised, an Event is awaited, a callable is called.
    """

    def __init__(self, info: SourceInfo, entries: Sequence[Frame | Exception | threading.Event | Callable[[], Any]]):
        self.info = info
        self.warnings: list[str] = []
        self.damaged = 0
        self.decode_time: float | None = 0.0
        self.entries = entries
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for entry in self.entries:
            if isinstance(entry, Frame):
                yield entry
            elif isinstance(entry, Exception):
                raise entry
            elif isinstance(entry, threading.Event):
                assert entry.wait(60), "the event was never set"
            else:
                entry()

    def close(self) -> None:
        self.closed.set()


class Opener:
    """Opens scripts: for each target, a list with the result of every attempt (a Script or an error)."""

    def __init__(self, **scripts: list[Script | Exception]) -> None:
        self.scripts = {name: list(attempts) for name, attempts in scripts.items()}
        self.attempts: dict[str, int] = dict.fromkeys(scripts, 0)

    def __call__(self, target: str, options: SourceOptions) -> Script:
        name = target.rpartition("/")[2]
        self.attempts[name] += 1
        result = self.scripts[name].pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class Keeping:
    """A sink that stores (source name, frame index, generation, timestamp) of each frame."""

    def __init__(self, name: str = "keeping", wants_image: bool = False) -> None:
        self.name, self.wants_image = name, wants_image
        self.rows: list[tuple[str, int, int, float]] = []
        self.latencies: list[float] = []
        self.closed = 0

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        self.rows.append((source.name, frame.index, frame.generation, frame.timestamp))
        self.latencies.append(latency)

    def close(self) -> None:
        self.closed += 1


class Failing(Keeping):
    """A sink that calls ``act`` with the number of the frame before it stores it."""

    def __init__(self, act: Callable[[int], None], name: str = "failing") -> None:
        super().__init__(name)
        self._act = act
        self._count = 0

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        self._count += 1
        self._act(self._count - 1)
        super().write(source, frame, estimates, latency)


class OneFace(FakeDetector):
    """Finds the same face in every frame; ``act`` may raise on a frame."""

    def __init__(self, act: Callable[[Frame], None] | None = None) -> None:
        super().__init__([])
        self._act = act

    def detect(self, frame: Frame) -> Detections:
        if self._act is not None:
            self._act(frame)
        return face_at(50, 50)


def pipelines(backend: FakeBackend, act: Callable[[Frame], None] | None = None) -> Callable[[SourceInfo], Pipeline]:
    return lambda info: Pipeline(OneFace(act), FaceTracker(), backend)


class FakeCapture:
    """A fake of OpenCV's capture."""

    def __init__(self, opened: bool = True, pictures: int = 5, size: tuple[int, int] = (480, 640)) -> None:
        self.opened, self.left, self.size = opened, pictures, size
        self.requested: dict[int, float] = {}
        self.released = 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        image = np.zeros((*self.size, 3), np.uint8)
        image[:, 0] = 255
        return True, image

    def set(self, prop: int, value: float) -> bool:
        self.requested[prop] = value
        return True

    def get(self, prop: int) -> float:
        return 30.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released += 1


QUICK = RunOptions(drain_timeout=5.0)


class Calm(random.Random):
    """A random generator without jitter: always 0.5."""

    def random(self) -> float:
        return 0.5


def frames(count: int, start: int = 0, **fields: Any) -> list[Frame]:
    return [frame(i, **fields) for i in range(start, start + count)]


def slow_frames(count: int, gap: float = 0.01, start: int = 0) -> list[Frame | Callable[[], None]]:
    """Frames that are slow enough for the pipeline."""
    return [entry for one in frames(count, start) for entry in (one, lambda: time.sleep(gap))]


def watched_frames(count: int, sink: Keeping, name: str = "cam") -> list[Frame | Callable[[], None]]:
    """Frames of a live source, each after the sink has received the one before, so that none is dropped."""
    before: list[int] = []

    def rows() -> int:
        return sum(row[0] == name for row in list(sink.rows))

    def seen() -> None:
        deadline = time.monotonic() + 30
        while rows() <= before[-1] and time.monotonic() < deadline:
            time.sleep(0.002)

    return [entry for one in frames(count) for entry in (lambda: before.append(rows()), one, seen)]


def play(opener: Any, *names: str, ask: SourceOptions | None = None, **arguments: Any) -> RunStats:
    targets = [Target(f"rtsp://u:p@host/{name}", ask or SourceOptions()) for name in names]
    backend = arguments.pop("backend", None) or FakeBackend()
    act = arguments.pop("act", None)
    arguments.setdefault("options", QUICK)
    return run(targets, pipelines(backend, act), backend, opener=opener, rng=Calm(), **arguments)


def balanced(stats: RunStats) -> bool:
    return all(s.captured == s.processed + s.dropped + s.failed for s in stats.sources)


def capture_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("capture", "writer", "faces", "open"))]


def no_thread_stays() -> None:
    """Assert that every thread of a run ends soon after it."""
    deadline = time.monotonic() + 30
    while capture_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capture_threads() == []
