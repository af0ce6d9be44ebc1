"""One source across all its connections: state, frame numbers, media time, delays before a retry."""

from __future__ import annotations

import random
from dataclasses import replace

from leaf_rt.sources.timeline import MAX_GAP
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.reconnect import Backoff, FreezeWatch, MediaClock
from leaf_rt.stream.stats import Event, EventKind, Level, SourceStats, State
from leaf_rt.text import counted
from leaf_rt.types import Frame, SourceInfo

_DAMAGE_PERIOD = 60.0  # s between reports of damage
_PAUSE = 1.0  # s of media time between a file that was stopped and its new start


class Connection:
    """Keeps what must survive a reconnect. Starts no thread.

    Call every method under the lock of the run, except ``report``, ``watch`` and ``damaged``.

    Args:
        context: The run.
        name: Name of the source in this run.
        stats: Its counters.
        max_reconnects: Attempts in a row to open it again; None sets no limit.
        rng: For the jitter of the delays.

    Attributes:
        error: What ended the source for good.
    """

    def __init__(
        self, context: RunContext, name: str, stats: SourceStats, max_reconnects: int | None, rng: random.Random
    ) -> None:
        self.name, self.stats = name, stats
        self.error: Exception | None = None
        self._context = context
        self._first_index = self._next_index = 0  # frame numbers continue over all connections
        self._first_time = self._next_time = 0.0  # s, so does the time of a file
        self._paused = False
        self._backoff = Backoff(rng, attempts=max_reconnects)
        self._media = MediaClock()
        self._freeze = FreezeWatch()
        self._joined = 0  # recordings of a file before the present one
        self._damage_reported: float | None = None  # s on the clock of the run
        self.describe(stats.info)
        stats.since = context.now()

    def describe(self, info: SourceInfo) -> None:
        """Store what is known of the source, under its name in this run."""
        self.stats.info = replace(info, name=self.name)

    def opened(self, info: SourceInfo) -> bool:
        """The source is open; returns whether this is a reconnect."""
        stats = self.stats
        is_reconnect = stats.last_frame is not None and not self._paused
        self.describe(info)
        self._backoff.connected(self._context.now())
        stats.reason, stats.retry_at = "", None
        stats.reconnects += is_reconnect
        if stats.last_frame is not None:
            stats.generation += 1
            self._media.restart()
            self._first_index, self._first_time = self._next_index, self._next_time
            self._joined = 0
        self._paused = False
        self._set_state("open")
        return is_reconnect

    def pause(self) -> None:
        """The source is stopped by a request, until ``resume``."""
        self._paused = True
        self.stats.reason, self.stats.retry_at, self.stats.frozen = "", None, False
        self._set_state("stopped")

    def resume(self) -> None:
        """The source will be opened again."""
        self._set_state("waiting")

    def lost(self, reason: str) -> float | None:
        """The source was lost, or did not open.

        Args:
            reason: Why, without the address.

        Returns:
            s to wait before the next attempt; None if none is left.
        """
        now = self._context.now()
        delay = self._backoff.lost(now)
        self.stats.reason = reason
        self.stats.retry_at = None if delay is None else now + delay
        if delay is not None and self.stats.state == "open":
            self._set_state("lost")
        return delay

    def ended(self, error: Exception | None) -> None:
        """The source has ended for good."""
        self.error = error
        self.stats.reason = "" if error is None else self.without_address(str(error))
        self.stats.retry_at = None
        self._set_state("ended")

    def cut(self) -> None:
        """The run ends the source."""
        self.stats.cut |= self.stats.state != "ended"
        self._set_state("ended")

    def watch(self, frame: Frame, now: float) -> None:
        """Report a picture that stands still. Outside the lock: it reads the picture."""
        if self._freeze.see(frame.image, now):
            self.report("warning", EventKind.FROZEN, "the picture has not changed for 10 s; is the camera stuck?")

    def damaged(self, count: int, now: float, *, report: bool) -> None:
        """Count damage of the source, and report it: at once, then at most once per minute. Not under the lock.

        Args:
            count: Damaged packets and pictures since the last call.
            now: s on the clock of the run.
            report: Whether to report it; a file reports its damage once, at its end.
        """
        with self._context.lock:
            self.stats.damaged += count
            total = self.stats.damaged
            due = report and (self._damage_reported is None or now - self._damage_reported >= _DAMAGE_PERIOD)
            if due:
                self._damage_reported = now
        if due:
            text = f"{counted(total, 'damaged picture')} so far; check the network and the camera"
            self.report("warning", EventKind.DAMAGED, text)

    def left_out(self, count: int) -> None:
        """Count pictures that were not decoded, to save time."""
        self.stats.captured += count
        self.stats.dropped += count
        self.stats.skipped += count

    def stamp(self, frame: Frame, info: SourceInfo, now: float) -> Frame:
        """Give a frame its name, number and media time in this run, and count it."""
        stats = self.stats
        index, timestamp = frame.index, frame.timestamp
        index += self._first_index
        if info.reconnects:
            jumps = self._media.jumps
            timestamp = self._media.stamp(timestamp, now)
            if self._media.jumps > jumps:
                stats.jumps += 1
                text = "the clock of the stream jumped; media time continues"
                if abs(self._media.jump) > MAX_GAP:  # what follows may be another recording
                    stats.generation += 1
                    text = "the clock of the stream jumped by more than an hour; what follows is a new connection"
                self.report("warning", EventKind.CLOCK, text)
        else:
            timestamp += self._first_time  # 0 unless the file was stopped and started again
        if not info.reconnects and frame.generation > self._joined:
            stats.jumps += frame.generation - self._joined
            stats.generation += frame.generation - self._joined
            self._joined = frame.generation
            text = "the times jump by more than an hour, as in joined recordings; media time continues"
            self.report("warning", EventKind.CLOCK, text)
        self._next_index, self._next_time = index + 1, timestamp + _PAUSE
        stats.captured += 1
        stats.last_frame = now
        stats.frozen = self._freeze.frozen
        return replace(
            frame,
            index=index,
            timestamp=timestamp,
            source=self.name,
            generation=stats.generation,
            captured_at=self._context.clock.utc() if info.is_live else None,
        )

    def report(self, level: Level, kind: EventKind, text: str, error: Exception | None = None) -> None:
        """Report an event of this source. Its name replaces the address at the start of the text."""
        self._context.report(Event(level, self.name, kind, self.without_address(text), error))

    def without_address(self, text: str) -> str:
        """The text without the address or the name at its start."""
        return text.removeprefix(f"{self.stats.info.target}: ").removeprefix(f"{self.name}: ")

    def _set_state(self, state: State) -> None:
        if state != self.stats.state:
            self.stats.state = state
            self.stats.since = self._context.now()
