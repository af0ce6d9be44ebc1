"""The work of `leaf-rt video` and `leaf-rt webcam`: opens what the command needs and starts its runs."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leaf_rt.alerts.config import AlertConfig, open_alerts
from leaf_rt.backends.base import Backend
from leaf_rt.cli.extras import needs_extra
from leaf_rt.cli.reporter import Reporter
from leaf_rt.cli.run import CommandContext, Run
from leaf_rt.cli.shared import shared_files
from leaf_rt.cli.skipping import without_finished
from leaf_rt.cli.targets import expected_sources, files_among, has_no_end
from leaf_rt.errors import LeafError
from leaf_rt.faces.appearance import load_tables
from leaf_rt.media import opencv
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.render.window import Window
from leaf_rt.sinks.config import OutputConfig, prepare_paths
from leaf_rt.sinks.factory import shared_sinks
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import RunOptions
from leaf_rt.text import readable
from leaf_rt.web.options import WebOptions

if TYPE_CHECKING:
    from leaf_rt.web.server import WebServer


@dataclass(frozen=True, slots=True)
class VideoCommand:
    """Processes videos, cameras and streams.

    Attributes:
        recognition: How faces are recognized.
        outputs: What is written and shown.
        options: How each run is driven.
        reporter: Reports messages and results.
        alerts: Where events are sent.
        metrics_port: Port for metrics, 0 for a free one; None serves no metrics.
        sources_file: The file that lists the sources, if there is one.
        web: How to serve the live page; None does not.
        source_options: How sources are read that clients of the page add.
        keep_open: Whether the run goes on without sources.
        jobs: Files to process at the same time.
    """

    recognition: RecognitionConfig
    outputs: OutputConfig
    options: RunOptions
    reporter: Reporter
    alerts: AlertConfig = field(default_factory=AlertConfig)
    metrics_port: int | None = None
    sources_file: Path | None = None
    web: WebOptions | None = None
    source_options: SourceOptions = field(default_factory=SourceOptions)
    keep_open: bool = False
    jobs: int = 1

    def run(self, targets: Sequence[Target], *, parallel: bool) -> int:
        """Process all targets in one run, or ``jobs`` of them in each. A run that fails does not stop those after it.

        Returns:
            0, or the exit code of the first error; it has been reported.

        Raises:
            LeafError: Nothing could be started, or the only run failed.
            KeyboardInterrupt: The user stopped the command at once.
        """
        if self.outputs.skip_existing:
            targets, skipped = without_finished(targets, expected_sources(targets, parallel), self.outputs)
            if skipped:
                self.reporter.notify("info", skipped, event="skipped")
            if not targets:
                return self.reporter.exit_code
        inputs = [*files_among(targets), *self.recognition.files]
        if self.sources_file is not None:
            inputs.append(self.sources_file)
        paths = prepare_paths(self.outputs, inputs, (info for _, info in expected_sources(targets, parallel)))
        left = deque([list(targets)] if parallel else groups(targets, self.jobs))
        alone = len(left) == 1
        with self._open(paths, endless=any(has_no_end(target) for target in targets)) as context:
            opened = False
            while left:
                part = left.popleft()
                current = Run(context)
                try:
                    current.process(part, self.options, preload=parallel)
                except LeafError as e:
                    if len(part) > 1 and not parallel and not current.started:  # one did not open: the others go on
                        left.extendleft([target] for target in reversed(part))
                        continue
                    if alone and not self.reporter.was_reported(e):
                        raise
                    self.reporter.error(e)
                except KeyboardInterrupt:
                    if not alone:
                        self.reporter.stopped([], _names([*([] if current.started else [part]), *left]))
                    raise
                opened = opened or current.started
                if current.stop.is_set():
                    context.shared_files.whole &= not current.unfinished and not left
                    self.reporter.stopped(current.unfinished, _names(left))
                    break
            context.shared_files.whole &= opened  # else there is no result that could replace an earlier one
        return self.reporter.exit_code

    @contextlib.contextmanager
    def _open(self, paths: OutputPaths, endless: bool) -> Iterator[CommandContext]:
        """Open what all runs share; ``endless``: a source has no end, so people follow the lines that all share."""
        reporter = self.reporter
        with contextlib.ExitStack() as stack:
            server, window = None, None
            if self.metrics_port is not None:
                from leaf_rt.web.metrics import MetricsServer  # a server of HTTP would delay the first record

                server = stack.enter_context(MetricsServer(self.metrics_port))
                reporter.notify("info", f"metrics at http://127.0.0.1:{server.port}/metrics", event="metrics")
            backend = stack.enter_context(contextlib.closing(self._load(for_files=not endless and self.web is None)))
            if self.outputs.show:
                window = stack.enter_context(contextlib.closing(Window(backend.spec.labels, self.outputs.blur)))
            files = stack.enter_context(shared_files(reporter, endless))
            shared = stack.enter_context(
                shared_sinks(
                    self.outputs,
                    backend.spec.labels,
                    reporter.close_failed,
                    files.results,
                    endless,
                    self.recognition.extra_columns,
                )
            )
            alerts = stack.enter_context(
                open_alerts(self.alerts, backend.spec.labels, self.outputs.event_filter, reporter.alert)
            )
            shared = [*shared, *alerts]
            web = None
            if self.web is not None:
                web = stack.enter_context(self._serve(self.web, backend))
                shared.append(web.hub)
            yield CommandContext(
                self.recognition,
                self.outputs,
                paths,
                reporter,
                backend,
                shared,
                files,
                window=window,
                server=server,
                web=web,
            )

    def _load(self, for_files: bool) -> Backend:
        """Load the back end and, beside it, what finds faces: the first record waits for both."""
        notes: list[str] = []
        if for_files:
            opencv.use_one_thread()
        with ThreadPoolExecutor(2, "load") as pool:
            tables = pool.submit(load_tables)
            detector = pool.submit(self.recognition.choose_detector, notes.append)
            backend = self.recognition.open_backend(
                lambda text: self.reporter.notify("info", text, event="backend"), for_files=for_files
            )
        try:
            tables.result()
            detector.result()
        except BaseException:
            backend.close()
            raise
        for note in notes:
            self.reporter.notify("info", note, event="detector")
        return backend

    def _serve(self, options: WebOptions, backend: Backend) -> WebServer:
        """Start the live page and say where it is."""
        with needs_extra("--web", "web"):
            from leaf_rt.web.server import WebServer
        web = WebServer(
            options,
            self.recognition,
            backend,
            self.source_options,
            blur=self.outputs.blur,
            stored=list(self.outputs.stored()),
            keep_open=self.keep_open,
        )
        self.reporter.notify("info", f"live page at {web.address}", event="web", keep=web.address)
        if not options.is_local and options.certificate is None:
            text = "without TLS, browsers let a page use the camera only on localhost; see --tls-cert"
            self.reporter.notify("info", text, event="web")
        return web


def groups(targets: Sequence[Target], size: int) -> list[list[Target]]:
    """Group files that are processed at the same time; never two of one name, whose results get numbers in order."""
    found: list[list[Target]] = []
    names: set[str] = set()
    for target in targets:
        name = Path(target.target).stem
        if not found or len(found[-1]) >= size or name in names:
            found.append([])
            names.clear()
        found[-1].append(target)
        names.add(name)
    return found


def _names(runs: Iterable[Sequence[Target]]) -> list[str]:
    """The names of all targets of some runs."""
    return [readable(target.options.name or target.address.name) for part in runs for target in part]
