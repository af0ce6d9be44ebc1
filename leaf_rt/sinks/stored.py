"""Checks records and numbers that were read from files, field by field and once: what follows relies on every value.

Knows their fields; must not know files or formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from leaf_rt.labels import BLENDSHAPES, MAX_LABELS, UNCERTAIN
from leaf_rt.models.spec import check_metrics
from leaf_rt.results.records import BLENDSHAPE, BOX_COLUMNS, POSE
from leaf_rt.system.parsing import is_json
from leaf_rt.text import printable

MAX_COUNT = 2**53  # of numbers that count something; JSON keeps larger ones only roughly
MAX_TIME = 1e10  # s of media time, over 300 years; programs may give seconds since 1970
_MAX_PIXEL = 1e9
_LAST_DATE = 253_402_300_800.0  # s since 1970, the year 10,000
_MAX_NAME = 4096  # characters of a label or of the name of a source
_MAX_SHOWN = 60  # characters of a wrong value in a message


class WrongField(ValueError):
    """A field is missing or wrong; the text names it."""

    def __init__(self, name: str, wanted: str, got: object) -> None:
        is_plain = got is None or isinstance(got, str | int | float)
        shown = printable(repr(got)[:_MAX_SHOWN]) if is_plain else f"a {type(got).__name__}"
        super().__init__(f"field {name}: wanted {wanted}, got {shown}")


def checked_record(row: object) -> dict[str, Any]:
    """Return a record with the fields that readers use, each of its type and within its range.

    Records of version 1 have neither cuts nor people: they get shot 0, and the person gets the number of the track.

    Args:
        row: What was read. Other fields are left out.

    Returns:
        The fields of ``leaf_rt.results.records.record`` but for ``schema_version`` and ``latency_ms``; pose and
        blendshapes only if they are there. ``captured_at`` is in s since 1970, or None; ``quality`` may be None.

    Raises:
        WrongField: The first field that is missing or wrong.
    """
    if not isinstance(row, Mapping):
        raise ValueError("it is no object")
    found: dict[str, Any] = {name: _name(_get(row, name), name) for name in ("source", "emotion")}
    for name in ("frame_index", "generation", "track_id"):
        found[name] = _count(_get(row, name), name)
    found["shot"] = _count(row.get("shot", 0), "shot")
    found["person_id"] = _count(row.get("person_id", found["track_id"]), "person_id")
    found["pts_s"] = _number(_get(row, "pts_s"), "pts_s", 0.0, MAX_TIME)
    found["captured_at"] = _date(_get(row, "captured_at"))
    box = _get(row, "box")
    if not isinstance(box, list) or len(box) != 4:
        raise WrongField("box", "four numbers", box)
    found["box"] = [_number(value, "box", -_MAX_PIXEL, _MAX_PIXEL) for value in box]
    found["confidence"] = _number(_get(row, "confidence"), "confidence", 0.0, 1.0)
    for name in ("probs", "smoothed"):
        found[name] = _shares(_get(row, name), name)
    if tuple(found["probs"]) != tuple(found["smoothed"]):
        raise WrongField("probs", "the labels of smoothed", list(found["probs"]))
    for name in ("classified", "poor"):
        found[name] = _get(row, name)
        if not isinstance(found[name], bool):
            raise WrongField(name, "true or false", found[name])
    quality = row.get("quality")  # older records have none
    found["quality"] = None if quality is None else _number(quality, "quality", 0.0, 1.0)
    for name in POSE:
        if row.get(name) is not None:
            found[name] = _number(row[name], name, -180.0, 180.0)
        elif name in row:
            found[name] = None
    if "blendshapes" in row:
        found["blendshapes"] = _blendshapes(row["blendshapes"])
    return found


def nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a row of a table; ``leaf_rt.results.records.column_names`` has the columns."""
    box = [row.get(name) for name in BOX_COLUMNS]
    shares: dict[str, Any] = {
        kind: {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        for kind, prefix in (("probs", "prob_"), ("smoothed", "smoothed_"))
    }
    shapes = {name.removeprefix(BLENDSHAPE): value for name, value in row.items() if name.startswith(BLENDSHAPE)}
    if shapes:
        shares["blendshapes"] = None if all(value is None for value in shapes.values()) else shapes
    return {**row, "box": box, **shares}


def checked_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report takes over from the numbers of a run: ``frames``, ``start``, ``end`` and ``run``.

    Args:
        found: A ``.summary.json`` file.

    Raises:
        ValueError: One of them is missing or wrong.
    """
    frames, run = _get(found, "frames"), _get(found, "run")
    start, end = (_number(_get(found, name), name, 0.0, MAX_TIME) for name in ("start", "end"))
    if not isinstance(run, Mapping) or not isinstance(run.get("model"), Mapping) or end < start or not is_json(run):
        raise WrongField("run", "what made the results", run)
    model = run["model"]
    metrics = model.get("metrics")
    for owner, name in ((run, "version"), (run, "created_at"), (model, "name"), (model, "precision")):
        _name(_get(owner, name), name)
    if metrics is not None:
        check_metrics(metrics)
    return {"frames": None if frames is None else _count(frames, "frames"), "start": start, "end": end, "run": run}


def _get(row: Mapping[Any, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"no field {name!r}")
    return row[name]


def _count(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise WrongField(name, "a whole number from 0", value)
    return value


def _name(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or any("\ud800" <= c <= "\udfff" for c in value):
        raise WrongField(name, "a name", value)
    return value


def _number(value: object, name: str, low: float, high: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or not math.isfinite(value):  # type: ignore[operator, arg-type]
        raise WrongField(name, f"a number from {low:g} to {high:g}", value)
    return float(value)  # type: ignore[arg-type]


def _date(value: object) -> float | None:
    if value is None:
        return None
    try:
        seconds = datetime.fromisoformat(value).timestamp() if isinstance(value, str) else -1.0
    except (ValueError, OverflowError, OSError):
        seconds = -1.0
    if not 0.0 <= seconds < _LAST_DATE:
        raise WrongField("captured_at", "a time such as 2026-01-02T03:04:05.678Z, or null", value)
    return seconds


def _blendshapes(value: object) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != set(BLENDSHAPES):
        raise WrongField("blendshapes", f"{len(BLENDSHAPES)} named numbers, or null", value)
    return {name: _number(value[name], f"blendshapes.{name}", 0.0, 1.0) for name in BLENDSHAPES}


def _shares(value: object, name: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not 2 <= len(value) <= MAX_LABELS or UNCERTAIN in value:
        raise WrongField(name, f"a share for each of 2 to {MAX_LABELS} labels other than {UNCERTAIN}", value)
    return {
        _name(label, f"{name}, a label"): _number(share, f"{name}.{printable(str(label))[:_MAX_SHOWN]}", 0.0, 1.0)
        for label, share in value.items()
    }
