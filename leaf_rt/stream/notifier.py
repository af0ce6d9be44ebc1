"""Calls the hooks of a run, in the thread of its caller."""

from __future__ import annotations

import contextlib
import logging
import queue

from leaf_rt.stream.context import RunContext
from leaf_rt.stream.options import Hooks

_log = logging.getLogger("leaf_rt.stream")
_log.addHandler(logging.NullHandler())  # the terminal belongs to the caller
_LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Notifier:
    """Delivers events and progress.

    Args:
        context: The run.
        hooks: What to call.

    Attributes:
        started: When the run started, s.
    """

    def __init__(self, context: RunContext, hooks: Hooks) -> None:
        self.started = context.now()
        self._context, self._hooks = context, hooks
        self._last_progress = self.started

    def deliver_events(self) -> None:
        """Log every queued event and pass it on."""
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._context.events.get_nowait()
                _log.log(_LOG_LEVELS[event.level], "%s: %s", event.source, event.text)
                self._hooks.event(event)

    def progress_if_due(self) -> None:
        """Report progress if ``RunOptions.progress_every`` has passed."""
        now = self._context.now()
        if now - self._last_progress >= self._context.options.progress_every:
            self._last_progress = now
            self.progress()

    def progress(self) -> None:
        """Deliver events, update the counters and report progress."""
        self.deliver_events()
        now = self._context.now()
        self._context.stats.update(now - self.started, now)
        self._hooks.progress(self._context.stats)
