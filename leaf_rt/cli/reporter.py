"""What a command tells people, or the programs that read its JSON log.

Knows the consoles and the data it describes; must not know threads, files or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leaf_rt.backends.base import Backend
from leaf_rt.cli import console, jsonlog
from leaf_rt.cli.targets import shortened
from leaf_rt.errors import LeafError
from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
from leaf_rt.results.summary import Summary
from leaf_rt.sinks.base import Sink
from leaf_rt.stream.stats import Event, EventKind, RunStats
from leaf_rt.text import counted
from leaf_rt.types import SourceInfo


class Reporter:
    """Reports messages and results of one command, and keeps its errors for the exit code.

    Messages go to stderr. Results go to stdout, or to stderr if stdout carries records.

    Args:
        log_json: Write messages as JSON lines instead of text.
        records_on_stdout: Whether stdout carries records.

    Attributes:
        messages: Console for messages; silent with ``log_json``.
        results: Console for results.
    """

    def __init__(self, *, log_json: bool = False, records_on_stdout: bool = False) -> None:
        self.messages = console.console(stderr=True, quiet=log_json)
        self.results = self.messages if records_on_stdout else console.console(stderr=False)
        self._log_json, self._records_on_stdout = log_json, records_on_stdout
        self._errors: list[Exception] = []  # in their order, for the exit code
        self._reported: set[Exception] = set()
        self._failed_sinks: set[str] = set()

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the first error."""
        return console.exit_code(self._errors[0]) if self._errors else 0

    def notify(self, level: str, text: str, source: str = "", event: str = "note", keep: str = "") -> None:
        """Report one message; for the arguments see ``jsonlog.log``."""
        sentence = f"{source}: {text}" if source else text
        if self._log_json:
            jsonlog.log(level, text, source, event, keep=keep)
        elif level == "error":
            console.error(self.messages, sentence)
        else:
            console.note(self.messages, sentence, keep)

    def logged(self, text: str, source: str, event: str) -> None:
        """Report what only the JSON log tells; people see it in the results."""
        if self._log_json:
            jsonlog.log("info", text, source, event)

    def event(self, event: Event) -> None:
        """Report an event of a run."""
        if event.error is not None:
            self._reported.add(event.error)
            if event.kind is EventKind.SINK:
                self._failed_sinks.add(event.source)
            if self._records_on_stdout and console.is_broken_pipe(event.error):
                return
        self.notify(event.level, event.text, event.source, event.kind)

    def alert(self, level: str, name: str, text: str) -> None:
        """Report the delivery of alerts. Threads of alerts call this too."""
        self.notify(level, text, name, "alert")

    def was_reported(self, error: Exception) -> bool:
        """Whether an event or ``error`` has reported this very error."""
        return error in self._reported

    def error(self, error: Exception) -> None:
        """Keep an error for the exit code, and report it unless that has happened."""
        self._errors.append(error)
        if not console.is_broken_pipe(error) and not self.was_reported(error):
            self.notify("error", str(error), event="error")
            self._reported.add(error)

    def close_failed(self, sink: Sink, error: LeafError) -> None:
        """Report that a sink could not be closed; only for the exit code if an event has reported its failure."""
        if sink.name in self._failed_sinks:
            self._reported.add(error)
        self.error(error)

    def source_opened(self, info: SourceInfo, backend: Backend, recognition: RecognitionConfig) -> None:
        """Report what will process a source."""
        if self._log_json:
            jsonlog.log("info", f"{_describe(info)}; {info.decoder}; {backend.reason}", info.name, "opened")
        options = recognition.pipeline_options(backend)
        limit = f", at most {options.max_per_frame}" if options.classify_fps > 0 else ""
        console.facts(self.messages, {
            "source": _describe(info),
            "decoder": info.decoder,
            "detector": f"range {recognition.range}, {recognition.choose_detector().reason}",
            "back end": backend.reason,
            "model": f"{recognition.model.name}, {len(backend.spec.labels)} classes",
            "precision": recognition.precision or backend.spec.precision,
            "batch": f"all faces of a frame{limit}",
            "classification": _classification_rate(options),
        })  # fmt: skip

    def source_finished(
        self,
        name: str,
        summary: Summary,
        stats: RunStats | None,
        files: Mapping[str, Path],
        *,
        stopped_early: bool,
        numbers: Mapping[str, Any],
    ) -> None:
        """Report the results of a source.

        Args:
            name: Its name.
            summary: Who was seen.
            stats: Counters of the run; None if the run failed.
            files: Its result files, by kind; those that do not exist are left out.
            stopped_early: Whether the user stopped it before its end.
            numbers: What the summary file holds, for the JSON log.
        """
        title = counted(summary.frames, "frame")
        source = next((each for each in stats.sources if each.info.name == name), None) if stats is not None else None
        if source is not None and source.seconds > 0:
            title += f" in {source.seconds:.1f} s, {source.processed / source.seconds:.0f} frames/s"
            title += f", {source.dropped} dropped" if source.dropped else ""
            title += f", {source.damaged} damaged" if source.damaged else ""
        if stopped_early:
            title += ", stopped before its end"
        if self._log_json:
            jsonlog.log("info", title, name, "finished", fields={"summary": dict(numbers)})
        self.results.print()
        console.title(self.results, f"{name}: {title}")
        console.people(self.results, summary)
        console.facts(self.results, {kind: str(path) for kind, path in files.items() if path.exists()})

    def incomplete(self, source: str, files: Sequence[Path]) -> None:
        """Report results that are incomplete and keep their temporary names."""
        if files:
            names = ", ".join(map(str, files))
            self.notify("warning", f"incomplete results keep their temporary names: {names}", source, "incomplete")

    def stopped(self, unfinished: Sequence[str], not_started: Sequence[str]) -> None:
        """Report which sources the user stopped before their end, and which did not start at all."""
        groups = {"not finished": unfinished, "not started": not_started}
        parts = [f"{what}: {shortened(names)}" for what, names in groups.items() if names]
        if parts:
            self.notify("warning", f"stopped early; {'; '.join(parts)}", event="stopped")

    def stopped_at_once(self, files: Sequence[Path]) -> None:
        """Report what is missing after an immediate stop; ``files`` were not written."""
        missing = ", ".join(["queued frames", *map(str, files), "the summary"])
        self.notify("warning", f"stopped at once; not written: {missing}", event="stopped")


def _describe(info: SourceInfo) -> str:
    """Name, size, rate and length of a source in one line."""
    parts = [f"{info.name}: {info.width}x{info.height}"]
    if info.fps is not None:
        parts.append(f"{info.fps:.5g} frames/s")
    if info.frame_count is not None:
        parts.append(counted(info.frame_count, "frame"))
    if info.duration is not None:
        parts.append(f"{info.duration:.1f} s")
    parts.append("live" if info.is_live else "with sound" if info.has_audio else "no sound")
    return ", ".join(parts)


def _classification_rate(options: PipelineOptions) -> str:
    """How often faces are classified."""
    if options.classify_fps == 0:
        return "every face in every frame"
    total = (
        f"at most {options.max_classify_fps:g} per second in total"
        if options.max_classify_fps > 0
        else "no limit in total"
    )
    return f"{options.classify_fps:g} per second per face, {total}"
