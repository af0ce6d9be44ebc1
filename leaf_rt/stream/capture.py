"""One source in a thread of its own: opened, read, watched, opened again.

A live feed has one slot in which the newest frame replaces an older one; a file's feed has a bounded queue that makes
the reader wait. A capture that hangs is left to itself and replaced: its thread finds that it is no longer wanted.
Knows sources and clocks; must not know pipelines or sinks.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from leaf_rt.errors import ConnectionLost, LeafError, TimedOut
from leaf_rt.sources.base import Source, SourceInfo, SourceOptions, Target
from leaf_rt.stream.reconnect import Backoff, FreezeWatch, MediaClock
from leaf_rt.stream.stats import Event, EventKind, Level, SourceStats, StageStats
from leaf_rt.types import Frame

_BAD = "given up, for one frame after another could not be processed"

Opener: TypeAlias = Callable[[str, SourceOptions], Source]


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a run: one for durations (s, monotonic), one for dates (s since 1970, UTC)."""

    monotonic: Callable[[], float] = time.monotonic
    utc: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A frame and when it came, s on the monotonic clock."""

    frame: Frame
    arrived: float


class CaptureThread:
    """Frames of one target, for one consumer.

    Args:
        target: What to read.
        name: The source's name in this run.
        source: The source, if it is open already.
        error: Why it is not; the feed begins by trying again.
        opener: Opens the target anew after every loss.
        lock: Shared by all feeds of a run.
        ready: Condition on ``lock``, notified when there is something to take.
        stats: Counters to keep, under ``lock``.
        decode: Where decoding times go.
        report: Takes events, from any thread.
        capacity: Frames read ahead from a file.
        clock: Tells the time.
        rng: For the jitter of the delays.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        source: Source | None,
        error: LeafError | None,
        opener: Opener,
        lock: threading.RLock,
        ready: threading.Condition,
        stats: SourceStats,
        decode: StageStats,
        report: Callable[[Event], None],
        capacity: int,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.target, self.name, self.stats = target, name, stats
        self.error: Exception | None = None  # what ended the feed for good
        self._options = target.options
        self._opener, self._report, self._clock, self._decode = opener, report, clock, decode
        self._ready, self._space = ready, threading.Condition(lock)
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._epoch = 0  # of the capture that is wanted; others are to vanish
        self._first_index = self._next_index = 0  # frames are counted on over all connections
        self._backoff = Backoff(rng, attempts=self._options.max_reconnects)
        self._media = MediaClock()
        self._freeze = FreezeWatch()
        self._seen = clock.monotonic()  # when the capture last gave a sign of life
        self._watched = False  # whether it must give one
        self._threads: list[threading.Thread] = []
        stats.since = self._seen
        self._first = (source, error)
        if source is not None:
            self._describe(source.info)

    @property
    def ended(self) -> bool:
        """No frame waits and none will come. Call under the lock."""
        return self.stats.state == "ended" and not self._items

    def start(self) -> None:
        """Start capturing."""
        (source, error), self._first = self._first, (None, None)
        self._spawn(0, source, error)

    def has_item(self) -> bool:
        """Whether a frame waits. Call under the lock."""
        return bool(self._items)

    def take(self) -> Item:
        """The next frame. Call under the lock, when there is one."""
        item = self._items.popleft()
        self.stats.queued = len(self._items)
        self._space.notify_all()
        return item

    def stop(self) -> None:
        """Capture nothing more; what waits can still be taken. Call under the lock."""
        self._epoch += 1
        self._watched = False
        self.stats.cut |= self.stats.state != "ended"
        self._set_state("ended")
        self._space.notify_all()
        self._ready.notify_all()

    def fail(self, error: Exception) -> None:
        """Give the source up for an error of its consumer; what waits is not wanted any more."""
        with self._ready:
            self.error = error
            self.stop()
            self.drop_rest()
        self._say("error", EventKind.FAILED, f"{_BAD} ({error!r})", error)

    def drop_rest(self) -> None:
        """Count what waits as dropped. Call under the lock."""
        self.stats.dropped += len(self._items)
        self.stats.queued = 0
        self._items.clear()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` s for the capture threads; whether all of them have ended."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def deadline(self) -> float | None:
        """When ``check`` has to look again, s; None while nothing is awaited. Call under the lock."""
        return self._seen + self._options.stall_timeout if self._watched else None

    def check(self, now: float) -> None:
        """Give up a capture that shows no sign of life. Call under the lock."""
        if self._watched and now - self._seen >= self._options.stall_timeout:
            self.stats.stalls += 1
            self._epoch += 1
            self._watched = False
            silence = TimedOut(f"{self.stats.info.target}: sent no frame for {self._options.stall_timeout:g} s")
            self._spawn(self._epoch, None, silence)

    def _spawn(self, epoch: int, source: Source | None, error: LeafError | None) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        name = f"capture {self.name}"
        thread = threading.Thread(target=self._run, args=(epoch, source, error), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, epoch: int, source: Source | None, error: LeafError | None) -> None:
        """A capture thread's life: until the source ends, or somebody else took over."""
        try:
            while True:
                if error is not None and not self._recover(epoch, error):
                    return
                source, error = self._capture(epoch, source)
                if error is None:
                    return
        except Exception as e:  # noqa: BLE001 a fault of the program: it ends this feed and comes out in the caller of run()
            self._end(epoch, e)

    def _capture(self, epoch: int, source: Source | None) -> tuple[None, LeafError | None]:
        """Open if need be and read to the end; gives the loss to recover from, or None when all is over."""
        live = True
        try:
            if source is None:
                self._sign_of_life(epoch)
                source = self._opener(self.target.target, self._options)
            live = _reconnects(source.info)
            if not self._connected(epoch, source):
                return None, None
            self._pump(epoch, source)
            if live:
                raise ConnectionLost(f"{source.info.target}: the stream ended")
        except LeafError as e:
            if live:
                return None, e
            self._end(epoch, e)
            return None, None
        finally:
            if source is not None:
                source.close()
        self._end(epoch, None)
        return None, None

    def _pump(self, epoch: int, source: Source) -> None:
        """Hand over every frame until the source ends or is no longer wanted."""
        realtime = source.info.kind == "file" and source.info.is_live
        begin: tuple[float, float] | None = None  # when the first frame was shown, and its media time
        warned = 0
        frames = iter(source)
        while True:
            start = self._clock.monotonic()
            frame = next(frames, None)
            now = self._clock.monotonic()
            for text in source.warnings[warned:]:
                self._say("warning", EventKind.DAMAGED, text)
            warned = len(source.warnings)
            if frame is None:
                return
            self._decode.add(now - start if source.decode_time is None else source.decode_time)
            if realtime:
                begin = begin or (now, frame.timestamp)
                if not self._sleep(epoch, begin[0] + frame.timestamp - begin[1] - now):
                    return
                now = self._clock.monotonic()
            if not self._put(epoch, source.info, frame, now):
                return

    def _put(self, epoch: int, info: SourceInfo, frame: Frame, now: float) -> bool:
        """Offer a frame to the consumer; False if this capture is no longer wanted."""
        live = info.is_live
        frozen = live and self._freeze.see(frame.image, now)
        with self._ready:
            while not live and len(self._items) >= self._capacity and epoch == self._epoch:
                self._space.wait()
            if epoch != self._epoch:
                return False
            stats = self.stats
            if _reconnects(info):
                jumps = self._media.jumps
                timestamp = self._media.stamp(frame.timestamp, now)
                index = self._first_index + frame.index
                self._next_index = index + 1
                if self._media.jumps > jumps:
                    stats.jumps += 1
                    self._say("warning", EventKind.CLOCK, "the stream's clock jumped; media time goes on as before")
            else:
                timestamp, index = frame.timestamp, frame.index
            frame = replace(
                frame,
                index=index,
                timestamp=timestamp,
                source=self.name,
                generation=stats.generation,
                captured_at=self._clock.utc() if live else None,
            )
            if live and self._items:
                stats.dropped += len(self._items)
                self._items.clear()
            self._items.append(Item(frame, now))
            stats.queued = len(self._items)
            stats.captured += 1
            stats.last_frame = self._seen = now
            stats.frozen = self._freeze.frozen
            self._ready.notify_all()
        if frozen:
            self._say("warning", EventKind.FROZEN, "the picture has not changed for 10 s; is the camera stuck?")
        return True

    def _connected(self, epoch: int, source: Source) -> bool:
        """Note that frames come; False if this capture is no longer wanted."""
        with self._ready:
            if epoch != self._epoch:
                return False
            now = self._clock.monotonic()
            again = self.stats.last_frame is not None
            self._describe(source.info)
            self._backoff.connected(now)
            self._seen = now
            self._watched = _reconnects(source.info)
            if again:
                self.stats.reconnects += 1
                self.stats.generation += 1
                self._media.restart()
                self._first_index = self._next_index
            self._set_state("open")
        if again:
            self._say("info", EventKind.RECONNECTED, f"is back (connection {self.stats.generation + 1})")
        return True

    def _recover(self, epoch: int, error: LeafError) -> bool:
        """Wait before the next attempt; False if there is none, or this capture is no longer wanted."""
        with self._ready:
            if epoch != self._epoch:
                return False
            self._watched = False
            delay = self._backoff.lost(self._clock.monotonic())
            if delay is not None and self.stats.state == "open":
                self._set_state("lost")
        if delay is None:
            self._end(epoch, error)
            return False
        self._say("warning", EventKind.LOST, f"{self._bare(str(error))}; trying again in {delay:.1f} s")
        return self._sleep(epoch, delay)

    def _sign_of_life(self, epoch: int) -> None:
        with self._ready:
            if epoch == self._epoch:
                self._seen = self._clock.monotonic() + self._options.open_timeout  # opening may take that long
                self._watched = True

    def _sleep(self, epoch: int, seconds: float) -> bool:
        """Wait; False at once when this capture is no longer wanted."""
        deadline = self._clock.monotonic() + seconds
        with self._space:
            while epoch == self._epoch and (left := deadline - self._clock.monotonic()) > 0:
                self._space.wait(left)
            return epoch == self._epoch

    def _end(self, epoch: int, error: Exception | None) -> None:
        with self._ready:
            if epoch != self._epoch:
                return
            self.error = error
            self._watched = False
            self._set_state("ended")
            self._ready.notify_all()
        if error is not None:
            self._say("error", EventKind.FAILED, str(error), error)

    def _describe(self, info: SourceInfo) -> None:
        self.stats.info = replace(info, name=self.name)

    def _set_state(self, state: str) -> None:
        if state in ("waiting", "open", "lost", "ended") and state != self.stats.state:
            self.stats.state = state  # type: ignore[assignment]
            self.stats.since = self._clock.monotonic()

    def _bare(self, text: str) -> str:
        """The sentence without the address before it; the event carries the name."""
        return text.removeprefix(f"{self.stats.info.target}: ")

    def _say(self, level: Level, kind: EventKind, text: str, error: Exception | None = None) -> None:
        self._report(Event(level, self.name, kind, self._bare(text), error))


def _reconnects(info: SourceInfo) -> bool:
    """Whether the end of this source is a loss: cameras and endless streams, never a file."""
    return info.is_live and info.kind in ("camera", "network")


def close_quietly(source: Source) -> None:
    """Close a source that is given up for another error."""
    with contextlib.suppress(LeafError, OSError):
        source.close()
