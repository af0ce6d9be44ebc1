"""The numbers of a source, ready for JSON: the summary file, the JSON log and the report. See docs/report.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import UNCERTAIN
from leaf_rt.results.summary import Person, Summary

SCHEMA_VERSION = 1
_DECIMALS = 4


def numbers(
    summary: Summary, source: str, *, frames: int | None = None, run: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the numbers of a finished summary.

    Args:
        summary: What was collected.
        source: Name of the source.
        frames: Number of frames that were processed, with or without faces; None if unknown.
        run: What made the results: version, time and model; None if unknown.
    """
    people = summary.people()
    transitions = sum((person.transitions for person in people), np.zeros((len(summary.labels) + 1,) * 2, np.int64))
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "labels": list(summary.labels),
        "frames": frames,
        "frames_with_faces": summary.frames_with_faces,
        "records": summary.records,
        "start": _rounded(summary.start),
        "end": _rounded(summary.end),
        "cuts": [_rounded(time) for time in summary.cuts],
        "people": [person_numbers(person, summary.labels) for person in people],
        "people_forgotten": summary.people_forgotten,
        "events": len(summary.events) + summary.events_forgotten,
        "changes": int(transitions.sum()),
        "transitions": _matrix(transitions, summary.labels),
        "run": run,
    }


def person_numbers(person: Person, labels: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of one person; times are seconds of media time."""
    longest = person.longest
    names = (*labels, UNCERTAIN)
    shown = {name: _rounded(value) for name, value in zip(names, person.shown.tolist(), strict=True) if value > 0}
    return {
        "person_id": person.person_id,
        "track_id": person.track_id,
        "first": _rounded(person.first),
        "last": _rounded(person.last),
        "seconds": _rounded(person.seconds),
        "shares": {name: _rounded(share) for name, share in person.shares(tuple(labels)).items()},
        "shown_s": shown,
        "mean_share": {
            name: _rounded(value)
            for name, value in zip(labels, person.mean_share.tolist(), strict=True)
            if name in shown and np.isfinite(value)
        },
        "changes": person.changes,
        "longest": None if longest is None else {
            "emotion": longest["emotion"], "start_s": longest["start_s"], "dwell_s": longest["dwell_s"],
        },
        "transitions": _matrix(person.transitions, labels),
    }  # fmt: skip


def _matrix(counts: NDArray[np.int64], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts of transitions (C + 1, C + 1) as {from: {to: count}}, without zeros."""
    names = (*labels, UNCERTAIN)
    rows = {
        name: {to: count for to, count in zip(names, row, strict=True) if count}
        for name, row in zip(names, counts.tolist(), strict=True)
    }
    return {name: row for name, row in rows.items() if row}


def _rounded(value: float) -> float:
    return round(float(value), _DECIMALS)
