"""The command `leaf-rt report`. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaf_rt.cli import options as opt


def report(
    records: Annotated[
        Path, typer.Argument(metavar="RECORDS", parser=opt.named, help="Records of a run: JSON Lines, CSV or Parquet.")
    ],
    *,
    video: Annotated[
        Path | None,
        typer.Option(
            "--video", parser=opt.named, metavar="CLIP", help="The clip to show (default: the one beside the records)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", parser=opt.named, metavar="FILE", help="The report (default: named like the records, .html)."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", callback=opt.not_empty, help="Which source, if there are several."),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Make a report from records: one web page that works without a network, and its numbers as JSON.

    `leaf-rt video` writes both for every file. The page shows who was on
    screen, the expressions over time, changes and events, and goes to a moment
    of the clip by a click.
    """
    from leaf_rt.cli import console
    from leaf_rt.cli.report import report_from_records

    page, numbers, notes = report_from_records(records, video=video, out=out, source=source)
    for text in notes:
        console.note(console.console(), text)
    console.facts(console.console(stderr=False), {"report": str(page), "numbers": str(numbers)})
