"""What `leaf-rt batch` shows: its progress, what fails, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from leaf_rt.batch.archive import SUMMARY, Totals, Watch
from leaf_rt.batch.job import Clip, Outcome, Ready
from leaf_rt.batch.manifest import NAME
from leaf_rt.cli import console
from leaf_rt.cli.entry import EXIT_INTERRUPTED
from leaf_rt.cli.reporter import Reporter
from leaf_rt.system.closing import Closing
from leaf_rt.text import counted, printable

_SHOWN = 20  # failures in the table; the file of the totals has all


class BatchOutput(Closing):
    """Shows a batch while the block runs.

    Args:
        reporter: Where messages and results go.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        out = reporter.messages
        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=out,
            transient=True,
            disable=out.quiet or not out.is_terminal,
            expand=True,
        )
        self._task: TaskID | None = None
        self.watch = Watch(self._begins, self._ready, self._outcome)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def finish(self, totals: Totals, folder: Path) -> int:
        """Show the table, and return the exit code.

        Args:
            totals: What the batch came to.
            folder: Folder of the results.
        """
        out = self._reporter.results
        out.print()
        text = f"{counted(totals.done + totals.failed, 'file')} in {totals.seconds:.1f} s"
        rates = f"{totals.files_per_second:.2f} files/s, {totals.frames_per_second:.0f} frames/s"
        if totals.done + totals.failed:
            console.title(out, f"{text}, {rates}")
        else:
            console.title(out, "no file was finished" if totals.left else "nothing left to do")
        rows = {
            "done": f"{totals.done}, {counted(totals.frames, 'frame')}, {counted(totals.faces, 'face')}",
            "failed": str(totals.failed),
            "skipped": f"{totals.skipped}, done by an earlier start",
        }
        if totals.left:
            rows["left"] = f"{totals.left}, for the next start"
        console.facts(out, rows)
        self._print_failures(totals)
        console.facts(out, {"summary": str(folder / SUMMARY), "manifest": str(folder / NAME)})
        if totals.stopped and totals.left:
            self._reporter.notify("warning", "stopped early; the same command goes on", event="stopped")
            return EXIT_INTERRUPTED
        return self._reporter.exit_code or next((each.exit_code for each in totals.failures), 0)

    def _print_failures(self, totals: Totals) -> None:
        if not totals.failures:
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("failed", overflow="fold")
        table.add_column("reason", overflow="fold")
        for each in totals.failures[:_SHOWN]:
            table.add_row(printable(each.clip.name), Text(printable(each.reason)))
        self._reporter.results.print(table)
        if len(totals.failures) > _SHOWN:
            self._reporter.results.print(f"and {len(totals.failures) - _SHOWN} more", style="dim")

    def _begins(self, totals: Totals, left: Sequence[Clip]) -> None:
        if totals.skipped:
            text = f"skipped {counted(totals.skipped, 'file')} that an earlier start has done"
            self._reporter.notify("info", text, event="skipped")
        self._bar.start()
        size = sum(max(clip.size, 0) for clip in left)
        self._task = self._bar.add_task("", total=size, status=counted(len(left), "file"))

    def _ready(self, ready: Ready) -> None:
        for note in ready.notes:
            self._reporter.notify("info", note, event="backend")
        console.facts(self._reporter.messages, {"detector": ready.detector, "back end": ready.backend})

    def _outcome(self, outcome: Outcome, totals: Totals) -> None:
        name, reason = outcome.clip.name, outcome.reason
        if outcome.state == "failed":
            self._reporter.notify("error", reason, name, event="failed")
        elif reason:
            self._reporter.notify("warning", reason, name, event="damaged")
        else:
            self._reporter.logged(f"{outcome.frames} frames, {outcome.faces} faces", name, "finished")
        if self._task is not None:
            status = f"{totals.done + totals.failed + totals.skipped} of {counted(totals.files, 'file')}"
            status += f", {totals.failed} failed" if totals.failed else ""
            status += f", {totals.files_per_second:.2f} files/s"
            self._bar.update(self._task, advance=max(outcome.clip.size, 0), status=status)
