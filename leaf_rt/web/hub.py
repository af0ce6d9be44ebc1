"""The hub: a sink that keeps the newest frame and the last minutes of records of every source, for those who watch.

Knows frames and records; must not know HTTP, event loops or sockets. Any thread may call it.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from leaf_rt.render.anonymize import Anonymizer
from leaf_rt.results.events import EventTracker
from leaf_rt.results.records import frame_records, utc
from leaf_rt.types import U8, Estimates, Frame, SourceInfo

MEMORY_SECONDS = 600.0
_MAX_BYTES = 64 << 20  # of records per source
_MAX_WIDTH = 1280  # px of the pictures for viewers
_QUALITY = 80  # of their JPEG


class LiveFrame:
    """A finished frame, ready to be sent.

    Attributes:
        source: Name of the source.
        seen_at: When it was finished, s on the monotonic clock.
        records: Its records, one JSON text each.
        events: What began and what ended in it, one JSON text each.
    """

    def __init__(
        self,
        frame: Frame,
        image: U8,
        records: Sequence[dict[str, Any]],
        events: Sequence[dict[str, Any]],
        seen_at: float,
        client_time: float | None,
    ) -> None:
        self.source, self.seen_at = frame.source, seen_at
        self.records = list(map(_json, records))
        self.events = list(map(_json, events))
        self._image = image
        self._frame_index, self._pts, self._captured_at = frame.index, frame.timestamp, frame.captured_at
        self._client_time = client_time
        self._lock = threading.Lock()
        self._jpeg: bytes | None = None

    def jpeg(self) -> bytes:
        """The picture as a JPEG, encoded at the first call. Takes milliseconds: not for an event loop."""
        with self._lock:
            if self._jpeg is None:
                self._jpeg = encode(self._image)
            return self._jpeg

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture of the source, px."""
        return self._image.shape[1], self._image.shape[0]

    @property
    def is_encoded(self) -> bool:
        """Whether ``jpeg`` returns at once."""
        return self._jpeg is not None

    def message(self, source_id: str, picture: bytes = b"") -> bytes:
        """The binary message of the protocol, with a picture or without one."""
        width, height = self.size
        head = {
            "type": "frame",
            "source": source_id,
            "frame_index": self._frame_index,
            "pts_s": round(self._pts, 6),
            "captured_at": utc(self._captured_at),
            "sent_at_ms": round(time.time() * 1000.0, 1),
            "client_time_ms": self._client_time,
            "width": width,
            "height": height,
        }
        text = json.dumps(head, separators=(",", ":"))[:-1] + f',"records":[{",".join(self.records)}]}}'
        header = text.encode()
        return b"".join((struct.pack("<I", len(header)), header, picture))


@dataclass(frozen=True, slots=True)
class Ending:
    """A source was lost, was stopped or has ended.

    Attributes:
        source: Its name.
        events: What ended with it, one JSON text each.
        records: Nothing; as in ``LiveFrame``.
    """

    source: str
    events: Sequence[str]
    records: Sequence[str] = ()


News: TypeAlias = LiveFrame | Ending


class _Memory:
    """The last minutes of records of one source."""

    def __init__(self, blur: bool) -> None:
        self.anonymizer = Anonymizer() if blur else None
        self.newest: LiveFrame | None = None
        self.records: deque[tuple[float, list[str]]] = deque()  # when finished, s; records of the frame
        self.size = 0  # bytes, about

    def add(self, frame: LiveFrame) -> None:
        self.newest = frame
        if frame.records:
            self.records.append((frame.seen_at, frame.records))
            self.size += sum(map(len, frame.records))
        while self.records and (self.records[0][0] < frame.seen_at - MEMORY_SECONDS or self.size > _MAX_BYTES):
            self.size -= sum(map(len, self.records.popleft()[1]))


class Hub:
    """Keeps what people and programs may ask for, and tells listeners about every frame; a ``Sink``.

    Args:
        labels: Class names in the order of the model.
        blur: Whether to hide all faces in the pictures.

    Attributes:
        name: See ``Sink``.
        wants_image: See ``Sink``.
    """

    def __init__(self, labels: Sequence[str], *, blur: bool = False) -> None:
        self.name, self.wants_image = "live page", True
        self._labels, self._blur = tuple(labels), blur
        self._events = EventTracker(labels)  # used by the thread of the sink
        self._lock = threading.Lock()
        self._memory: dict[str, _Memory] = {}
        self._listeners: list[Callable[[News], None]] = []
        self.client_times: dict[str, Callable[[int], float | None]] = {}  # by source: the time of a frame's sender

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Take the next frame of a source; see ``Sink``."""
        with self._lock:
            memory = self._memory.setdefault(source.name, _Memory(self._blur))
            listeners = list(self._listeners)
        image = frame.image
        if memory.anonymizer is not None:
            image = image.copy()
            memory.anonymizer.hide(image, estimates)
        records = frame_records(source, frame, estimates, self._labels, latency)
        client_time = self.client_times.get(source.name)
        sent = None if client_time is None else client_time(frame.index)
        events = self._events.update(source.name, frame, estimates)
        live = LiveFrame(frame, image, records, events, time.monotonic(), sent)
        with self._lock:
            memory.add(live)
        for listener in listeners:
            listener(live)

    def source_gone(self, source: SourceInfo) -> None:
        """End the expressions of a source; see ``WatchesSources``."""
        ending = Ending(source.name, list(map(_json, self._events.end(source.name))))
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(ending)

    def close(self) -> None:
        """The run is over; what is in memory stays. See ``Sink``."""

    def listen(self, listener: Callable[[News], None]) -> Callable[[], None]:
        """Call ``listener`` in the thread of the sink, for every frame and ending, until the result is called."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def newest(self, source: str) -> LiveFrame | None:
        """The newest frame of a source; None before its first one."""
        with self._lock:
            memory = self._memory.get(source)
            return None if memory is None else memory.newest

    def records(self, source: str, seconds: float) -> list[str]:
        """The records of the last ``seconds`` s of a source, oldest first, as JSON texts."""
        begin = time.monotonic() - seconds
        with self._lock:
            memory = self._memory.get(source)
            frames = [] if memory is None else [r for seen_at, r in memory.records if seen_at >= begin]
        return [text for records in frames for text in records]

    def clear(self) -> None:
        """Drop everything, before the next run."""
        with self._lock:
            self._memory.clear()
            self.client_times.clear()

    def forget(self, source: str) -> None:
        """Drop everything of a source."""
        with self._lock:
            self._memory.pop(source, None)
            self.client_times.pop(source, None)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(image: U8, max_width: int = _MAX_WIDTH, quality: int = _QUALITY) -> bytes:
    """Encode a picture (H, W, 3) uint8 BGR as JPEG, at most ``max_width`` px wide."""
    scale = max_width / image.shape[1]
    if scale < 1:
        size = (max_width, max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data.tobytes()) if done else b""
