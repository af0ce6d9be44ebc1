"""The work of `leaf-rt video` and `leaf-rt webcam`: opens what the command needs and starts its runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaf_rt.cli.reporter import Reporter
from leaf_rt.cli.run import CommandContext, Run
from leaf_rt.cli.targets import expected_sources, files_among
from leaf_rt.diagnostics.metrics import MetricsServer
from leaf_rt.errors import LeafError
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.render.window import Window
from leaf_rt.sinks.config import OutputConfig, prepare_paths
from leaf_rt.sinks.factory import shared_sinks
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.sources.base import Target
from leaf_rt.stream.options import RunOptions
from leaf_rt.text import readable


@dataclass(frozen=True, slots=True)
class VideoCommand:
    """Processes videos, cameras and streams.

    Attributes:
        recognition: How faces are recognized.
        outputs: What is written and shown.
        options: How each run is driven.
        reporter: Reports messages and results.
        metrics_port: Port for metrics, 0 for a free one; None serves no metrics.
        sources_file: The file that lists the sources, if there is one.
    """

    recognition: RecognitionConfig
    outputs: OutputConfig
    options: RunOptions
    reporter: Reporter
    metrics_port: int | None = None
    sources_file: Path | None = None

    def run(self, targets: Sequence[Target], *, parallel: bool) -> int:
        """Process all targets in one run, or in a run per target. A run that fails does not stop those after it.

        Returns:
            0, or the exit code of the first error; it has been reported.

        Raises:
            LeafError: Nothing could be started, or the only run failed.
            KeyboardInterrupt: The user stopped the command at once.
        """
        inputs = [*files_among(targets), *self.recognition.files]
        if self.sources_file is not None:
            inputs.append(self.sources_file)
        paths = prepare_paths(self.outputs, inputs, expected_sources(targets, parallel))
        runs = [list(targets)] if parallel else [[target] for target in targets]
        with self._open(paths) as context:
            for number, part in enumerate(runs):
                current = Run(context)
                try:
                    current.process(part, self.options, preload=parallel)
                except LeafError as e:
                    if len(runs) == 1 and not self.reporter.was_reported(e):
                        raise
                    self.reporter.error(e)
                except KeyboardInterrupt:
                    if len(runs) > 1:
                        self.reporter.stopped([], _names(runs[number + current.started :]))
                    raise
                if current.stop.is_set():
                    self.reporter.stopped(current.unfinished, _names(runs[number + 1 :]))
                    break
        return self.reporter.exit_code

    @contextlib.contextmanager
    def _open(self, paths: OutputPaths) -> Iterator[CommandContext]:
        """Open what all runs share."""
        reporter = self.reporter
        with contextlib.ExitStack() as stack:
            server, window = None, None
            if self.metrics_port is not None:
                server = stack.enter_context(MetricsServer(self.metrics_port))
                reporter.notify("info", f"metrics at http://127.0.0.1:{server.port}/metrics", event="metrics")
            backend = self.recognition.open_backend(lambda text: reporter.notify("info", text, event="backend"))
            stack.enter_context(contextlib.closing(backend))
            self.recognition.choose_detector(lambda text: reporter.notify("info", text, event="detector"))
            if self.outputs.show:
                window = stack.enter_context(contextlib.closing(Window(backend.spec.labels, self.outputs.blur)))
            shared = stack.enter_context(shared_sinks(self.outputs, backend.spec.labels, reporter.close_failed))
            yield CommandContext(
                self.recognition, self.outputs, paths, reporter, backend, shared, window=window, server=server
            )


def _names(runs: Sequence[Sequence[Target]]) -> list[str]:
    """The names of all targets of some runs."""
    return [readable(target.options.name or Path(target.target).name) for part in runs for target in part]
