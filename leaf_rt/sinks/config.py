"""What a command writes and shows, and where the results of each source go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from leaf_rt.results.events import EventFilter
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.system.files import make_folder
from leaf_rt.text import readable
from leaf_rt.types import SourceInfo

STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class SourceOutputs:
    """Files with the results of one source; None for a result that is not written.

    Attributes:
        annotated: The annotated video or picture.
        records: JSON lines.
        timeline: PNG.
        report: HTML page.
        numbers: The numbers of the report, as JSON.
        subtitles: WebVTT.
    """

    annotated: Path | None = None
    records: Path | None = None
    timeline: Path | None = None
    report: Path | None = None
    numbers: Path | None = None
    subtitles: Path | None = None


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """What a command writes and shows.

    Every source can have files of its own: the annotated video, the records, the timeline, the report with its numbers,
    and the subtitles. A source without an end, such as a camera, gets them only with ``out`` or by an option.
    All sources share the files ``jsonl``, ``csv``, ``events`` and ``parquet``; ``STDOUT`` stands for standard output.

    Attributes:
        out: Folder of the files per source. None: next to the source file.
        roots: Folders whose structure is kept under ``out``.
        skip_existing: Whether to skip sources that have all their results.
        annotated: Whether to write the annotated video or picture. None: only for sources with an end.
        records: Whether to write a file of records per source.
        timeline: Whether to write a timeline per source.
        report: Whether to write a report and its numbers per source.
        subtitles: Whether to write WebVTT subtitles per source.
        timeline_file: Where the timeline of the only source goes, whatever kind of source it is.
        jsonl: Records of all sources as JSON lines.
        csv: Records of all sources as CSV.
        events: Starts and ends of the expressions of all sources, as JSON lines.
        event_filter: Which of them are written, and sent as alerts.
        parquet: Records of all sources as Parquet.
        show: Whether to open a window per source.
        blur: Whether to hide faces in every picture that is written or shown.
    """

    out: Path | None = None
    annotated: bool | None = None
    records: bool = True
    timeline: bool = True
    report: bool = True
    subtitles: bool = False
    timeline_file: Path | None = None
    jsonl: Path | None = None
    csv: Path | None = None
    events: Path | None = None
    event_filter: EventFilter = field(default_factory=EventFilter)
    parquet: Path | None = None
    show: bool = False
    blur: bool = False
    roots: tuple[Path, ...] = ()
    skip_existing: bool = False

    @property
    def shared(self) -> dict[str, Path | None]:
        """The files that all sources share, by their options."""
        return {"--jsonl": self.jsonl, "--csv": self.csv, "--events": self.events, "--parquet": self.parquet}

    def stored(self, endless: bool = True) -> Iterator[str]:
        """What is written, one phrase each, for people whose faces are recognized.

        Args:
            endless: Whether the sources have no end. Then only the requested results are written.
        """
        if self.annotated or (self.annotated is None and not endless):
            yield "annotated video"
        if self.out is not None or not endless:
            kinds = {
                "records": self.records,
                "timeline": self.timeline,
                "report": self.report,
                "subtitles": self.subtitles,
            }
            yield from (kind for kind, written in kinds.items() if written)
        for option, path in self.shared.items():
            if path is not None:
                yield "events" if option == "--events" else f"records ({option[2:]})"

    @property
    def on_stdout(self) -> bool:
        """Whether standard output carries results, so that messages must go to standard error."""
        return STDOUT in self.shared.values()

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Files that the user named, each with its option."""
        named = {**self.shared, "--plot": self.timeline_file}
        return [(option, path) for option, path in named.items() if path is not None and path != STDOUT]

    def for_source(self, info: SourceInfo, paths: OutputPaths, suffix: str = ".mp4") -> SourceOutputs:
        """Reserve the files of one source.

        Args:
            info: The source. Its results get the name of its file, or the name that the user gave to it.
            paths: Reserves the names.
            suffix: Suffix of the annotated video or picture.

        Raises:
            OutputError: A result would replace a file that is read, or another result.
        """
        folder, stem = self._place(info)
        by_default = info.has_end or self.out is not None
        annotated = info.has_end if self.annotated is None else self.annotated
        timeline = self.timeline and by_default and self.timeline_file is None
        report = self.report and by_default
        return SourceOutputs(
            annotated=paths.reserve(folder, stem, suffix) if annotated else None,
            records=paths.reserve(folder, stem, ".jsonl") if self.records and by_default else None,
            timeline=paths.reserve(folder, stem, ".png") if timeline else self.timeline_file,
            report=paths.reserve(folder, stem, ".html") if report else None,
            numbers=paths.reserve(folder, stem, ".summary.json") if report else None,
            subtitles=paths.reserve(folder, stem, ".vtt") if self.subtitles else None,
        )

    def _place(self, info: SourceInfo) -> tuple[Path, str]:
        """Folder and stem of the results of a source."""
        if info.path is None:
            return self.out or Path(), _file_stem(info.name)
        has_own_name = info.name not in (readable(info.path.name), readable(info.target))
        return self.folder(info.path.parent), _file_stem(info.name) if has_own_name else info.path.stem

    def folder(self, parent: Path) -> Path:
        """Folder of the results of a file in the folder ``parent``."""
        if self.out is None:
            return parent
        root = next((root for root in self.roots if parent.is_relative_to(root)), parent)
        return self.out / parent.relative_to(root)


def prepare_paths(
    outputs: OutputConfig, inputs: Iterable[Path], sources: Iterable[SourceInfo], suffix: str = ".mp4"
) -> OutputPaths:
    """Check all files that a command will write before it starts, and create the output folder.

    Args:
        outputs: What is written.
        inputs: Files that are read.
        sources: The sources that are known before they are opened, in their order.
        suffix: Suffix of the annotated videos or pictures.

    Returns:
        The names, none of them reserved yet.

    Raises:
        OutputError: A result would replace a file that is read, or another result.
        NoPermission, OutputError: The output folder cannot be created.
    """
    paths = OutputPaths(inputs, outputs.files)
    trial = paths.copy()
    folders = set()
    for info in sources:
        outputs.for_source(info, trial, suffix)
        if info.path is not None:
            folders.add(outputs.folder(info.path.parent))
    if outputs.out is not None:
        for folder in sorted({outputs.out, *folders}):
            make_folder(folder)
    return paths


def _file_stem(name: str) -> str:
    """Replace the characters of a source's name that do not belong in a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "live"
