"""The sinks that all sources of a command share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from leaf_rt.errors import LeafError
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig


@contextlib.contextmanager
def shared_sinks(
    outputs: OutputConfig, labels: Sequence[str], close_failed: Callable[[Sink, LeafError], None]
) -> Iterator[Sequence[Sink]]:
    """Open the sinks. At the end close all of them, even if one of them fails.

    Args:
        outputs: Which sinks to open.
        labels: Class names in the order of the model.
        close_failed: Gets a sink that could not be closed, and the error.

    Raises:
        NoPermission, OutputError, BackendError: A sink cannot be opened. The sinks before it are closed again.
    """
    sinks: list[Sink] = []
    try:
        if outputs.jsonl is not None:
            from leaf_rt.sinks.jsonl import JsonlSink

            sinks.append(JsonlSink(outputs.jsonl, labels))
        if outputs.csv is not None:
            from leaf_rt.sinks.csv import CsvSink

            sinks.append(CsvSink(outputs.csv, labels))
        if outputs.events is not None:
            from leaf_rt.sinks.events import EventSink

            sinks.append(EventSink(outputs.events, labels))
        if outputs.parquet is not None:
            from leaf_rt.sinks.parquet import ParquetSink

            sinks.append(ParquetSink(outputs.parquet, labels))
        yield sinks
    finally:
        for sink in sinks:
            try:
                sink.close()
            except LeafError as e:
                close_failed(sink, e)
