"""Decides what a live source leaves out when not all frames can be decoded in time, or not all are needed.

Decoding comes after everything else: a frame that is decoded late is only old, but a pipeline that waits for a core
loses the frames of all sources. Three measures, each stronger than the one before:

1. Pictures that no other picture needs are not decoded.
2. Of some groups of pictures only the key frame is decoded. All sources have the same share of such groups, and have
   them in turn.
3. A source that still falls behind goes on at its next key frame.

Knows how sources decode; must not know pipelines. Times are arguments.
"""

from __future__ import annotations

import math
import threading
from typing import Self

from leaf_rt.sources.base import Decoding, Skip

PERIOD = 0.5  # s over which the smallest delay is taken
LATE = 0.2  # s by which every frame of a period is late from which on pictures are left out
VERY_LATE = 0.5  # s; a source that is later, and falls back further, goes on at its next key frame
USELESS = 0.5  # share of frames in vain from which on pictures are left out
ROOM = 0.15  # share of frames in vain below which everything may be decoded again
CALM = 0.5  # s of room after which everything is decoded again; doubled where that soon proves too much
MAX_CALM = 30.0  # s
STEADY = 10.0  # s for which everything must be decoded before the next trouble counts as a new one
SETTLE = 1.0  # s after a change in which a source asks for no other one: what the change brings shows by then
MAX_KEY_TIME = 5.0  # s; a source whose key frames are further apart does not wait for one
FEW, MOST = 0.3, 0.75  # share of the decoded frames that are processed; outside, the share of the groups changes
MIN_SHARE = 0.5  # of the groups that are decoded as a whole; with less, a source would be seen too rarely
_FALL, _RISE = 0.6, 2.0  # of that share, per ``_STEP_TIME``
_STEP_TIME = 1.0  # s
_STAGGER = 0.618  # sources whose key frames come at the same time leave out different groups
_REORDERED = 4  # pictures after a key frame by which the decoder has given it
_RAMP = 0.5  # s over which the sources begin, one after the other, to decode everything again
_LOSS_TIME = 0.6  # s over which the share of frames in vain is averaged
_DRIFT = 1e-3  # s per s by which the clocks of a camera and of this machine may differ


class DecodeBudget:
    """What all live sources of a run may decode together. Safe to use from any thread.

    Attributes:
        share: Share of the groups of pictures that each source decodes as a whole, where pictures are left out.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._lock = threading.Lock()
        self._sources: list[DecodeControl] = []
        self._joined = 0
        self._next_step = self._next_all = -math.inf  # s; when the share may change, and when a source may decode all

    def join(self, source: DecodeControl) -> float:
        """Count one more source; returns its first part of a group, so that not all sources have the same turn."""
        with self._lock:
            self._sources.append(source)
            self._joined += 1
            return self._joined * _STAGGER % 1.0

    def leave(self, source: DecodeControl) -> None:
        """Count one source less."""
        with self._lock:
            self._sources.remove(source)

    def adapt(self, now: float) -> None:
        """Bring the share nearer to what is processed, at ``now``, s."""
        with self._lock:
            if now < self._next_step:
                return
            self._next_step = now + _STEP_TIME
            taken = 1.0 - sum(source.vain for source in self._sources) / len(self._sources)
            step = _FALL if taken < FEW else _RISE if taken > MOST else 1.0
            self.share = min(max(self.share * step, MIN_SHARE), 1.0)

    def may_decode_all(self, now: float) -> bool:
        """Whether a source may decode everything again, from ``now``, s."""
        with self._lock:
            if now < self._next_all or self.share < 1.0:
                return False
            self._next_all = now + _RAMP / max(len(self._sources), 1)
            return True


class DecodeControl:
    """Chooses what one live source leaves out, for one connection. A context manager: it counts among the sources.

    Args:
        decoding: How the source is decoded; this object changes it.
        budget: That of the run.
        fps: Of the source.

    Attributes:
        delay: s by which the frame that came soonest was late, in the last period. One frame may be late by chance.
        vain: Share of the newest frames that another one replaced before they were processed.
        is_late: Whether the delay is large and grows.
    """

    def __init__(self, decoding: Decoding, budget: DecodeBudget, fps: float) -> None:
        self._decoding, self._budget, self._fps = decoding, budget, fps
        self._best = math.inf  # s; the smallest difference between arrival and time of a frame
        self._last: tuple[float, float] | None = None  # arrival and time of the last frame, s
        self._period: tuple[float, float] | None = None  # begin of the period, and its smallest delay, s
        self._calm = CALM
        self._room_since: float | None = None  # s, while pictures are left out
        self._since = -math.inf  # s; when what is decoded last changed
        self._waits = False
        self._group, self._turn = 0, 0.0  # number of the newest group that was chosen; part of the next one to decode
        self._counted = 0  # pictures that were left out
        self.delay = self.vain = 0.0
        self.is_late = False

    def __enter__(self) -> Self:
        self._turn = self._budget.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.leave(self)

    def update(self, now: float, timestamp: float, in_vain: bool) -> bool:
        """Note a decoded frame; returns whether less is decoded from now on.

        Args:
            now: When it came, s.
            timestamp: Its time in the source, s.
            in_vain: Whether it replaced the frame before it, which was not processed.
        """
        before = self._decoding.skip
        if self._waits:  # this is the key frame
            self._waits = False
            self._since, self._period = now, None
            self.delay, self.is_late = 0.0, False
            passed, delay = 0.0, self._measure(now, timestamp)[1]
        else:
            passed, delay = self._measure(now, timestamp)
        self.vain += (in_vain - self.vain) * min(passed / _LOSS_TIME, 1.0)
        begin, least = self._period or (now, math.inf)
        self._period = (begin, min(least, delay))
        if now - begin >= PERIOD:
            self.is_late = self._period[1] > self.delay > VERY_LATE
            self.delay = self._period[1]
            self._period = None
        self._decide(now)
        return self._decoding.skip > before

    def left_out(self) -> int:
        """Pictures that were left out since the last call."""
        count = self._decoding.skipped - self._counted
        self._counted += count
        return count

    def _measure(self, now: float, timestamp: float) -> tuple[float, float]:
        """How long ago the frame before this one came, and how late this one is, s."""
        if self._last is None or timestamp < self._last[1]:  # the clock of the source was set
            self._best, passed = math.inf, 0.0
        else:
            passed = now - self._last[0]
        self._last = (now, timestamp)
        self._best = min(self._best + _DRIFT * passed, now - timestamp)
        return passed, now - timestamp - self._best

    def _decide(self, now: float) -> None:
        decoding, passed = self._decoding, now - self._since
        if decoding.skip is Skip.NONE:
            if self.delay > LATE or self.vain > USELESS:
                self._calm = min(2 * self._calm, MAX_CALM) if passed < STEADY else CALM
                decoding.skip, self._since, self._room_since = Skip.UNREFERENCED, now, None
            return
        if passed >= SETTLE:
            self._budget.adapt(now)
        if self._leaves_group() or (self.is_late and passed >= SETTLE and self._has_keys):
            decoding.skip, self._waits = Skip.TO_KEY, True
        elif self.delay > LATE or self.vain > ROOM:
            self._room_since = None
        elif self._room_since is None:
            self._room_since = now
        elif now - self._room_since >= self._calm and self._budget.may_decode_all(now):
            decoding.skip, self._since = Skip.NONE, now

    @property
    def _has_keys(self) -> bool:
        return 0 < self._decoding.key_distance <= MAX_KEY_TIME * self._fps

    def _leaves_group(self) -> bool:
        """Whether only the key frame of this group of pictures is decoded; once per group, when the decoder gave it."""
        decoding = self._decoding
        if decoding.keys == self._group or decoding.since_key <= _REORDERED or not self._has_keys:
            return False
        self._group = decoding.keys
        self._turn += self._budget.share
        if self._turn < 1.0:
            return True
        self._turn -= 1.0
        return False
