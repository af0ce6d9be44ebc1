"""The sinks that all sources of a call write into. Knows what a call asks for and the text sinks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from leaf_rt.errors import LeafError
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig


@contextlib.contextmanager
def shared_sinks(
    outputs: OutputConfig, labels: Sequence[str], complain: Callable[[LeafError], None]
) -> Iterator[Sequence[Sink]]:
    """Open the sinks, and close each one at the end, whatever becomes of the others.

    Args:
        outputs: Which ones.
        labels: Class names in the model's order.
        complain: Takes what went wrong as one was closed.

    Raises:
        NoPermission, OutputError, BackendError: One of them cannot be opened; those before it are closed again.
    """
    sinks: list[Sink] = []
    try:
        if outputs.jsonl:
            from leaf_rt.sinks.jsonl import JsonlSink

            sinks.append(JsonlSink("-" if outputs.jsonl == "-" else Path(outputs.jsonl), labels))
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
                complain(e)
