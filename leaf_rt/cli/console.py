"""Text and tables for people, and what an error means for them.

Knows rich and the types of the results; must not know sources, models or threads.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leaf_rt.cli.streams import ReaderGone
from leaf_rt.credentials import mask_in
from leaf_rt.errors import LeafError, NoPermission, NotFound, OutputError, out_of_resources
from leaf_rt.labels import rgb
from leaf_rt.text import printable

if TYPE_CHECKING:
    from leaf_rt.diagnostics.doctor import Finding
    from leaf_rt.results.summary import Summary
    from leaf_rt.types import Estimates

_MARKS = {"ok": ("✓", "+", "green"), "limited": ("·", "-", "yellow"), "missing": ("✗", "x", "red")}


class MaskedLines(logging.Formatter):
    """Formats log records as lines without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        return mask_in(super().format(record))


def console(stderr: bool = True, quiet: bool = False) -> Console:
    """Make a console on stderr or stdout. It does not fold lines at 80 columns if the stream is no terminal.

    Args:
        stderr: Whether to write to stderr.
        quiet: Whether to discard all output.
    """
    stream = sys.stderr if stderr else sys.stdout  # the present one: tests replace it
    if isinstance(stream, io.TextIOWrapper):  # a name that the encoding cannot represent must not raise an error
        stream.reconfigure(errors="backslashreplace")
    out = Console(file=stream, highlight=False, soft_wrap=False, quiet=quiet)
    if not out.is_terminal:
        out.width = max(out.width, 160)
    return out


def is_broken_pipe(error: BaseException) -> bool:
    """Whether output failed because its reader has ended, as `head` does after some lines."""
    gone = (BrokenPipeError, ReaderGone)
    return isinstance(error, gone) or isinstance(error.__cause__, gone)


def exit_code(error: BaseException) -> int:
    """The exit code for an error that the user can act on."""
    if is_broken_pipe(error):
        return 128 + 13  # as shells report SIGPIPE
    return error.exit_code if isinstance(error, LeafError) else 1


def system_error(error: Exception) -> LeafError | None:
    """Translate an error of the operating system that the user can act on; None for any other error."""
    if isinstance(error, PermissionError) and error.filename:
        return NoPermission(f"{error.filename}: permission denied; change its permissions, or choose another file")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return NotFound(f"{str(error.filename or '')[:40]}...: this name is too long for a file; is it a mistake?")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            mute_stdout()
        return OutputError(f"{error.filename or 'standard output'}: no space left on the device; free some space")
    return out_of_resources(error)


def mute_stdout() -> None:
    """Discard the rest of the output, so that flushing it at exit does not raise the error again."""
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)


def facts(out: Console, rows: Mapping[str, str]) -> None:
    """Print names and values in two columns. If the console is no terminal, print each pair on one line."""
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
    """Print the title of a source's results."""
    out.print(Text(printable(text), style="bold"))


def error(out: Console, sentence: str) -> None:
    """Print an error message, without credentials."""
    text = printable(mask_in(sentence))
    out.print(Text("error: ", style="bold red").append(text, style="not bold default"), soft_wrap=True)


def note(out: Console, sentence: str, keep: str = "") -> None:
    """Print a note, without credentials except in ``keep``; see ``mask_in``."""
    text = printable(mask_in(sentence, keep=keep))
    out.print(Text("note: ", style="yellow").append(text, style="default"), soft_wrap=True)


def people(out: Console, summary: Summary, limit: int = 20) -> None:
    """Print a table of the people in a video: their time on screen, and the share of each expression."""
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
            str(person.person_id),
            f"{person.first:.1f} s",
            f"{person.last:.1f} s",
            f"{person.seconds:.1f} s",
            _shares(person.shares(summary.labels).items()),
        )
    out.print(table)
    others = max(0, len(found) - limit) + summary.people_forgotten
    if others:
        out.print(f"and {others} more with less time on screen", style="dim")


def faces(out: Console, estimates: Estimates, labels: tuple[str, ...]) -> None:
    """Print a table of the faces in a picture, with their three most probable expressions."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("face", "left", "top", "width", "height", "found"):
        table.add_column(name, justify="right")
    table.add_column("expression", overflow="fold")
    for row in range(len(estimates)):
        x0, y0, x1, y1 = estimates.xyxy[row].tolist()
        best = estimates.probs[row].argsort()[::-1][:3].tolist()
        shares = Text("uncertain: ", style="dim") if estimates.emotion[row] < 0 else Text()
        shares.append(_shares((labels[k], float(estimates.probs[row, k])) for k in best))
        if estimates.low_quality[row]:
            shares.append("  (small, blurred or turned away)", style="dim")
        box = (f"{x0:.0f}", f"{y0:.0f}", f"{x1 - x0:.0f}", f"{y1 - y0:.0f}", f"{estimates.confidence[row]:.0%}")
        table.add_row(str(estimates.track_id[row]), *box, shares)
    out.print(table)


def findings(out: Console, found: Iterable[Finding]) -> None:
    """Print the report of the doctor."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="bold")
    table.add_column(overflow="fold", min_width=16)
    ascii_only = out.options.ascii_only
    for finding in found:
        sign, ascii_sign, color = _MARKS[finding.status]
        text = Text(printable(mask_in(finding.found)))
        if finding.remedy:
            text.append(f"\n{'->' if ascii_only else '→'} {printable(finding.remedy)}", style="dim")
        topic = Text(printable(mask_in(finding.topic)))
        table.add_row(Text(ascii_sign if ascii_only else sign, style=color), topic, text)
    out.print(table)


def _shares(shares: Iterable[tuple[str, float]]) -> Text:
    """Format expressions with their percentages, each in its color."""
    text = Text()
    for name, share in shares:
        red, green, blue = rgb(name)
        text.append("  " if text else "")
        text.append(printable(name), style=f"rgb({red},{green},{blue})")
        text.append(f" {share:.0%}" if share >= 0.005 else " <1%")
    return text
