"""A bounded queue with a thread that delivers its items in order, and tries again after errors.

Knows threads and clocks. Does not know what is sent, nor how.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

from leaf_rt.errors import first_line
from leaf_rt.results.events import DeliveryStats
from leaf_rt.text import counted

Notify: TypeAlias = Callable[[Literal["info", "warning"], str, str], None]  # level, name of the output, sentence
Item = TypeVar("Item")

CAPACITY = 1000  # events that wait for a receiver
_FIRST_DELAY, _MAX_DELAY = 1.0, 30.0  # s between attempts; doubled after each


class NotNow(Exception):
    """The receiver did not take the item; it may take it later.

    Attributes:
        delay: s to wait before the next attempt, as asked by the receiver; None if it did not ask.
    """

    def __init__(self, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class Outbox(Generic[Item]):
    """Delivers items one after the other. ``put`` never waits; where too many items wait, the oldest is dropped.

    Args:
        name: Name for messages.
        send: Delivers one item, in the thread of the outbox. It raises ``NotNow`` if a later attempt makes sense. Any
            other exception drops the item.
        notify: Gets a message when trouble begins and when it ends; called from the thread of the outbox.
        capacity: Items that may wait.

    Attributes:
        stats: The counters.
    """

    def __init__(self, name: str, send: Callable[[Item], None], notify: Notify, capacity: int = CAPACITY) -> None:
        self.stats = DeliveryStats()
        self._name, self._send, self._notify, self._capacity = name, send, notify, capacity
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._sending = self._closing = False
        self._trouble = False  # whether trouble was reported, and is not over
        self._dropped_before = 0  # when that trouble began
        self._thread = threading.Thread(target=self._run, name=f"send to {name}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item; never waits."""
        with self._changed:
            if self._closing:
                self.stats.dropped += 1
                return
            self._waiting.append(item)
            self._drop_surplus()
            self._count_waiting()
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Deliver what waits for up to ``timeout`` s, and drop the rest. The first failed attempt ends it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self.stats.dropped += len(self._waiting) + self._sending
            self._waiting.clear()
            self.stats.waiting = 0
            self._sending = False  # what the thread still does is neither counted nor reported

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while (item := self._next()) is not None:
            try:
                self._send(item)
            except NotNow as e:
                self._report(f"not delivered, trying again: {e}")
                self._sent(item, again=True)
                if self._closing:
                    return
                self._pause(e.delay if e.delay is not None else delay * random.uniform(0.75, 1.0))
                delay = min(delay * 2, _MAX_DELAY)
            except Exception as e:  # noqa: BLE001 counted and reported; one bad item must not stop the others
                self._report(f"an event was not taken and is dropped: {first_line(e)}")
                self._sent(item, dropped=True)
            else:
                delay = _FIRST_DELAY
                self._sent(item)

    def _next(self) -> Item | None:
        """Wait for the next item; None at the end."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return None
            self._sending = True
            return self._waiting.popleft()

    def _sent(self, item: Item, *, again: bool = False, dropped: bool = False) -> None:
        """Count what became of an item that was taken from the queue."""
        recovered = ""
        with self._changed:
            if not self._sending:
                return
            self._sending = False
            if again:
                self._waiting.appendleft(item)
                self._drop_surplus()
            elif dropped:
                self.stats.dropped += 1
            else:
                self.stats.delivered += 1
                if self._trouble:
                    self._trouble = False
                    lost = self.stats.dropped - self._dropped_before
                    recovered = f"delivers again; {counted(lost, 'event')} dropped meanwhile"
            self._count_waiting()
        if recovered:
            self._notify("info", self._name, recovered)

    def _report(self, text: str) -> None:
        """Report the first of several failures in a row."""
        with self._changed:
            first, self._trouble = self._sending and not self._trouble, True
            if first:
                self._dropped_before = self.stats.dropped
        if first:
            self._notify("warning", self._name, text)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._closing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _count_waiting(self) -> None:
        self.stats.waiting = len(self._waiting) + self._sending

    def _drop_surplus(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self.stats.dropped += 1
