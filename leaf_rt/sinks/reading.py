"""Reads the records that these sinks write, JSON lines, CSV or Parquet, as frames and estimates again."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leaf_rt.errors import BackendError, DataError, NoPermission, NotFound, install_hint
from leaf_rt.labels import BLENDSHAPES, UNCERTAIN
from leaf_rt.results.records import POSE
from leaf_rt.sinks.stored import checked_record, nested
from leaf_rt.system.parsing import parse_json
from leaf_rt.system.reading import open_regular
from leaf_rt.text import from_table_cell, printable
from leaf_rt.types import F32, Estimates, Frame

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_NO_BOXES = np.zeros((0, 4), np.float32)
_KINDS = "JSON lines, CSV or Parquet of leaf-rt"
_MAX_LINE = 1 << 20  # characters; a record of 256 labels has about 20,000
_MAX_NAMES = 20  # of sources in a message
_BATCH = 4096  # rows of a Parquet file that are in memory at once
_TEXTS = frozenset({"source", "captured_at", "emotion"})
_WHOLE = frozenset({"frame_index", "generation", "shot", "track_id", "person_id"})
_WORDS: dict[str, bool | None] = {"": None, "True": True, "False": False}
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
            except ValueError as e:
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
            if row["source"] == self.source:
                yield where, row
            elif not self._one_source and len(others) < _MAX_NAMES:
                others.add(row["source"])


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
    rows = _records(path, _open_rows(path, notes))
    skipped: set[str] = set()
    for where, row in rows:
        if source is None or row["source"] == source:
            labels, live = tuple(row["smoothed"]), row["captured_at"] is not None
            again = itertools.chain([(where, row)], rows)
            return StoredRecords(path, row["source"], labels, live, notes, again, source is not None)
        if len(skipped) < _MAX_NAMES:
            skipped.add(row["source"])
    if skipped:
        names = ", ".join(printable(name) for name in sorted(skipped))
        raise DataError(f"{path}: has no records of --source {source}; it holds {names}")
    hint = notes[0] if notes else "no face was found, or nothing was written yet"
    raise DataError(f"{path}: holds no record; {hint}")


def _records(path: Path, rows: Iterable[tuple[str, object]]) -> _Rows:
    """Check every row; the only place that does."""
    for where, row in rows:
        try:
            record = checked_record(row)
        except ValueError as e:
            raise _not_a_record(path, where, e) from e
        yield where, record


def _open_rows(path: Path, notes: list[str]) -> Iterator[tuple[str, object]]:
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as f:
        for number in itertools.count(1):
            line = f.readline(_MAX_LINE)
            if not line:
                return
            if len(line) == _MAX_LINE:
                raise _not_a_record(path, f"line {number}", ValueError(f"over {_MAX_LINE >> 20} MiB long"))
            yield number, line


def _jsonl(path: Path, notes: list[str]) -> Iterator[tuple[str, object]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            yield f"line {number}", parse_json(line)
        except ValueError as e:
            if line.endswith("\n") or number == 1:
                raise _not_a_record(path, f"line {number}", e) from e
            notes.append(f"the last line ({number}) is incomplete and was left out")


def _csv(path: Path, notes: list[str]) -> Iterator[tuple[str, object]]:
    def lines() -> Iterator[str]:
        for _, line in _lines(path):
            if line.endswith("\n"):
                yield line
            else:
                notes.append("the last line is incomplete and was left out")

    reader = _parsed(csv.reader(lines()), path)
    names = next(reader, [])
    for number, values in enumerate(reader, 2):
        where = f"line {number}"
        if len(values) != len(names):
            raise _not_a_record(path, where, ValueError(f"{len(values)} values for {len(names)} columns"))
        yield where, nested({name: _value(name, text) for name, text in zip(names, values, strict=True)})


def _parsed(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """What a CSV reader reads; its own errors, such as a field without end, become ours."""
    try:
        yield from reader
    except csv.Error as e:
        raise DataError(f"{path}: is not a CSV file of leaf-rt ({e}); give {_KINDS}") from e


def _value(name: str, text: str) -> object:
    """The value of a cell of CSV. What is no number stays text, and the check names the field."""
    if name in _TEXTS:
        return from_table_cell(text) or None
    if text in _WORDS:
        return _WORDS[text]
    try:
        return int(text) if name in _WHOLE else float(text)
    except ValueError:
        return text


def _parquet(path: Path) -> Iterator[tuple[str, object]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise BackendError(f"{path}: Parquet needs pyarrow; {install_hint('parquet')}") from e
    number = 0
    try:
        # pyarrow takes a relative name such as "s3:x" for an address, and would ask the network for it.
        with pq.ParquetFile(path.absolute()) as table:
            for batch in table.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", nested(row)
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as e:
        raise DataError(f"{path}: is not a complete Parquet file; a run that was killed leaves none") from e


def _frame(
    source: str, rows: list[dict[str, Any]], labels: tuple[str, ...], index: dict[str, int]
) -> tuple[Frame, Estimates]:
    """Build a frame and its estimates from its records."""
    first = rows[0]
    frame = Frame(
        _NO_IMAGE, first["frame_index"], first["pts_s"], source, first["generation"], first["captured_at"],
    )  # fmt: skip
    if any(row["smoothed"].keys() != index.keys() - {UNCERTAIN} for row in rows):
        raise ValueError("other labels than in the first record")
    unknown = next((row["emotion"] for row in rows if row["emotion"] not in index), None)
    if unknown is not None:
        raise ValueError(f"field emotion: unknown label {unknown[:60]!r}")
    return frame, Estimates(
        timestamp=frame.timestamp,
        track_id=np.array([row["track_id"] for row in rows], np.int64),
        xyxy=np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row["confidence"] for row in rows], np.float32),
        probs=np.array([[row["probs"][label] for label in labels] for row in rows], np.float32),
        smoothed=np.array([[row["smoothed"][label] for label in labels] for row in rows], np.float32),
        emotion=np.array([index[row["emotion"]] for row in rows], np.int64),
        classified=np.array([row["classified"] for row in rows], np.bool_),
        low_quality=np.array([row["poor"] for row in rows], np.bool_),
        seen=_NO_BOXES,
        shot=first["shot"],
        person_id=np.array([row["person_id"] for row in rows], np.int64),
        pose=_pose(rows),
        quality=np.array([np.nan if row["quality"] is None else row["quality"] for row in rows], np.float32),
        blendshapes=_blendshapes(rows),
    )


def _pose(rows: list[dict[str, Any]]) -> F32:
    """Return the head poses of records, (N, 3) float32, degrees; (N, 0) if they hold none."""
    if not any(name in row for row in rows for name in POSE):
        return np.zeros((len(rows), 0), np.float32)
    angles = [[row.get(name) for name in POSE] for row in rows]
    return np.array([[np.nan if a is None else a for a in row] for row in angles], np.float32)


def _blendshapes(rows: list[dict[str, Any]]) -> F32:
    """Return the blendshapes of records, (N, B) float32; (N, 0) if they hold none."""
    if not any("blendshapes" in row for row in rows):
        return np.zeros((len(rows), 0), np.float32)
    unknown = dict.fromkeys(BLENDSHAPES, np.nan)
    return np.array([list((row.get("blendshapes") or unknown).values()) for row in rows], np.float32)


def _not_a_record(path: Path, where: str, error: Exception) -> DataError:
    return DataError(f"{path}: {where} is not a record of leaf-rt ({printable(str(error))}); give {_KINDS}")
