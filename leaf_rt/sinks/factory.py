"""Opens the sinks that all sources of a command share, and those of one source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from leaf_rt.errors import LeafError
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import STDOUT, OutputConfig, SourceOutputs
from leaf_rt.sinks.textfile import LineTarget
from leaf_rt.system.result_file import ResultFiles

if TYPE_CHECKING:
    from leaf_rt.sinks.csv import CsvSink
    from leaf_rt.sinks.jsonl import JsonlSink
    from leaf_rt.sinks.parquet import ParquetSink
    from leaf_rt.sinks.video import Draw

    RecordSink: TypeAlias = JsonlSink | CsvSink | ParquetSink


RecordFormat: TypeAlias = Literal["jsonl", "csv", "parquet"]


@contextlib.contextmanager
def shared_sinks(
    outputs: OutputConfig,
    labels: Sequence[str],
    close_failed: Callable[[Sink, LeafError], None],
    results: ResultFiles,
    follow: bool,
    extra: Sequence[str] = (),
) -> Iterator[Sequence[Sink]]:
    """Open the sinks. At the end close all of them, even if one of them fails. The caller completes the results.

    Args:
        outputs: Which sinks to open.
        labels: Class names in the order of the model.
        close_failed: Gets a sink that could not be closed, and the error.
        results: Where their files are opened.
        follow: Write lines under their final names from the start, as for live sources.
        extra: The columns that tables have only because they were asked for.

    Raises:
        NoPermission, OutputError, BackendError, ModelError: A sink cannot be opened. Those before it are closed again.
    """
    sinks: list[Sink] = []

    def place(path: Path) -> LineTarget:
        return "-" if path == STDOUT else results.open(path, follow=follow)

    try:
        if outputs.jsonl is not None:
            sinks.append(open_records("jsonl", place(outputs.jsonl), labels))
        if outputs.csv is not None:
            sinks.append(open_records("csv", place(outputs.csv), labels, extra))
        if outputs.events is not None:
            from leaf_rt.sinks.events import EventSink

            sinks.append(EventSink(place(outputs.events), outputs.event_filter.tracker(labels)))
        if outputs.parquet is not None:
            sinks.append(open_records("parquet", results.open(outputs.parquet), labels, extra))
        yield sinks
    finally:
        for sink in sinks:
            try:
                sink.close()
            except LeafError as e:
                close_failed(sink, e)


def open_records(
    kind: RecordFormat, target: LineTarget, labels: Sequence[str], extra: Sequence[str] = ()
) -> RecordSink:
    """Open a sink for records.

    Args:
        kind: Their format.
        target: Where they go; not standard output for Parquet.
        labels: Class names in the order of the model.
        extra: The columns that tables have only because they were asked for.

    Raises:
        NoPermission, OutputError, BackendError: It cannot be opened.
    """
    if kind == "csv":
        from leaf_rt.sinks.csv import CsvSink

        return CsvSink(target, labels, extra)
    if kind == "parquet":
        from leaf_rt.sinks.parquet import ParquetSink

        return ParquetSink(Path(target) if isinstance(target, str) else target, labels, extra)
    from leaf_rt.sinks.jsonl import JsonlSink

    return JsonlSink(target, labels)


def open_source_sinks(
    files: SourceOutputs, labels: Sequence[str], draw: Draw, results: ResultFiles, *, follow: bool = False
) -> list[Sink]:
    """Open the sinks of one source: its annotated video, its records and its subtitles.

    Args:
        files: Where its results go. The timeline and the report are not written frame by frame and have no sink.
        labels: Class names in the order of the model.
        draw: Annotates the frames of the video; see ``VideoSink``.
        results: Where their files are opened. The caller completes them.
        follow: Write lines under their final names from the start, as for live sources.

    Raises:
        NoPermission, OutputError: A sink cannot be opened. The sink before it is closed again.
    """
    sinks: list[Sink] = []
    with contextlib.ExitStack() as close_on_error:
        if files.annotated is not None:
            from leaf_rt.sinks.video import VideoSink

            sinks.append(close_on_error.enter_context(VideoSink(results.open(files.annotated), labels, draw)))
        if files.records is not None:
            from leaf_rt.sinks.jsonl import JsonlSink

            sinks.append(close_on_error.enter_context(JsonlSink(results.open(files.records, follow=follow), labels)))
        if files.subtitles is not None:
            from leaf_rt.sinks.vtt import VttSink

            sinks.append(close_on_error.enter_context(VttSink(results.open(files.subtitles, follow=follow), labels)))
        close_on_error.pop_all()
    return sinks
