"""The result of a whole video: records as columns, a summary per person, a timeline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaf_rt.errors import NoFrames
from leaf_rt.recognizer import tables
from leaf_rt.results.columns import ColumnBuilder, Columns
from leaf_rt.results.numbers import numbers
from leaf_rt.results.records import SCHEMA_VERSION, extra_columns, frame_records, utc
from leaf_rt.results.summary import MAX_ABSENCE, Summary
from leaf_rt.sinks.base import Sink
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.system.result_file import ResultFile, ResultFiles
from leaf_rt.types import Estimates, Frame, SourceInfo

if TYPE_CHECKING:
    from leaf_rt.recognizer.picture import Plot


class VideoJob:
    """Collects and writes the results of one call of ``Recognizer.video``.

    Args:
        labels: Names of the C classes.
        video: Path of the annotated video; None writes none.
        blur: Hide the faces in it.

    Attributes:
        done: Frames finished.
        total: Frames in all, if known.
    """

    def __init__(self, labels: Sequence[str], video: Path | None, blur: bool) -> None:
        self.done = 0
        self.total: int | None = None
        self._labels, self._video, self._blur = tuple(labels), video, blur
        self._collector: _Collector | None = None
        self._warnings: list[str] = []
        self._results = ResultFiles()
        self.hooks = Hooks(event=self._note, progress=self._count)

    def sinks(self, info: SourceInfo) -> Sequence[Sink]:
        """The sinks of the source."""
        video = []
        if self._video is not None:
            video.append(_video_sink(self._results.open(self._video), self._labels, self._blur))
        self._collector = _Collector(info, self._labels)
        return [self._collector, *video]

    def result(self, name: str) -> VideoResult:
        """Everything that was collected.

        Raises:
            NoFrames: The run ended before the first frame.
            NoPermission, OutputError: The annotated video cannot get its final name.
        """
        found = self._collector
        if found is None:
            raise NoFrames(f"{name}: no frame came in time; give a longer duration")
        for error in self._results.finish(complete=True).errors:
            raise error
        return VideoResult(found.info, found.summary, found.builder.build(), self._warnings, self._video)

    def close(self) -> None:
        """Leave an annotated video that is not complete under its temporary name."""
        self._results.finish(complete=False)

    def _note(self, event: Event) -> None:
        if event.level != "info":
            self._warnings.append(event.text)

    def _count(self, stats: RunStats) -> None:
        (source,) = stats.sources
        self.done, self.total = source.processed, source.info.frame_count


class _Collector:
    """A sink that keeps every record of one source in memory; see ``Sink``."""

    name = "records"
    wants_image = False

    def __init__(self, info: SourceInfo, labels: tuple[str, ...]) -> None:
        self.info = info
        self.summary = Summary(labels, max_gap=MAX_ABSENCE if info.is_live else None)
        self.builder = ColumnBuilder(len(labels))

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Keep one frame."""
        self.summary.add(frame, estimates)
        self.builder.add(frame, estimates, latency)

    def close(self) -> None:
        """Count the last frame."""
        self.summary.finish()


def _video_sink(target: ResultFile, labels: tuple[str, ...], blur: bool) -> Sink:
    from leaf_rt.render.overlay import FrameAnnotator
    from leaf_rt.sinks.video import VideoSink

    return VideoSink(target, labels, FrameAnnotator(blur).draw)


class VideoResult:
    """Everything that ``Recognizer.video`` found; ``len`` counts its records.

    Attributes:
        source: Name of the source.
        labels: Names of the C classes.
        columns: One row per face and frame, as NumPy arrays.
        warnings: Problems that did not end the run, one sentence each, such as a damaged part of the file.

    Example:
        >>> result = recognizer.video("clip.mp4")
        >>> result.summary["people"][0]["shares"]
        >>> result.columns.probs[result.columns.track_id == 1].mean(axis=0)
        >>> result.save("out/")
    """

    def __init__(
        self, info: SourceInfo, summary: Summary, columns: Columns, warnings: Sequence[str], video: Path | None
    ) -> None:
        self.source = info.name
        self.labels = summary.labels
        self.columns = columns
        self.warnings = list(warnings)
        self._info, self._summary, self._video = info, summary, video

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        people = len(self._summary.people())
        return f"VideoResult({self.source!r}, {self._summary.frames} frames, {people} people, {len(self)} records)"

    @property
    def summary(self) -> dict[str, Any]:
        """The run in numbers, ready for JSON; times are seconds of media time.

        ``people`` lists all people, those on screen longest first. Each has ``track_id``, ``first``, ``last``,
        ``seconds`` on screen, and ``shares``: the share of that time for which each label was shown. docs/report.md
        explains the other fields.
        """
        return numbers(self._summary, self.source, frames=self._summary.frames)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records as dictionaries, as in the JSON lines; docs/records.md explains the fields."""
        for frame, estimates, latency in self.columns.frames(self.source):
            yield from frame_records(self._info, frame, estimates, self.labels, latency)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row per face and frame; columns are named as in the CSV files.

        Raises:
            BackendError: pandas is not installed.
        """
        return tables.data_frame("pandas", self._table())

    def to_polars(self) -> Any:
        """A ``polars.DataFrame``; see ``to_pandas``.

        Raises:
            BackendError: polars is not installed.
        """
        return tables.data_frame("polars", self._table())

    def plot(self, max_people: int = 8) -> Plot:
        """The timeline: per person, probabilities over time and the shown label.

        Args:
            max_people: Maximum number of people. Those on screen longest are drawn.

        Returns:
            A PNG, which a notebook shows and ``save`` writes.

        Raises:
            BackendError: Matplotlib is not installed.
        """
        from leaf_rt.recognizer.picture import Plot
        from leaf_rt.render.timeline import timeline_png

        return Plot(timeline_png(self._summary, self.source, max_people))

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write the records and the timeline: NAME.leaf.jsonl, NAME.leaf.csv and NAME.leaf.png.

        The report and its numbers, which ``leaf-rt video`` writes too, are left out. ``leaf-rt report NAME.leaf.jsonl``
        makes them from the records; ``summary`` has the numbers.

        Args:
            folder: Folder for the files. It is created if missing.

        Returns:
            "records", "csv" and "timeline" to their paths; also "video" if ``save_video`` wrote one. There is no
            timeline where Matplotlib is not installed.

        Raises:
            NoPermission, OutputError: A file cannot be written.
        """
        from leaf_rt.render.timeline import can_draw
        from leaf_rt.sinks.csv import CsvSink
        from leaf_rt.sinks.jsonl import JsonlSink
        from leaf_rt.sinks.paths import OutputPaths
        from leaf_rt.system.files import make_folder

        into = Path(folder)
        make_folder(into, "save()")
        paths = OutputPaths([self._info.path] if self._info.path is not None else [])
        stem = Path(self.source).stem
        endings = {"records": ".jsonl", "csv": ".csv"} | ({"timeline": ".png"} if can_draw() else {})
        files = {kind: paths.reserve(into, stem, ending) for kind, ending in endings.items()}
        extra = extra_columns(self.columns.pose.shape[1] > 0, self.columns.blendshapes.shape[1] > 0)
        with ResultFile(files["records"]) as records, ResultFile(files["csv"]) as rows:
            with JsonlSink(records, self.labels) as jsonl, CsvSink(rows, self.labels, extra) as table:
                for frame, estimates, latency in self.columns.frames(self.source):
                    jsonl.write(self._info, frame, estimates, latency)
                    table.write(self._info, frame, estimates, latency)
            records.complete()
            rows.complete()
        if "timeline" in files:
            self.plot().save(files["timeline"])
        return files if self._video is None else {**files, "video": self._video}

    def _table(self) -> dict[str, Any]:
        rows = self.columns
        captured = [None if time != time else utc(time) for time in rows.captured_at.tolist()]  # NaN differs from NaN
        return {
            "schema_version": [SCHEMA_VERSION] * len(rows),
            "source": [self.source] * len(rows),
            "frame_index": rows.frame_index,
            "pts_s": rows.time,
            "captured_at": captured,
            "generation": rows.generation,
            "shot": rows.shot,
            "track_id": rows.track_id,
            "person_id": rows.person_id,
            **tables.box_columns(rows.xyxy),
            "confidence": rows.confidence,
            "emotion": tables.label_names(rows.emotion, self.labels),
            **tables.share_columns("prob", rows.probs, self.labels),
            **tables.share_columns("smoothed", rows.smoothed, self.labels),
            "classified": rows.classified,
            "poor": rows.low_quality,
            "quality": rows.quality,
            "latency_ms": rows.latency * 1000.0,
            **tables.extra_columns(rows.pose, rows.blendshapes),
        }

    def _repr_png_(self) -> bytes:
        return self.plot().png
