"""Changes the sources of a run while it goes on. Any thread may call; the loop of the run does the work.

Knows targets and sinks; must not know pipelines.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from leaf_rt.errors import ConnectionLost
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import Source, Target
from leaf_rt.stream.context import RunContext
from leaf_rt.stream.stats import RunStats

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Addition:
    """A source to add.

    Attributes:
        target: What to read.
        source: The open source, if it is open already; its target is then only a name. None opens the target.
        sinks: Its only sinks. The sinks and hooks of the run then do not see it. None: it is a source like the others.
    """

    target: Target
    source: Source | None = None
    sinks: Sequence[Sink] | None = None


class Runner(Protocol):
    """What the loop of a run does on request. Names are those of the sources in the run."""

    def add_source(self, addition: Addition) -> str:
        """Add a source; returns its name in the run."""
        ...

    def remove_source(self, name: str) -> None:
        """End a source and forget its counters."""
        ...

    def pause_source(self, name: str) -> None:
        """Read a source no more, until it is resumed."""
        ...

    def resume_source(self, name: str) -> None:
        """Open a paused source again."""
        ...


class RunControl:
    """Sends requests to one run; pass it to ``leaf_rt.stream.runner.run``.

    Every method returns at once. The future has the result as soon as the loop has done the work, or a
    ``ConnectionLost`` if the run ends before that.

    Args:
        keep_open: Whether the run goes on without sources, until it is stopped.
    """

    def __init__(self, keep_open: bool = False) -> None:
        self.keep_open = keep_open
        self._requests: queue.SimpleQueue[Callable[[Runner | None], None]] = queue.SimpleQueue()
        self._context: RunContext | None = None
        self._before = RunStats()
        self._closed = False

    def add(self, addition: Addition) -> Future[str]:
        """Add a source; the result is its name in the run."""
        return self._request(lambda runner: runner.add_source(addition))

    def remove(self, name: str) -> Future[None]:
        """End a source and forget its counters. A source that is not there raises ``NotFound``."""
        return self._request(lambda runner: runner.remove_source(name))

    def pause(self, name: str) -> Future[None]:
        """Read a source no more, until it is resumed. A source that is not there raises ``NotFound``."""
        return self._request(lambda runner: runner.pause_source(name))

    def resume(self, name: str) -> Future[None]:
        """Open a paused source again. A source that is not there raises ``NotFound``."""
        return self._request(lambda runner: runner.resume_source(name))

    def call(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Call a function in the thread of the loop, between two frames. It must return within milliseconds."""
        return self._request(lambda _: work())

    def bind(self, context: RunContext) -> None:
        """The run has started; its loop calls this."""
        self._context = context

    @property
    def stats(self) -> RunStats:
        """The counters of the run; empty before it starts."""
        return self._before if self._context is None else self._context.stats

    @property
    def pending(self) -> bool:
        """Whether there is a request. Call under the lock of the run."""
        return not self._requests.empty()

    def serve(self, runner: Runner) -> None:
        """Do what was requested. The loop calls this, without the lock."""
        self._work(runner)

    def close(self) -> None:
        """The run has ended: refuse the requests that it did not see, and all later ones."""
        self._closed = True
        self._work(None)

    def _work(self, runner: Runner | None) -> None:
        while True:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return
            request(runner)

    def _request(self, work: Callable[[Runner], _Result]) -> Future[_Result]:
        future: Future[_Result] = Future()

        def do(runner: Runner | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if runner is None:
                    raise ConnectionLost("the run has ended; start leaf-rt again")
                future.set_result(work(runner))
            except Exception as e:  # noqa: BLE001 it comes out of the future, in the thread that asked
                future.set_exception(e)

        self._requests.put(do)
        if self._closed:
            self._work(None)
        elif (context := self._context) is not None:
            with context.ready:
                context.ready.notify_all()
        return future
