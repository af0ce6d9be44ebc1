"""Progress bars of a run, one per source."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from leaf_rt.stream.stats import RunStats, SourceStats
from leaf_rt.text import counted, printable


class ProgressBars:
    """Shows the state of every source while the block runs. Shows nothing if the console is no terminal."""

    def __init__(self, out: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),  # file names may contain [brackets]
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=out,
            transient=True,
            disable=out.quiet or not out.is_terminal,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}  # by name of the source

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, stats: RunStats) -> None:
        """Show the present state of the sources."""
        now = time.monotonic()
        for name in self._tasks.keys() - {source.info.name for source in stats.sources}:
            self._bars.remove_task(self._tasks.pop(name))
        for source in stats.sources:
            key = source.info.name
            name, total = printable(source.info.name), source.info.frame_count
            if key not in self._tasks:
                self._tasks[key] = self._bars.add_task(name, total=total, status="")
            self._bars.update(
                self._tasks[key],
                description=name,
                total=total,
                completed=source.processed,
                status=status(source, now),
            )


def status(source: SourceStats, now: float) -> str:
    """Describe the state of a source in one line: the rate of a file, more for a live source.

    Args:
        source: Its counters.
        now: Time on the clock of the run, s.
    """
    faults = [f"{source.dropped} dropped"] if source.dropped else []
    faults += [f"{source.damaged} damaged"] if source.damaged else []
    if not source.info.is_live:
        return ", ".join([f"{source.fps:.0f} frames/s", *faults])
    if source.state != "open":
        return f"{source.state} for {max(now - source.since, 0):.0f} s"
    parts = [f"open, {source.capture_fps:.0f} frames/s in, {source.fps:.0f} out", *faults]
    if source.level:
        parts.append(f"load level {source.level}")
    return ", ".join([*parts, counted(source.faces, "face"), f"{source.latency.p95 * 1e3:.0f} ms"])
