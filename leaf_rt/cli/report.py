"""The report of a source: written at the end of a run, and by `leaf-rt report` from its records."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from leaf_rt.cli import console
from leaf_rt.errors import NotFound, OutputError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.render.report import Clip, report_html
from leaf_rt.results.numbers import numbers
from leaf_rt.results.summary import MAX_ABSENCE, Summary
from leaf_rt.sinks.reading import read_records
from leaf_rt.sinks.stored import checked_numbers
from leaf_rt.system.parsing import read_json
from leaf_rt.system.result_file import PARTIAL, ResultFile
from leaf_rt.text import printable

MAX_INTERVALS = 40_000  # of all curves of a report; about 2.5 MB
_ENDINGS = (".jsonl", ".csv", ".parquet")


def run_facts(model: Path, spec: ModelSpec, precision: str) -> dict[str, Any]:
    """What made the results, for the numbers and the head of the report.

    Args:
        model: The model file.
        spec: Its description.
        precision: The precision of the inference.
    """
    return {
        "version": version("leaf-rt"),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "model": {
            "name": model.stem,
            "precision": precision,
            "sha256": spec.sha256,
            "metrics": spec.metrics,
            "licence": spec.licence,
        },
    }


def relative_clip(video: Path, report: Path, start: float = 0.0) -> Clip:
    """The video as the report shows it: by its path from the folder of the report.

    Args:
        video: The video file.
        report: The report.
        start: Media time of its first picture, s.
    """
    path = os.path.relpath(os.path.realpath(video), os.path.realpath(report.parent))
    return Clip(quote(os.fsencode(Path(path).as_posix())), start)


def report_from_records(
    records: Path, *, video: Path | None = None, out: Path | None = None, source: str | None = None
) -> tuple[Path, Path, list[str]]:
    """Write the report and its numbers from a file of records.

    Args:
        records: JSON lines, CSV or Parquet.
        video: The clip to show; None takes the one that lies beside the records, if there is one.
        out: The report; None takes the name of the records.
        source: Which source to take, if the records are of several.

    Returns:
        The report, the file of its numbers, and notes about the records.

    Raises:
        LeafError: The records cannot be read, the video does not exist, or the results cannot be written.
    """
    if video is not None and not video.is_file():
        raise NotFound(f"--video {video}: no such file; give the clip, or omit --video")
    stem = records.name.removesuffix(PARTIAL)  # what a killed run leaves can be read too
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    report = records.with_name(f"{stem}.html") if out is None else out
    if report.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"--out {report}: the report is a web page; use a name that ends in .html")
    stored = read_records(records, source)
    summary = Summary(stored.labels, max_gap=MAX_ABSENCE if stored.live else None, max_intervals=MAX_INTERVALS)
    with console.console().status(f"reading {printable(records.name)}"):  # an hour of five people takes half a minute
        for frame, estimates in stored.frames():
            summary.add(frame, estimates)
    summary.finish()
    earlier = _earlier(records.with_name(f"{stem}.summary.json"), summary, stored.source)
    frames, run, clip = None, None, None
    if earlier is not None:
        frames, run = earlier["frames"], earlier["run"]
        summary.start, summary.end = earlier["start"], earlier["end"]
    if video is not None:
        clip = relative_clip(video, report)
    elif (beside := _beside(records, stored.source)) is not None:
        clip = relative_clip(beside, report)
    elif earlier is not None and records.with_name(f"{stem}.mp4").is_file():  # annotated: starts with the first frame
        clip = relative_clip(records.with_name(f"{stem}.mp4"), report, summary.start)
    found = numbers(summary, stored.source, frames=frames, run=run)
    notes = [f"{records.name}: {note}." for note in stored.notes]
    numbers_path = report.with_suffix(".summary.json")
    with ResultFile(report) as page, ResultFile(numbers_path) as numbers_file:
        fill_report(page, numbers_file, summary, found, clip, notes)
        numbers_file.complete()
        page.complete()
    return report, numbers_path, notes


def fill_report(
    page: ResultFile,
    numbers_file: ResultFile,
    summary: Summary,
    found: dict[str, Any],
    clip: Clip | None,
    notes: Sequence[str] = (),
) -> None:
    """Write the report and its numbers into open files.

    Raises:
        NoPermission, OutputError: A file cannot be written.
    """
    numbers_file.write((json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    page.write(report_html(summary, found, clip, notes).encode("utf-8", "backslashreplace"))


def _earlier(path: Path, summary: Summary, source: str) -> dict[str, Any] | None:
    """The numbers that the run wrote beside the records, if they are of these records; they name the model."""
    try:
        found = read_json(path)
        same = (found["source"], found["records"]) == (source, summary.records)
        return checked_numbers(found) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _beside(records: Path, source: str) -> Path | None:
    """The clip of the records, if it lies in their folder or below; a record must not name any other file."""
    clip = Path(source)
    try:
        return (
            records.parent / clip
            if not clip.is_absolute() and ".." not in clip.parts and (records.parent / clip).is_file()
            else None
        )
    except (OSError, ValueError):  # no possible name
        return None
