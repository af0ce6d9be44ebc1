"""Records as Parquet, for pandas, Polars and DuckDB: the columns of the CSV, with types. The only user of pyarrow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.errors import BackendError, install_hint
from leaf_rt.results.records import record
from leaf_rt.sinks.csv import columns, flat
from leaf_rt.sources.base import SourceInfo
from leaf_rt.system.closing import Closing
from leaf_rt.system.file_lock import open_exclusive
from leaf_rt.system.files import output_error
from leaf_rt.types import Estimates, Frame

_GROUP = 5000  # rows written together
_INTEGERS = frozenset({"schema_version", "frame_index", "generation", "track_id"})
_TEXTS = frozenset({"source", "captured_at", "emotion"})
_FLAGS = frozenset({"classified", "poor"})


class ParquetSink(Closing):
    """Writes a row per face and frame; see ``Sink``.

    A Parquet file has its index at its end, so it stands under another name (``.part``) until it is closed, and is
    lost if the process is killed: keep JSONL beside it where that matters.

    Raises:
        OutputError, NoPermission: It cannot be created, or is being written already.
        BackendError: pyarrow is not installed.
    """

    wants_image = False

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as e:
            raise BackendError(f"{path}: Parquet needs pyarrow; {install_hint('parquet')}") from e
        self.name = str(path)
        self._path, self._labels = path, tuple(labels)
        self._part = path.with_name(path.name + ".part")
        kinds = {**dict.fromkeys(_INTEGERS, pa.int64()), **dict.fromkeys(_TEXTS, pa.string())}
        kinds.update(dict.fromkeys(_FLAGS, pa.bool_()))
        self._schema: Any = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns(labels)])
        self._arrow: Any = pa
        self._rows: list[tuple[Any, ...]] = []
        self._claim = open_exclusive(self._part, name=path)
        try:
            self._writer: Any = pq.ParquetWriter(os.fspath(self._part), self._schema)
        except OSError as e:
            os.close(self._claim)
            raise output_error(path, e) from e

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Take one frame; rows are written in groups."""
        if self._writer is None:
            raise ValueError(f"{self.name}: write after close")
        labels = self._labels
        self._rows += [flat(record(source, frame, estimates, r, labels, latency)) for r in range(len(estimates))]
        if len(self._rows) >= _GROUP:
            self._flush()

    def close(self) -> None:
        """Write the rest and the index, and give the file its name; may be called twice."""
        if self._writer is None:
            return
        try:
            self._flush()
        finally:
            writer, self._writer = self._writer, None
            try:
                writer.close()
                self._part.replace(self._path)
            except OSError as e:
                raise output_error(self.name, e) from e
            finally:
                os.close(self._claim)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            arrays = [
                self._arrow.array(values, type=kind.type)
                for values, kind in zip(zip(*rows, strict=True), self._schema, strict=True)
            ]
            try:
                self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
            except OSError as e:
                raise output_error(self.name, e) from e
