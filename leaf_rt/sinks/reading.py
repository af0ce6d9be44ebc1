"""Reads the records that these sinks write, JSON lines, CSV or Parquet, as frames and estimates again."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from leaf_rt.errors import BackendError, DataError, NoPermission, NotFound, install_hint
from leaf_rt.labels import UNCERTAIN
from leaf_rt.results.records import POSE
from leaf_rt.system.parsing import parse_json
from leaf_rt.system.reading import open_regular
from leaf_rt.text import printable
from leaf_rt.types import F32, Estimates, Frame

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_NO_BOXES = np.zeros((0, 4), np.float32)
_KINDS = "JSON lines, CSV or Parquet of leaf-rt"
_Rows = Iterator[tuple[str, dict[str, Any]]]  # where the row is, for messages; the record


@dataclass(slots=True)
class StoredRecords:
    """The records of one source in a file.

    Attributes:
        path: The file.
        source: Name of the source.
        labels: Names of the C classes.
        live: Whether the source was live.
        notes: What was left out, one sentence each; complete once all frames were read.
    """

    path: Path
    source: str
    labels: tuple[str, ...]
    live: bool
    notes: list[str] = field(default_factory=list)
    _rows: _Rows = field(default_factory=lambda: iter(()))
    _one_source: bool = False

    def frames(self) -> Iterator[tuple[Frame, Estimates]]:
        """The frames that show a face, in their order. May be read once.

        Raises:
            DataError: A row is not a record, or the rows are of several sources or runs.
        """
        index = {name: number for number, name in enumerate(self.labels)} | {UNCERTAIN: -1}
        newest = -1.0
        others: set[str] = set()
        kept = self._kept(others)
        for (_, _), group in itertools.groupby(kept, key=lambda row: (row[1]["frame_index"], row[1]["generation"])):
            rows = list(group)
            where, first = rows[0]
            try:
                frame, estimates = _frame(self.source, [row for _, row in rows], self.labels, index)
            except (KeyError, TypeError, ValueError) as e:
                raise _not_a_record(self.path, where, e) from e
            if frame.timestamp < newest:
                raise DataError(
                    f"{self.path}: {where}: the time goes back from {newest:g} s to {first['pts_s']:g} s, so the file "
                    f"holds several runs; give the records of one run"
                )
            newest = frame.timestamp
            yield frame, estimates
        if others:
            names = ", ".join(printable(name) for name in sorted({self.source, *others}))
            raise DataError(f"{self.path}: holds records of several sources ({names}); choose one with --source NAME")

    def _kept(self, others: set[str]) -> _Rows:
        """The rows of the source; the names of all other sources are added to ``others`` unless one was chosen."""
        for where, row in self._rows:
            try:
                name = row["source"]
            except (KeyError, TypeError) as e:
                raise _not_a_record(self.path, where, e) from e
            if name == self.source:
                yield where, row
            elif not self._one_source:
                others.add(str(name))


def read_records(path: Path, source: str | None = None) -> StoredRecords:
    """Open a file of records; its content decides the format, not its name.

    Args:
        path: JSON lines, CSV or Parquet, as ``--jsonl``, ``--csv`` and ``--parquet`` write them. An incomplete last
            line, which a killed process may leave, is left out.
        source: Name of the source to read, if the file may hold several.

    Raises:
        NotFound, NoPermission: It cannot be opened.
        DataError: It is not a file of records, or has none of the source.
        BackendError: It is a Parquet file, and pyarrow is not installed.
    """
    notes: list[str] = []
    rows = _open_rows(path, notes)
    skipped: set[str] = set()
    for where, row in rows:
        try:
            name, labels, live = row["source"], tuple(row["smoothed"]), row["captured_at"] is not None
        except (KeyError, TypeError) as e:
            raise _not_a_record(path, where, e) from e
        if source is None or name == source:
            if len(labels) < 2 or not isinstance(name, str):
                raise _not_a_record(path, where, ValueError("fewer than two labels"))
            again = itertools.chain([(where, row)], rows)
            return StoredRecords(path, name, labels, live, notes, again, source is not None)
        skipped.add(str(name))
    if skipped:
        names = ", ".join(printable(name) for name in sorted(skipped))
        raise DataError(f"{path}: has no records of --source {source}; it holds {names}")
    hint = notes[0] if notes else "no face was found, or nothing was written yet"
    raise DataError(f"{path}: holds no record; {hint}")


def _open_rows(path: Path, notes: list[str]) -> _Rows:
    try:
        with open_regular(path) as f:
            head = f.read(4096)
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such file; give a file of records ({_KINDS})") from e
    except IsADirectoryError as e:
        raise NotFound(f"{path}: is a folder; give a file of records ({_KINDS})") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read; change its permissions") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); give a file of records ({_KINDS})") from e
    if head.startswith(b"PAR1"):
        return _parquet(path)
    if b"\0" in head or head[:1] not in (b"", b"{", b"s", b"\xef"):
        raise DataError(f"{path}: is not a file of records; give {_KINDS}")
    return _csv(path, notes) if head.lstrip(b"\xef\xbb\xbf").startswith(b"schema_version") else _jsonl(path, notes)


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Number and text of every line, and whether it ends with a newline."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as f:
        for number, line in enumerate(f, 1):
            yield number, line, line.endswith("\n")


def _jsonl(path: Path, notes: list[str]) -> _Rows:
    for number, line, complete in _lines(path, notes):
        if not line.strip():
            continue
        try:
            yield f"line {number}", parse_json(line)
        except ValueError as e:
            if complete or number == 1:
                raise _not_a_record(path, f"line {number}", e) from e
            notes.append(f"the last line ({number}) is incomplete and was left out")


def _csv(path: Path, notes: list[str]) -> _Rows:
    def lines(f: TextIO) -> Iterator[str]:
        for line in f:
            if line.endswith("\n"):
                yield line
            else:
                notes.append("the last line is incomplete and was left out")

    with path.open(encoding="utf-8-sig", errors="replace", newline="") as f:
        reader = csv.reader(lines(f))
        names = next(_parsed(reader, path), [])
        for number, values in enumerate(_parsed(reader, path), 2):
            where = f"line {number}"
            if len(values) != len(names):
                raise _not_a_record(path, where, ValueError(f"{len(values)} values for {len(names)} columns"))
            try:
                yield where, _nested(dict(zip(names, values, strict=True)))
            except (KeyError, ValueError) as e:
                raise _not_a_record(path, where, e) from e


def _parsed(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """What a CSV reader reads; its own errors, such as a field without end, become ours."""
    try:
        yield from reader
    except csv.Error as e:
        raise DataError(f"{path}: is not a CSV file of leaf-rt ({e}); give {_KINDS}") from e


def _parquet(path: Path) -> _Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise BackendError(f"{path}: Parquet needs pyarrow; {install_hint('parquet')}") from e
    try:
        number = 0
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield f"row {number}", _nested(row)
                    except (KeyError, TypeError, ValueError) as e:
                        raise _not_a_record(path, f"row {number}", e) from e
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path}: is not a complete Parquet file; a run that was killed leaves none") from e


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table as a record: the values of CSV are text, those of Parquet are not."""
    shares = {kind: {n.partition("_")[2]: float(v) for n, v in row.items() if n.startswith(f"{kind}_")}
              for kind in ("prob", "smoothed")}  # fmt: skip
    flags = {name: row[name] in (True, "True") for name in ("classified", "poor")}
    names = ("frame_index", "generation", "shot", "track_id", "person_id")
    pose = {name: float(row[name]) for name in POSE if row.get(name) not in (None, "")}
    whole = {name: int(row[name]) for name in names if name in row}
    quality = {name: float(row[name]) for name in ("quality",) if row.get(name) not in (None, "")}
    return {
        **{name: value for name, value in row.items() if name in ("source", "emotion")},
        **whole,
        **flags,
        **pose,
        **quality,
        "pts_s": float(row["pts_s"]),
        "captured_at": row["captured_at"] or None,
        "box": [float(row[name]) for name in ("x0", "y0", "x1", "y1")],
        "confidence": float(row["confidence"]),
        "probs": shares["prob"],
        "smoothed": shares["smoothed"],
    }


def _frame(
    source: str, rows: list[dict[str, Any]], labels: tuple[str, ...], index: dict[str, int]
) -> tuple[Frame, Estimates]:
    """Build a frame and its estimates from its records."""
    first = rows[0]
    captured = first["captured_at"]
    frame = Frame(
        _NO_IMAGE, first["frame_index"], float(first["pts_s"]), source, first["generation"],
        None if captured is None else datetime.fromisoformat(captured).timestamp(),
    )  # fmt: skip
    smoothed = np.array([[row["smoothed"][label] for label in labels] for row in rows], np.float64)
    if not (np.isfinite(smoothed).all() and np.isfinite(frame.timestamp)):
        raise ValueError("a number is not finite")
    if any(len(row["smoothed"]) != len(labels) for row in rows):
        raise ValueError("other labels than in the first record")
    unknown = next((row["emotion"] for row in rows if row["emotion"] not in index), None)
    if unknown is not None:
        raise ValueError(f"unknown label {unknown!r}")
    return frame, Estimates(
        timestamp=frame.timestamp,
        track_id=np.array([row["track_id"] for row in rows], np.int64),
        xyxy=np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row["confidence"] for row in rows], np.float32),
        probs=np.array([[row["probs"][label] for label in labels] for row in rows], np.float32),
        smoothed=smoothed.astype(np.float32),
        emotion=np.array([index[row["emotion"]] for row in rows], np.int64),
        classified=np.array([row["classified"] for row in rows], np.bool_),
        low_quality=np.array([row["poor"] for row in rows], np.bool_),
        seen=_NO_BOXES,
        shot=first.get("shot", 0),  # records of version 1 have neither cuts nor people
        person_id=np.array([row.get("person_id", row["track_id"]) for row in rows], np.int64),
        pose=_pose(rows),
        quality=np.array([_quality(row) for row in rows], np.float32),
    )


def _quality(row: dict[str, Any]) -> float:
    value = row.get("quality")  # older records have none
    return float("nan") if value is None else float(value)


def _pose(rows: list[dict[str, Any]]) -> F32:
    """Return the head poses of records, (N, 3) float32, degrees; (N, 0) if they hold none."""
    if not any(name in row for row in rows for name in POSE):
        return np.zeros((len(rows), 0), np.float32)
    angles = [[row.get(name) for name in POSE] for row in rows]
    return np.array([[np.nan if a is None else a for a in row] for row in angles], np.float32)


def _not_a_record(path: Path, where: str, error: Exception) -> DataError:
    reason = f"no field {error}" if isinstance(error, KeyError) else printable(str(error))
    return DataError(f"{path}: {where} is not a record of leaf-rt ({reason}); give {_KINDS}")
