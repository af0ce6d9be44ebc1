"""One run: sources that are processed in parallel, from opening to summary.

Knows every part of the runtime by its interface; must not know how options are parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leaf_rt.backends.base import Backend
from leaf_rt.cli.progress import ProgressBars
from leaf_rt.cli.report import MAX_INTERVALS, relative_clip, run_facts, write_report
from leaf_rt.cli.reporter import Reporter
from leaf_rt.diagnostics.metrics import MetricsServer
from leaf_rt.errors import LeafError
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_detector, build_pipeline
from leaf_rt.recognition.pipeline import Detector, Pipeline
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
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.files import write_whole
from leaf_rt.system.signals import StopSignal, stop_on_signals
from leaf_rt.types import Estimates, Frame, SourceInfo


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
        window: Shows frames.
        server: Serves metrics.
    """

    recognition: RecognitionConfig
    outputs: OutputConfig
    paths: OutputPaths
    reporter: Reporter
    backend: Backend
    shared: Sequence[Sink]
    window: Window | None = None
    server: MetricsServer | None = None


@dataclass(slots=True)
class SourceResults:
    """What lives as long as one source.

    Attributes:
        info: The source.
        summary: Who was seen.
        files: Where its results go.
        reported: Whether its results are complete and reported.
    """

    info: SourceInfo
    summary: Summary
    files: SourceOutputs
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
                except Exception:  # the results so far are written, then the error goes on
                    self._finish(None)
                    raise
                self.unfinished = [s.info.name for s in stats.sources if s.cut and s.info.has_end]
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
                self._detectors = [
                    build_detector(context.recognition, hide_faces=context.outputs.blur) for _ in targets
                ]
            with ProgressBars(self._reporter.messages) as bars:

                def progress(stats: RunStats) -> None:
                    if self._context.server is not None:
                        self._context.server.update(stats)
                    bars.update(stats)

                return run(
                    targets,
                    self._make_pipeline,
                    self._context.backend,
                    self._open_sinks,
                    self._context.shared,
                    Hooks(opened=self._opened, frame=self._frame, progress=progress, event=self._reporter.event),
                    # Signals are handled here, until the last result is written.
                    replace(options, handle_signals=False, close_shared=False),
                    self.stop,
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
        self._results[info.name] = SourceResults(info, summary, context.outputs.for_source(info, context.paths))

    def _make_pipeline(self, info: SourceInfo) -> Pipeline:
        context = self._context
        detector = self._detectors.pop() if self._detectors else None
        return build_pipeline(context.recognition, context.backend, hide_faces=context.outputs.blur, detector=detector)

    def _open_sinks(self, info: SourceInfo) -> Sequence[Sink]:
        context = self._context
        draw = FrameAnnotator(context.outputs.blur).draw
        return open_source_sinks(self._results[info.name].files, context.backend.spec.labels, draw)

    def _frame(self, info: SourceInfo, frame: Frame, estimates: Estimates) -> None:
        self._results[info.name].summary.add(frame, estimates)
        window = self._context.window
        if window is not None:
            window.show(info.name, frame, estimates)
            if window.closed:
                self.stop.set()

    def _finish(self, stats: RunStats | None) -> None:
        """Write the timelines and report the results of all sources; ``stats`` is None if the run failed."""
        for name, source in self._results.items():
            source.summary.finish()
            if stats is None and source.summary.frames == 0:  # the error that follows says why
                continue
            timeline = None if self.stop.at_once else self._write_timeline(name, source)
            if self.stop.at_once:
                raise KeyboardInterrupt
            found = self._numbers(name, source)
            report = self._write_report(source, found)
            results = {
                "video": source.files.annotated,
                "records": source.files.records,
                "subtitles": source.files.subtitles,
                "timeline": timeline,
                "report": report,
                "numbers": None if report is None else source.files.numbers,
            }
            files = {kind: path for kind, path in results.items() if path is not None}
            stopped_early = name in self.unfinished and self.stop.is_set()
            self._reporter.source_finished(
                name, source.summary, stats, files, stopped_early=stopped_early, numbers=found
            )
            source.reported = True

    def _write_timeline(self, name: str, source: SourceResults) -> Path | None:
        """Draw the timeline of a source, unless the user stops the command; return its file, None if it failed."""
        path = source.files.timeline
        if path is None:
            return None
        from leaf_rt.render.timeline import timeline_png

        try:
            drawn = timeline_png(source.summary, name)
            if not self.stop.at_once:
                write_whole(path, drawn)
        except LeafError as e:
            self._reporter.error(e)
            return None
        return path

    def _numbers(self, name: str, source: SourceResults) -> dict[str, Any]:
        """The numbers of a finished source."""
        context, summary = self._context, source.summary
        precision = context.recognition.precision or context.backend.spec.precision
        run = run_facts(context.recognition.model, context.backend.spec, precision)
        return numbers(summary, name, frames=summary.frames, run=run)

    def _write_report(self, source: SourceResults, found: dict[str, Any]) -> Path | None:
        """Write the report of a source, if it has one; return its file, None if it failed."""
        files, outputs = source.files, self._context.outputs
        if files.report is None:
            return None
        clip = None
        if files.annotated is not None:  # starts with the first frame, and says who is person 1
            clip = relative_clip(files.annotated, files.report, source.summary.start)
        elif source.info.path is not None and not outputs.blur:
            clip = relative_clip(source.info.path, files.report)
        try:
            write_report(source.summary, found, files.report, files.numbers, clip)
        except LeafError as e:
            self._reporter.error(e)
            return None
        return files.report

    def _report_missing(self) -> None:
        """Report what an immediate stop leaves out, if a source was opened."""
        missing = [source for source in self._results.values() if not source.reported]
        if missing:
            paths = [path for source in missing for path in (source.files.timeline, source.files.report)]
            self._reporter.stopped_at_once([path for path in paths if path is not None])
