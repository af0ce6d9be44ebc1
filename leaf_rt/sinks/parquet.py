"""Records as Parquet, with the columns of the CSV. The only module that imports pyarrow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.errors import BackendError, install_hint
from leaf_rt.results.records import column_names, flatten, frame_records
from leaf_rt.system.closing import Closing
from leaf_rt.system.file_lock import open_exclusive
from leaf_rt.system.files import output_error
from leaf_rt.types import Estimates, Frame, SourceInfo

_GROUP_SIZE = 5000  # rows per row group
_INTEGERS = frozenset({"schema_version", "frame_index", "generation", "track_id"})
_TEXTS = frozenset({"source", "captured_at", "emotion"})
_FLAGS = frozenset({"classified", "poor"})


class ParquetSink(Closing):
    """Writes a row per face and frame; see ``Sink``.

    A Parquet file has its index at the end. So it has another name (``.part``) until it is closed, and is lost if the
    process is killed. Write JSONL as well if that matters.

    Args:
        path: The file.
        labels: Class names in the order of the model.

    Raises:
        OutputError, NoPermission: It cannot be created, or another process writes it.
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
        types = {**dict.fromkeys(_INTEGERS, pa.int64()), **dict.fromkeys(_TEXTS, pa.string())}
        types.update(dict.fromkeys(_FLAGS, pa.bool_()))
        self._schema: Any = pa.schema([(name, types.get(name, pa.float64())) for name in column_names(labels)])
        self._arrow: Any = pa
        self._rows: list[tuple[Any, ...]] = []
        self._lock = open_exclusive(self._part, name=path)
        try:
            self._writer: Any = pq.ParquetWriter(os.fspath(self._part), self._schema)
        except OSError as e:
            os.close(self._lock)
            raise output_error(path, e) from e

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Write one frame. Rows are written in groups."""
        if self._writer is None:
            raise ValueError(f"{self.name}: write after close")
        self._rows += [flatten(r) for r in frame_records(source, frame, estimates, self._labels, latency)]
        if len(self._rows) >= _GROUP_SIZE:
            self._flush()

    def close(self) -> None:
        """Write the rest and the index, and rename the file. May be called twice."""
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
                os.close(self._lock)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            arrays = [
                self._arrow.array(values, type=field.type)
                for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
            ]
            try:
                self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
            except OSError as e:
                raise output_error(self.name, e) from e
