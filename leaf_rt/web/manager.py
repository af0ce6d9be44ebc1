"""The sources that clients see: adds, removes, stops and starts them in the run, and describes them.

Knows runs and the hub; must not know routes. Any thread may call it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from leaf_rt.sources.address import parse
from leaf_rt.sources.base import Source, SourceOptions, Target
from leaf_rt.stream.control import Addition, RunControl
from leaf_rt.stream.stats import RunStats, SourceStats, StageStats
from leaf_rt.text import printable
from leaf_rt.web.allow import SAMPLE, AllowList
from leaf_rt.web.hub import Hub
from leaf_rt.web.options import WebOptions
from leaf_rt.web.security import Refusal

_T = TypeVar("_T")
_ANSWER = 10.0  # s in which the loop of a run answers
_FROZEN_AFTER = 10.0  # s of one picture after which a source counts as frozen
_KINDS = {"network": "stream", "picture": "file"}
_STAGES = ("decode", "detect", "track", "align", "infer", "smooth")


def sample_clip() -> Path | None:
    """The sample clip, if this installation has it."""
    packaged = Path(__file__).parent / "sample.mp4"
    return packaged if packaged.is_file() else None


class SourceManager:
    """The sources of the run that goes on now.

    Args:
        options: How the server is set up.
        hub: Keeps their frames.
        source_options: How added sources are read.
        keep_open: Whether runs go on without sources.
        clock: The clock of the run, s, monotonic.
    """

    def __init__(
        self,
        options: WebOptions,
        hub: Hub,
        source_options: SourceOptions | None = None,
        *,
        keep_open: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options, self._hub, self._clock = options, hub, clock
        self._source_options = source_options or SourceOptions()
        self._allow = AllowList(options.allow_sources)
        self._lock = threading.Lock()
        self._keep_open, self._runs = keep_open, 0
        self._control = RunControl(keep_open)
        self._hidden: set[str] = set()  # names of sources that belong to jobs
        self._ids: dict[str, str] = {}  # by name
        self._count = 0
        self._frozen_since: dict[str, float] = {}  # by name
        self._adding = 0

    @property
    def stats(self) -> RunStats:
        """The counters of the run."""
        return self._control.stats

    @property
    def visible_stats(self) -> RunStats:
        """The same without the sources of jobs, whose names give access to them."""
        stats = self.stats
        return replace(stats, sources=[source for source in stats.sources if source.info.name not in self._hidden])

    def next_run(self) -> RunControl:
        """The control of the next run. Requests that came before the first run wait for it."""
        with self._lock:
            if self._runs > 0:
                self._control = RunControl(self._keep_open)
                self._ids.clear()
                self._hub.clear()
            self._runs += 1
            return self._control

    def describe(self) -> list[dict[str, Any]]:
        """All sources as the protocol describes them."""
        stats, now = self.stats, self._clock()
        stages = {name: round(stats.stages[name].mean * 1000.0, 2) for name in _STAGES}
        return [self._describe(source, stages, now) for source in stats.sources if source.info.name not in self._hidden]

    def states(self) -> dict[str, tuple[str, str]]:
        """State and reason of every source, by id. Much cheaper than ``describe``."""
        return {
            self.id_of(source.info.name): (_state(source), source.reason)
            for source in self.stats.sources
            if source.info.name not in self._hidden
        }

    def name_of(self, source_id: str) -> str:
        """The name of a source.

        Raises:
            Refusal: There is no source with this id.
        """
        name = next((s.info.name for s in self.stats.sources if self.id_of(s.info.name) == source_id), None)
        if name is None or name in self._hidden:
            raise Refusal(404, f"there is no source {source_id}")
        return name

    def id_of(self, name: str) -> str:
        """The id of a source, by its name."""
        with self._lock:
            if name not in self._ids:
                self._count += 1
                self._ids[name] = f"s{self._count}"
            return self._ids[name]

    async def add(self, target: str, name: str | None = None) -> dict[str, Any]:
        """Add a source for a client.

        Raises:
            Refusal: The operator does not allow this target, there are too many sources, or there is no sample clip.
        """
        if not self._allow.permits(target):
            raise Refusal(
                403, "this server does not allow this source; its operator can allow it with --allow-source ADDRESS"
            )
        name = printable(name).strip() or None if name else None
        if target == SAMPLE:
            clip = sample_clip()
            if clip is None:
                raise Refusal(404, "this installation has no sample clip; install leaf-rt again")
            target, name = str(clip), name or "Sample clip"
        kind = parse(target).kind
        is_file = kind == "file"
        asked = replace(
            self._source_options,
            name=name,
            loop=is_file,
            realtime=is_file,
            wait=kind == "network",
            mirror=self._source_options.mirror and not is_file,
            redirects=False,  # the operator allows this address, not where its server may lead
        )
        return await self._add(Addition(Target(target, asked)))

    async def add_open(self, source: Source, client_time: Callable[[int], float | None]) -> dict[str, Any]:
        """Add the camera of a browser.

        Raises:
            Refusal: There are too many sources.
        """

        def attach(name: str) -> None:
            self._hub.client_times[name] = client_time

        return await self._add(Addition(Target(source.info.name, SourceOptions()), source), attach)

    async def add_job(self, addition: Addition) -> str:
        """Add a source that no viewer sees; returns its name."""
        with self._lock:
            self._hidden.add(addition.target.options.name or addition.target.target)
        name = await self._answer(self._control.add(addition))
        with self._lock:
            self._hidden.add(name)
        return name

    async def remove_job(self, name: str) -> None:
        """End the source of a job."""
        try:
            await self._answer(self._control.remove(name))
        finally:
            with self._lock:
                self._hidden.discard(name)
                self._ids.pop(name, None)

    def job(self, name: str) -> SourceStats | None:
        """The counters of a job's source; None if there is none."""
        return next((source for source in self.stats.sources if source.info.name == name), None)

    async def remove(self, source_id: str) -> None:
        """Remove a source and what is known of it.

        Raises:
            Refusal: There is no such source.
        """
        name = self.name_of(source_id)
        await self._answer(self._control.remove(name))
        self._hub.forget(name)
        with self._lock:
            self._ids.pop(name, None)
            self._frozen_since.pop(name, None)

    async def set_running(self, source_id: str, running: bool) -> dict[str, Any]:
        """Stop or start a source.

        Raises:
            Refusal: There is no such source, or it is the camera of a browser.
        """
        name = self.name_of(source_id)
        if self._find(name)["kind"] == "browser":
            raise Refusal(409, "the camera of a browser is stopped and started on its own page")
        await self._answer(self._control.resume(name) if running else self._control.pause(name))
        return self._find(name)

    async def call(self, work: Callable[[], _T]) -> _T:
        """Call a function in the thread of the run, to which the back end belongs."""
        return await self._answer(self._control.call(work))

    def call_and_wait(self, work: Callable[[], _T]) -> _T:
        """The same for a thread that may wait."""
        return self._control.call(work).result(_ANSWER)

    async def _add(self, addition: Addition, attach: Callable[[str], None] | None = None) -> dict[str, Any]:
        with self._lock:
            if len(self.stats.sources) - len(self._hidden) + self._adding >= self._options.limits.sources:
                raise Refusal(429, "there are too many sources; remove one first")
            self._adding += 1
        try:
            name = await self._answer(self._control.add(addition))
        finally:
            with self._lock:
                self._adding -= 1
        if attach is not None:
            attach(name)
        return self._find(name)

    def _find(self, name: str) -> dict[str, Any]:
        source = next((source for source in self.describe() if source["name"] == name), None)
        if source is None:  # removed again by another client, or the counters are not here yet
            raise Refusal(404, f"there is no source {name}")
        return source

    async def _answer(self, future: Future[_T]) -> _T:
        async with asyncio.timeout(_ANSWER):
            return await asyncio.wrap_future(future)

    def _describe(self, source: SourceStats, stages: dict[str, float], now: float) -> dict[str, Any]:
        info, name = source.info, source.info.name
        state, since = _state(source), source.since
        if state == "frozen":
            since = self._frozen_since.setdefault(name, now - _FROZEN_AFTER)
        else:
            self._frozen_since.pop(name, None)
        newest = self._hub.newest(name)
        width, height = (info.width, info.height) if newest is None else newest.size
        return {
            "id": self.id_of(name),
            "name": name,
            "kind": _KINDS.get(info.kind, info.kind),
            "state": state,
            "reason": source.reason,
            "since_s": round(max(now - since, 0.0), 1),
            "retry_in_s": None if source.retry_at is None else round(max(source.retry_at - now, 0.0), 1),
            "width": width,
            "height": height,
            "capture_fps": round(source.capture_fps, 1),
            "processed_fps": round(source.fps, 1),
            "dropped": source.dropped,
            "latency_ms": {"p50": _ms(source.latency), "p95": _ms(source.latency, 95.0)},
            "stages_ms": stages,
            "faces": source.faces,
        }


def _state(source: SourceStats) -> str:
    match source.state:
        case "waiting":
            return "connecting" if source.retry_at is None else "offline"
        case "open":
            return "connecting" if source.processed == 0 else "frozen" if source.frozen else "live"
        case "lost":
            return "offline"
        case "stopped":
            return "stopped"
        case "ended":
            return "refused" if source.reason and source.last_frame is None else "ended"


def _ms(values: StageStats, percentile: float = 50.0) -> float:
    return round(values.percentile(percentile) * 1000.0, 2)
