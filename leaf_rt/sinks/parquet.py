"""Records as Parquet, with the columns of the CSV. The only module that imports pyarrow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.errors import BackendError, install_hint
from leaf_rt.results.records import column_names, flatten, frame_records
from leaf_rt.system.closing import Closing
from leaf_rt.system.files import output_error
from leaf_rt.system.result_file import ResultFile
from leaf_rt.types import Estimates, Frame, SourceInfo

_GROUP_SIZE = 5000  # rows per row group
_INTEGERS = frozenset({"schema_version", "frame_index", "generation", "shot", "track_id", "person_id"})
_TEXTS = frozenset({"source", "captured_at", "emotion"})
_FLAGS = frozenset({"classified", "poor"})


class ParquetSink(Closing):
    """Writes a row per face and frame; see ``Sink``.

    A Parquet file has its index at the end, so it is lost if the process is killed or the disk is full. Write JSONL as
    well if that matters.

    Args:
        target: The file, or a result; whoever opened a result completes it after ``close``.
        labels: Class names in the order of the model.
        extra: See ``leaf_rt.results.records.extra_columns``.

    Raises:
        OutputError, NoPermission: It cannot be created, or another process writes it.
        BackendError: pyarrow is not installed.
    """

    wants_image = False

    def __init__(self, target: Path | ResultFile, labels: Sequence[str], extra: Sequence[str] = ()) -> None:
        self.name = target.name if isinstance(target, ResultFile) else str(target)
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as e:
            raise BackendError(f"{self.name}: Parquet needs pyarrow; {install_hint('parquet')}") from e
        self._labels = tuple(labels)
        types = {**dict.fromkeys(_INTEGERS, pa.int64()), **dict.fromkeys(_TEXTS, pa.string())}
        types.update(dict.fromkeys(_FLAGS, pa.bool_()))
        self._schema: Any = pa.schema([(name, types.get(name, pa.float64())) for name in column_names(labels, extra)])
        self._arrow: Any = pa
        self._rows: list[tuple[Any, ...]] = []
        self._is_ours = not isinstance(target, ResultFile)
        self._result = target if isinstance(target, ResultFile) else ResultFile(target)
        try:
            path = os.path.abspath(self._result.path)  # noqa: PTH100 - pyarrow takes "s3:x" for an address, "/a/s3:x" not
            self._writer: Any = pq.ParquetWriter(path, self._schema)
        except OSError as e:
            self._result.failed = True
            self._result.discard()
            raise output_error(self.name, e) from e
        self._result.bare = True

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Write one frame. Rows are written in groups."""
        if self._writer is None:
            raise ValueError(f"{self.name}: write after close")
        self._rows += [flatten(r) for r in frame_records(source, frame, estimates, self._labels, latency)]
        if len(self._rows) >= _GROUP_SIZE:
            self._flush()

    def close(self) -> None:
        """Write the rest and the index. A file that cannot be completed is removed: without its index it is useless."""
        if self._writer is None:
            return
        try:
            self._flush()
        finally:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            except OSError as e:
                self._result.failed = True
                raise output_error(self.name, e) from e
            finally:
                if self._result.failed:
                    self._result.discard()
                elif self._is_ours:
                    self._result.complete()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._result.bare = False
            arrays = [
                self._arrow.array(values, type=field.type)
                for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
            ]
            try:
                self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
            except OSError as e:
                self._result.failed = True
                raise output_error(self.name, e) from e
