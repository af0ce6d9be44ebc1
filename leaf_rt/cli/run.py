"""One run: sources that are processed in parallel, from opening to summary.

Knows every part of the runtime by its interface; must not know how options are parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from leaf_rt.backends.base import Backend
from leaf_rt.cli.progress import ProgressBars
from leaf_rt.cli.report import MAX_INTERVALS, fill_report, relative_clip, run_facts
from leaf_rt.cli.reporter import Reporter
from leaf_rt.cli.shared import SharedFiles
from leaf_rt.errors import ConnectionLost, LeafError
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_detector, build_pipeline
from leaf_rt.recognition.parts import Detector
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.render.overlay import FrameAnnotator
from leaf_rt.render.window import Window
from leaf_rt.results.numbers import numbers
from leaf_rt.results.summary import MAX_ABSENCE, Summary
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig, SourceOutputs
from leaf_rt.sinks.factory import open_source_sinks
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.sources.base import Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, EventKind, RunStats, SourceStats
from leaf_rt.system.result_file import ResultFile, ResultFiles
from leaf_rt.system.signals import StopSignal, stop_on_signals
from leaf_rt.types import Estimates, Frame, SourceInfo

if TYPE_CHECKING:
    from leaf_rt.web.metrics import MetricsServer
    from leaf_rt.web.server import WebServer


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What lives as long as the command, and all its runs share.

    Attributes:
        recognition: How faces are recognized.
        outputs: What is written and shown.
        paths: Names of result files, each given once.
        reporter: Reports messages and results.
        backend: Classifies faces.
        shared: Sinks of all sources.
        shared_files: Their files.
        window: Shows frames.
        server: Serves metrics.
        web: Serves the live page.
    """

    recognition: RecognitionConfig
    outputs: OutputConfig
    paths: OutputPaths
    reporter: Reporter
    backend: Backend
    shared: Sequence[Sink]
    shared_files: SharedFiles
    window: Window | None = None
    server: MetricsServer | None = None
    web: WebServer | None = None


@dataclass(slots=True)
class SourceResults:
    """What lives as long as one source.

    Attributes:
        info: The source.
        summary: Who was seen.
        files: Where its results go.
        results: Its open files.
        timeline: The file of the timeline, opened at the start, so that a bad place is found out then.
        report: The file of the report; the same.
        numbers: The file of its numbers.
        found: The numbers, once it has ended.
        failed: Whether it ended with an error.
        reported: Whether its results are complete and reported.
    """

    info: SourceInfo
    summary: Summary
    files: SourceOutputs
    results: ResultFiles = field(default_factory=ResultFiles)
    timeline: ResultFile | None = None
    report: ResultFile | None = None
    numbers: ResultFile | None = None
    found: dict[str, Any] = field(default_factory=dict)
    failed: bool = False
    reported: bool = False


class Run:
    """One run of a command.

    Attributes:
        stop: Ends the run. Ctrl-C, SIGTERM and the window set it.
        unfinished: Names of the sources that have an end and were stopped before it.
    """

    def __init__(self, context: CommandContext) -> None:
        self.stop = StopSignal()
        self.unfinished: list[str] = []
        self._context, self._reporter = context, context.reporter
        self._results: dict[str, SourceResults] = {}  # by name of the source
        self._stats: RunStats | None = None  # of the run that goes on
        self._detectors: list[Detector] = []  # loaded in advance, for sources that are not open yet

    @property
    def started(self) -> bool:
        """Whether a source was opened."""
        return bool(self._results)

    def process(self, targets: Sequence[Target], options: RunOptions, *, preload: bool) -> None:
        """Process the targets, write the timelines and report the results, even if the run fails.

        Args:
            targets: The sources.
            options: How to run them.
            preload: Load a detector per source first, so that the frames of live sources do not wait for it.

        Raises:
            LeafError: The run failed; see ``leaf_rt.stream.runner.run``.
            KeyboardInterrupt: The user stopped it at once. What is missing has been reported.
        """
        with stop_on_signals(self.stop):
            try:
                try:
                    stats = self._stream(targets, options, preload)
                except Exception as e:  # the results so far are written, then the error goes on
                    if (
                        isinstance(e, ConnectionLost)
                        and self._stats is None
                        and not all(t.options.wait for t in targets)
                    ):
                        self._reporter.notify("info", "use --wait to keep trying until every source answers")
                    self._finish(None)
                    raise
                self.unfinished = [
                    s.info.name for s in stats.sources if s.cut and s.info.has_end and s.info.name in self._results
                ]
                self._finish(stats)
            except KeyboardInterrupt:
                self._report_missing()
                raise
        for failure in stats.failures:
            self._reporter.error(failure)

    def _stream(self, targets: Sequence[Target], options: RunOptions, preload: bool) -> RunStats:
        try:
            if preload:
                context = self._context
                spare = context.web is not None  # for the first source that a client adds
                self._detectors = [
                    build_detector(context.recognition, hide_faces=context.outputs.blur)
                    for _ in range(len(targets) + spare)
                ]
            with ProgressBars(self._reporter.messages) as bars:

                def progress(stats: RunStats) -> None:
                    self._stats = stats
                    if self._context.server is not None:
                        self._context.server.update(stats)
                    bars.update(stats)

                web = self._context.web
                return run(
                    targets,
                    self._make_pipeline,
                    self._context.backend,
                    self._open_sinks,
                    self._context.shared,
                    Hooks(self._opened, self._frame, progress, self._event, self._closed),
                    # Signals are handled here, until the last result is written.
                    replace(options, handle_signals=False, close_shared=False),
                    self.stop,
                    control=None if web is None else web.next_run(),
                )
        finally:
            for detector in self._detectors:
                detector.close()

    def _opened(self, info: SourceInfo) -> None:
        context = self._context
        self._reporter.source_opened(info, context.backend, context.recognition)
        # A frame of a live source that stalls counts for a limited time, and its memory is limited more tightly.
        limits = {"max_gap": MAX_ABSENCE} if info.is_live else {"max_intervals": MAX_INTERVALS}
        summary = Summary(context.backend.spec.labels, **limits)
        source = SourceResults(info, summary, context.outputs.for_source(info, context.paths))
        self._results[info.name] = source
        if source.files.timeline is not None:
            source.timeline = source.results.open(source.files.timeline)
        if source.files.report is not None and source.files.numbers is not None:
            source.report = source.results.open(source.files.report)
            source.numbers = source.results.open(source.files.numbers)

    def _closed(self, stats: SourceStats) -> None:
        """With a page, sources come and go in one long run: report and forget each one as it ends."""
        source = self._results.get(stats.info.name)
        if self._context.web is not None and source is not None:
            stopped_early = stats.cut and stats.info.has_end
            files = self._complete(source, self._stats, stopped_early=stopped_early)
            if files is not None:
                self._report(source, self._stats, files, stopped_early=stopped_early)
            del self._results[stats.info.name]

    def _make_pipeline(self, info: SourceInfo) -> Pipeline:
        context = self._context
        detector = self._detectors.pop() if self._detectors else None
        if context.web is not None and not self._detectors and not self.stop.is_set():
            Thread(target=self._load_detector, name="detector", daemon=True).start()
        return build_pipeline(context.recognition, context.backend, hide_faces=context.outputs.blur, detector=detector)

    def _load_detector(self) -> None:
        """Load the detector of the next source, so that live sources do not wait for it."""
        detector = build_detector(self._context.recognition, hide_faces=self._context.outputs.blur)
        self._detectors.append(detector)
        if self.stop.is_set() and detector in self._detectors:
            self._detectors.remove(detector)
            detector.close()

    def _open_sinks(self, info: SourceInfo) -> Sequence[Sink]:
        context = self._context
        draw = FrameAnnotator(context.outputs.blur).draw
        source = self._results[info.name]
        labels, follow = context.backend.spec.labels, not info.has_end
        sinks = open_source_sinks(source.files, labels, draw, source.results, follow=follow)
        if source.results.replaced:
            names = ", ".join(map(str, source.results.replaced))
            self._reporter.notify("info", f"replaces the unfinished results of an earlier run: {names}", info.name)
        return sinks

    def _event(self, event: Event) -> None:
        if event.kind is EventKind.FAILED and event.source in self._results:
            self._results[event.source].failed = True
        self._reporter.event(event)

    def _frame(self, info: SourceInfo, frame: Frame, estimates: Estimates) -> None:
        self._results[info.name].summary.add(frame, estimates)
        window = self._context.window
        if window is not None:
            window.show(info.name, frame, estimates)
            if window.closed:
                self.stop.set()

    def _finish(self, stats: RunStats | None) -> None:
        """Write the timelines and report the results of all sources; ``stats`` is None if the run failed."""
        finished: list[tuple[SourceResults, bool, dict[str, Path]]] = []
        order = [] if stats is None else [s.info.name for s in stats.sources]  # of the command, not of the first frames
        named = sorted(self._results.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1)
        for name, source in named:
            stopped_early = name in self.unfinished and self.stop.is_set()
            files = self._complete(source, stats, stopped_early=stopped_early)
            if files is not None:
                finished.append((source, stopped_early, files))
        for source, stopped_early, files in finished:  # last, because the reader of the report may be gone
            self._report(source, stats, files, stopped_early=stopped_early)

    def _complete(
        self, source: SourceResults, stats: RunStats | None, *, stopped_early: bool
    ) -> dict[str, Path] | None:
        """Write the timeline and the report of a source and name its results; None if there is nothing to report.

        Args:
            source: The source, after its end.
            stats: Counters of the run; None if the run failed.
            stopped_early: Whether the user stopped it before its end.

        Raises:
            KeyboardInterrupt: The user stops the command at once.
        """
        source.summary.finish()
        if stats is None and source.summary.frames == 0:  # the error that follows says why
            source.results.finish(complete=False)
            return None
        source.found = self._numbers(source)
        if not self.stop.at_once:
            self._write_timeline(source.info.name, source)
            self._write_report(source)
        if self.stop.at_once:
            raise KeyboardInterrupt
        whole = not source.info.has_end or not (stats is None or source.failed or stopped_early)
        return self._name_results(source.info.name, source, stats, whole)

    def _report(
        self, source: SourceResults, stats: RunStats | None, files: dict[str, Path], *, stopped_early: bool
    ) -> None:
        """Report the results of a source, which are in ``files``, by kind."""
        self._reporter.source_finished(
            source.info.name, source.summary, stats, files, stopped_early=stopped_early, numbers=source.found
        )
        source.reported = True

    def _name_results(self, name: str, source: SourceResults, stats: RunStats | None, whole: bool) -> dict[str, Path]:
        """Give the results of a source their final names if they are whole; return where each of them is, by kind."""
        if stats is not None:
            source.results.fail({sink.name for sink in stats.sinks if sink.off})
        finished = source.results.finish(whole)
        for error in finished.errors:
            self._reporter.error(error)
        self._reporter.incomplete(name, list(finished.partial.values()))
        kinds = {
            "video": source.files.annotated,
            "records": source.files.records,
            "subtitles": source.files.subtitles,
            "timeline": source.files.timeline,
            "report": source.files.report,
            "numbers": source.files.numbers,
        }
        paths = {kind: path for kind, path in kinds.items() if path is not None}
        places = {**{final: Path(final) for final in finished.complete}, **finished.partial}
        return {kind: places[str(path)] for kind, path in paths.items() if str(path) in places}

    def _write_timeline(self, name: str, source: SourceResults) -> None:
        """Draw the timeline of a source, unless the user stops the command."""
        if source.timeline is None:
            return
        from leaf_rt.render.timeline import timeline_png

        try:
            drawn = timeline_png(source.summary, name)
            if not self.stop.at_once:
                source.timeline.write(drawn)
        except LeafError as e:
            self._reporter.error(e)

    def _numbers(self, source: SourceResults) -> dict[str, Any]:
        """The numbers of a finished source."""
        context = self._context
        precision = context.recognition.precision or context.backend.spec.precision
        run = run_facts(context.recognition.model, context.backend.spec, precision)
        return numbers(source.summary, source.info.name, frames=source.summary.frames, run=run)

    def _write_report(self, source: SourceResults) -> None:
        """Write the report of a source and its numbers, if it has them."""
        files, info = source.files, source.info
        if source.report is None or source.numbers is None or files.report is None or self.stop.at_once:
            return
        clip = None
        if files.annotated is not None:  # starts with the first frame, and shows who is person 1
            clip = relative_clip(files.annotated, files.report, source.summary.start)
        elif info.path is not None and not self._context.outputs.blur:
            clip = relative_clip(info.path, files.report)
        try:
            fill_report(source.report, source.numbers, source.summary, source.found, clip)
        except LeafError as e:
            self._reporter.error(e)

    def _report_missing(self) -> None:
        """Report what an immediate stop leaves out, if a source was opened."""
        missing = [source for source in self._results.values() if not source.reported]
        for source in missing:
            for file in (source.timeline, source.report, source.numbers):
                if file is not None:
                    file.discard()
                    file.failed = True
            finished = source.results.finish(complete=not source.info.has_end)
            self._reporter.incomplete(source.info.name, list(finished.partial.values()))
        if missing:
            paths = [path for source in missing for path in (source.files.timeline, source.files.report)]
            self._reporter.stopped_at_once([path for path in paths if path is not None])
