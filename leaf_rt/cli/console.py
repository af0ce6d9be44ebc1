"""How leaf-rt speaks to a person at a terminal: the block at the start, progress, tables.

Knows rich and the results' types; must not know sources, models or threads. What is for people goes to stderr where
stdout carries records.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from leaf_rt.errors import LeafError, NoPermission, OutputError
from leaf_rt.labels import rgb
from leaf_rt.text import printable

if TYPE_CHECKING:
    from leaf_rt.diagnostics.doctor import Finding
    from leaf_rt.results.summary import Summary
    from leaf_rt.types import Estimates

_MARKS = {"ok": ("✓", "+", "green"), "limited": ("·", "-", "yellow"), "missing": ("✗", "x", "red")}


def console(stderr: bool = True, quiet: bool = False) -> Console:
    """A console on the stream as it is now (tests and pipes replace it), without reshaping long lines in files.

    A quiet one swallows everything.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):  # a name that the terminal has no letters for is no reason to fail
        stream.reconfigure(errors="backslashreplace")
    plain = Console(file=stream, highlight=False, soft_wrap=False, quiet=quiet)
    if not plain.is_terminal:
        plain.width = max(plain.width, 160)
    return plain


def nobody_reads(error: BaseException) -> bool:
    """Whether output failed because its reader has gone, as `head` does once it has seen enough."""
    return isinstance(error, BrokenPipeError) or isinstance(error.__cause__, BrokenPipeError)


def exit_code(error: BaseException) -> int:
    """The exit code for an error that a person can act on."""
    if nobody_reads(error):
        return 128 + 13  # what shells report for SIGPIPE
    return error.exit_code if isinstance(error, LeafError) else 1


def refused(error: Exception) -> LeafError | None:
    """What a refusal by the operating system means to a person, None for any other error."""
    if isinstance(error, PermissionError) and error.filename:
        return NoPermission(f"{error.filename}: no permission; change its permissions, or choose another place")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            mute_stdout()
        return OutputError(f"{error.filename or 'standard output'}: no room left to write; free some space")
    return None


def mute_stdout() -> None:
    """What is still buffered for output that failed must not raise again at exit."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def facts(out: Console, rows: Mapping[str, str]) -> None:
    """Two columns: what, and how it is; a line each, where no terminal's width folds it."""
    if not out.is_terminal:
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            out.print(Text(f"{name:<{width}}  {printable(value)}"), soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, Text(printable(value)))
    out.print(grid)


def title(out: Console, text: str) -> None:
    """The line above what was found in a source."""
    out.print(Text(printable(text), style="bold"))


def error(out: Console, sentence: str) -> None:
    """One sentence about what went wrong."""
    out.print(Text("error: ", style="bold red").append(printable(sentence), style="not bold default"), soft_wrap=True)


def note(out: Console, sentence: str) -> None:
    """One sentence worth knowing."""
    out.print(Text("note: ", style="yellow").append(printable(sentence), style="default"), soft_wrap=True)


def progress(out: Console) -> Progress:
    """A bar with frames/s and time left; silent where nobody watches."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # file names may hold [brackets]
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=out,
        transient=True,
        disable=out.quiet or not out.is_terminal,
        expand=True,
    )


def people(out: Console, summary: Summary, limit: int = 20) -> None:
    """Per person: seconds on screen, share of that time per expression."""
    found = summary.people()
    if not found:
        out.print("no face found")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("person", justify="right")
    table.add_column("from", justify="right")
    table.add_column("to", justify="right")
    table.add_column("on screen", justify="right")
    table.add_column("shown", overflow="fold")
    for person in found[:limit]:
        table.add_row(
            str(person.track_id),
            f"{person.first:.1f} s",
            f"{person.last:.1f} s",
            f"{person.seconds:.1f} s",
            _shares(person.shares(summary.labels).items()),
        )
    out.print(table)
    more = len(found) - limit
    if more > 0 or summary.people_forgotten:
        out.print(f"and {max(0, more) + summary.people_forgotten} more, on screen for a shorter time", style="dim")


def faces(out: Console, estimates: Estimates, labels: tuple[str, ...]) -> None:
    """A table of the faces of one picture."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("face", "left", "top", "width", "height", "found"):
        table.add_column(name, justify="right")
    table.add_column("expression", overflow="fold")
    for row in range(len(estimates)):
        x0, y0, x1, y1 = estimates.xyxy[row].tolist()
        best = estimates.probs[row].argsort()[::-1][:3].tolist()
        shares = _shares((labels[k], float(estimates.probs[row, k])) for k in best)
        if estimates.low_quality[row]:
            shares.append("  (small, blurred or turned away)", style="dim")
        numbers = (f"{x0:.0f}", f"{y0:.0f}", f"{x1 - x0:.0f}", f"{y1 - y0:.0f}", f"{estimates.confidence[row]:.0%}")
        table.add_row(str(estimates.track_id[row]), *numbers, shares)
    out.print(table)


def findings(out: Console, found: Iterable[Finding]) -> None:
    """The doctor's report."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="bold")
    table.add_column(overflow="fold", min_width=16)
    plain = out.options.ascii_only
    for finding in found:
        sign, plain_sign, color = _MARKS[finding.status]
        text = Text(printable(finding.found))
        if finding.remedy:
            text.append(f"\n{'->' if plain else '→'} {finding.remedy}", style="dim")
        table.add_row(Text(plain_sign if plain else sign, style=color), Text(printable(finding.topic)), text)
    out.print(table)


def _shares(shares: Iterable[tuple[str, float]]) -> Text:
    """Names and per cent, each name in its emotion's colour."""
    text = Text()
    for name, share in shares:
        red, green, blue = rgb(name)
        text.append("  " if text else "")
        text.append(name, style=f"rgb({red},{green},{blue})")
        text.append(f" {share:.0%}" if share >= 0.005 else " <1%")
    return text
