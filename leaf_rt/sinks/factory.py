"""Opens the sinks that all sources of a command share, and those of one source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from leaf_rt.errors import LeafError
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig, SourceOutputs

if TYPE_CHECKING:
    from leaf_rt.sinks.video import Draw


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
            from leaf_rt.results.events import EventTracker
            from leaf_rt.sinks.events import EventSink

            sinks.append(EventSink(outputs.events, EventTracker(labels)))
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


def open_source_sinks(files: SourceOutputs, labels: Sequence[str], draw: Draw) -> list[Sink]:
    """Open the sinks of one source: its annotated video, its records and its subtitles.

    Args:
        files: Where its results go. The timeline and the report are not written frame by frame and have no sink.
        labels: Class names in the order of the model.
        draw: Annotates the frames of the video; see ``VideoSink``.

    Raises:
        NoPermission, OutputError: A sink cannot be opened. The sink before it is closed again.
    """
    sinks: list[Sink] = []
    with contextlib.ExitStack() as close_on_error:
        if files.annotated is not None:
            from leaf_rt.sinks.video import VideoSink

            sinks.append(close_on_error.enter_context(VideoSink(files.annotated, labels, draw)))
        if files.records is not None:
            from leaf_rt.sinks.jsonl import JsonlSink

            sinks.append(close_on_error.enter_context(JsonlSink(files.records, labels)))
        if files.subtitles is not None:
            from leaf_rt.sinks.vtt import VttSink

            sinks.append(close_on_error.enter_context(VttSink(files.subtitles, labels)))
        close_on_error.pop_all()
    return sinks
