"""One call of `leaf-rt video` or `webcam`: sources, pipeline, sinks, window and summary wired together.

Knows every part of the runtime by its interface; must not know how options are parsed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from leaf_rt.backends.base import Backend
from leaf_rt.cli import console, jsonlog
from leaf_rt.cli.monitor import Monitor
from leaf_rt.cli.targets import files_among, some
from leaf_rt.cli.wording import answers, describe, frames, status
from leaf_rt.diagnostics.metrics import MetricsServer
from leaf_rt.errors import LeafError
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_detector, build_pipeline
from leaf_rt.recognition.pipeline import Detector, Pipeline
from leaf_rt.render.overlay import Anonymizer, mark
from leaf_rt.render.window import Window
from leaf_rt.results.summary import Summary
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.sinks.shared import shared_sinks
from leaf_rt.sources.base import SourceInfo, Target, is_url
from leaf_rt.sources.opening import is_camera
from leaf_rt.sources.picture import SUFFIXES as PICTURES
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, RunStats
from leaf_rt.system.files import make_folder, write_whole
from leaf_rt.system.signals import StopSignal, stop_on_signals
from leaf_rt.text import printable, readable
from leaf_rt.types import U8, Estimates, Frame

_LIVE_MAX_GAP = 1.0  # s; a live source that stalls shows nobody


class _Kept:
    """A sink that several runs share: whoever made it closes it."""

    def __init__(self, sink: Sink) -> None:
        self.name, self.wants_image, self.write = sink.name, sink.wants_image, sink.write

    def close(self) -> None:
        """Nothing: the next run goes on with it."""


class Session:
    """Runs sources and says what came of them."""

    def __init__(
        self,
        recognition: RecognitionConfig,
        outputs: OutputConfig,
        options: RunOptions,
        monitor: Monitor | None = None,
        listing: Path | None = None,
    ) -> None:
        """Hold what a call asks for; ``listing`` is the file that names its sources, where there is one."""
        self.recognition, self.outputs, self.options = recognition, outputs, options
        self.monitor = monitor or Monitor()
        self.server: MetricsServer | None = None
        self.out = console.console(stderr=True, quiet=self.monitor.log_json)
        self.results = self.out if outputs.on_stdout else console.console(stderr=False)
        self.errors: list[Exception] = []
        self.said: set[str] = set()
        self._read = [*recognition.files, *([] if listing is None else [listing])]
        self._places = OutputPaths()

    def run(self, targets: Sequence[Target], together: bool) -> int:
        """Run all targets, side by side or one after the other.

        A target that fails does not stop those after it.

        Returns:
            0, or the exit code of the first error, which has then been said.

        Raises:
            LeafError: Nothing could be started at all, or the only target failed.
        """
        self._places = OutputPaths([*files_among([t.target for t in targets]), *self._read], self.outputs.files)
        self._places.check(self._expected(targets, together))
        if self.outputs.out is not None:
            make_folder(self.outputs.out)
        with contextlib.ExitStack() as open_now:
            if self.monitor.metrics is not None:
                self.server = open_now.enter_context(MetricsServer(self.monitor.metrics))
                self.say("info", f"metrics at http://127.0.0.1:{self.server.port}/metrics", event="metrics")
            backend = self.recognition.open_backend(lambda text: self.say("info", text, event="backend"))
            open_now.enter_context(contextlib.closing(backend))
            window: Window | None = None
            if self.outputs.show:
                window = open_now.enter_context(contextlib.closing(Window(backend.spec.labels, self.outputs.blur)))
            shared = open_now.enter_context(shared_sinks(self.outputs, backend.spec.labels, self.complain))
            rounds = [list(targets)] if together else [[target] for target in targets]
            for number, part in enumerate(rounds):
                one_round = _Round(self, backend, window, shared)
                try:
                    one_round.run(part, together)
                except LeafError as e:
                    if len(rounds) == 1 and not self._was_said(e):
                        raise
                    self.complain(e)
                except KeyboardInterrupt:
                    if len(rounds) > 1:
                        self._cut_short([], rounds[number + bool(one_round.summaries) :])
                    raise
                if one_round.stop.is_set():
                    self._cut_short(one_round.unfinished, rounds[number + 1 :])
                    break
        return console.exit_code(self.errors[0]) if self.errors else 0

    def _cut_short(self, unfinished: Sequence[str], rest: Sequence[Sequence[Target]]) -> None:
        """ProgressCallback which files somebody's wish to stop left without their end, or without a beginning."""
        not_begun = [readable(t.options.name or Path(t.target).name) for part in rest for t in part]
        said = {"not finished": unfinished, "not begun": not_begun}
        parts = [f"{what}: {some(names)}" for what, names in said.items() if names]
        if parts:
            self.say("warning", f"stopped early; {'; '.join(parts)}", event="stopped")

    def complain(self, error: Exception) -> None:
        """Remember an error for the exit code, and say it unless an event has said it already."""
        self.errors.append(error)
        if not console.nobody_reads(error) and not self._was_said(error):
            self.say("error", str(error), event="error")
            self.said.add(str(error))

    def say(self, level: str, text: str, source: str = "", event: str = "note") -> None:
        """ProgressCallback one thing to whoever reads stderr; arguments as for ``jsonlog.say``."""
        if self.monitor.log_json:
            jsonlog.say(level, text, source, event)
            return
        sentence = f"{source}: {text}" if source else text
        if level == "error":
            console.error(self.out, sentence)
        else:
            console.note(self.out, sentence)

    def _was_said(self, error: Exception) -> bool:
        return any(str(error).endswith(text) for text in self.said)

    def place(self, info: SourceInfo, ending: str) -> Path:
        """Where a result of a source goes."""
        return self._places.take(*self._where(info.name, info.path, info.target), ending)

    def _where(self, name: str, path: Path | None, target: str) -> tuple[Path, str]:
        """Folder and stem of a source's results: the file's own, unless somebody named the source."""
        as_the_file = path is not None and name in (readable(path.name), readable(target))
        stem = path.stem if path is not None and as_the_file else _file_name(name)
        return self.outputs.out or (path.parent if path is not None else Path()), stem

    def _expected(self, targets: Sequence[Target], together: bool) -> Iterator[tuple[Path, str, str]]:
        """Folder, stem and ending of each result that the files among the targets have, before they are opened."""
        names: set[str] = set()
        for target in targets:
            path, options = Path(target.target), target.options
            name = first = options.name or path.name
            for number in itertools.count(2):  # as sources that run side by side are told apart
                if not together or name not in names:
                    break
                name = f"{first} #{number}"
            names.add(name)
            if is_camera(target.target) or is_url(target.target):
                continue
            has_end = path.suffix.lower() in PICTURES or not (options.loop or options.realtime)
            for ending in self.outputs.endings(has_end).values():
                yield *self._where(name, path, str(path)), ending


class _Round:
    """Sources that run side by side, from their opening to their summary."""

    def __init__(self, session: Session, backend: Backend, window: Window | None, shared: Sequence[Sink]) -> None:
        self.session, self.backend, self.window = session, backend, window
        self.labels = backend.spec.labels
        self.cost = session.recognition.pipeline_options(backend, hide_faces=session.outputs.blur)
        self.shared = [_Kept(sink) for sink in shared]
        self.stop = StopSignal()
        self.summaries: dict[str, Summary] = {}
        self.infos: dict[str, SourceInfo] = {}
        self.files: dict[str, dict[str, Path]] = {}  # per source: kind of result -> path
        self.detectors: list[Detector] = []  # ready for sources that are not open yet
        self.concluded: set[str] = set()  # sources whose results are complete
        self.unfinished: list[str] = []  # sources that have an end and were stopped before it
        self.bar = console.progress(session.out)
        self.tasks: list[TaskID] = []  # one per source, in their order

    def run(self, targets: Sequence[Target], live: bool) -> None:
        """Run, then write the timelines and say what was found; also when the run broke off.

        Raises:
            KeyboardInterrupt: Somebody wants it to end at once; what is left out has been said.
        """
        with stop_on_signals(self.stop):
            try:
                try:
                    stats = self._through(targets, live)
                except Exception:  # the results up to there are worth having
                    self._results(None)
                    raise
                self.unfinished = [s.info.name for s in stats.sources if s.cut and s.info.has_end]
                self._results(stats)
            except KeyboardInterrupt:
                self._left_out()
                raise
        for failure in stats.failures:
            self.session.complain(failure)

    def _through(self, targets: Sequence[Target], live: bool) -> RunStats:
        hooks = Hooks(opened=self._opened, frame=self._frame, progress=self._progress, event=self._event)
        try:
            if live:  # frames do not wait for models to load
                self.detectors = [self._detector() for _ in targets]
            with self.bar:
                return run(
                    targets,
                    self._pipeline,
                    self.backend,
                    self._sinks,
                    self.shared,
                    hooks,
                    replace(self.session.options, handle_signals=False),  # they are handled here, to the last word
                    self.stop,
                )
        finally:
            for detector in self.detectors:
                detector.close()

    def _results(self, stats: RunStats | None) -> None:
        """The timelines and the words at the end; ``stats`` is None where the run broke off."""
        for name, summary in self.summaries.items():
            summary.finish()
            if stats is None and summary.frames == 0:  # it could not begin; the error that follows says why
                continue
            if not self.stop.at_once:
                self._timeline(name, summary)
            if self.stop.at_once:
                raise KeyboardInterrupt
            self._conclude(name, summary, stats)
            self.concluded.add(name)

    def _left_out(self) -> None:
        """ProgressCallback what an end at once leaves out, if anything had begun."""
        names = [name for name in self.summaries if name not in self.concluded]
        if not names:
            return
        timelines = [str(path) for name in names if (path := self.files.get(name, {}).get("timeline"))]
        left_out = ", ".join(["what waited to be written", *timelines, "the summary"])
        self.session.say("warning", f"stopped at once; left out: {left_out}", event="stopped")

    def _pipeline(self, info: SourceInfo) -> Pipeline:
        detector = self.detectors.pop() if self.detectors else None
        hide = self.session.outputs.blur
        return build_pipeline(self.session.recognition, self.backend, hide_faces=hide, detector=detector)

    def _detector(self) -> Detector:
        return build_detector(self.session.recognition, hide_faces=self.session.outputs.blur)

    def _sinks(self, info: SourceInfo) -> Sequence[Sink]:
        outputs = self.session.outputs
        files = self.files.setdefault(info.name, {})
        files |= {kind: self.session.place(info, ending) for kind, ending in outputs.endings(info.has_end).items()}
        if outputs.plot is not None and outputs.plot != Path():
            files["timeline"] = outputs.plot
        sinks: list[Sink] = []
        with contextlib.ExitStack() as unless_all_open:
            if "video" in files:
                from leaf_rt.sinks.video import VideoSink

                sinks.append(unless_all_open.enter_context(VideoSink(files["video"], self.labels, self._drawer())))
            if "records" in files:
                from leaf_rt.sinks.jsonl import JsonlSink

                sinks.append(unless_all_open.enter_context(JsonlSink(files["records"], self.labels)))
            unless_all_open.pop_all()
        return sinks

    def _drawer(self) -> Callable[[U8, Estimates, Sequence[str]], U8]:
        """Draws the frames of one source, in place: the sink hands out copies."""
        veil = Anonymizer() if self.session.outputs.blur else None

        def draw(image: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
            if veil is not None:
                veil.hide(image, estimates)
            mark(image, estimates, labels)
            return image

        return draw

    def _opened(self, info: SourceInfo) -> None:
        self.infos[info.name] = info
        self.summaries[info.name] = Summary(self.labels, max_gap=_LIVE_MAX_GAP if info.is_live else None)
        spec, wanted = self.backend.spec, self.session.recognition
        if self.session.monitor.log_json:
            jsonlog.say("info", f"{describe(info)}; {self.backend.reason}", info.name, "opened")
        most = f", {self.cost.max_per_frame} at most" if self.cost.classify_fps > 0 else ""
        console.facts(self.session.out, {
            "source": describe(info),
            "decoder": info.decoder,
            "detector": f"MediaPipe, range {wanted.range}",
            "back end": self.backend.reason,
            "model": f"{wanted.model.name}, {len(spec.labels)} classes",
            "precision": wanted.precision or spec.precision,
            "batch": f"all faces of a frame{most}",
            "answers": answers(self.cost),
        })  # fmt: skip

    def _frame(self, info: SourceInfo, frame: Frame, estimates: Estimates) -> None:
        self.summaries[info.name].add(estimates, frame.generation)
        if self.window is not None:
            self.window.show(info.name, frame, estimates)
            if self.window.closed:
                self.stop.set()

    def _progress(self, stats: RunStats) -> None:
        if self.session.server is not None:
            self.session.server.update(stats)
        now = time.monotonic()
        for number, source in enumerate(stats.sources):
            info = source.info
            if number == len(self.tasks):
                self.tasks.append(self.bar.add_task(printable(info.name), total=info.frame_count, rate=""))
            self.bar.update(
                self.tasks[number],
                description=printable(info.name),
                total=info.frame_count,
                completed=source.processed,
                rate=status(source, now),
            )

    def _event(self, event: Event) -> None:
        if event.level == "error":
            if not (self.session.outputs.on_stdout and event.kind == "sink" and "closed the pipe" in event.text):
                self.session.say(event.level, event.text, event.source, event.kind)
            self.session.said.add(event.text)
        else:
            self.session.say(event.level, event.text, event.source, event.kind)

    def _timeline(self, name: str, summary: Summary) -> None:
        path = self.files.get(name, {}).get("timeline")
        if path is None:
            return
        from leaf_rt.render.timeline import timeline_png

        try:
            drawn = timeline_png(summary, name)
            if not self.stop.at_once:
                write_whole(path, drawn)
        except LeafError as e:
            self.session.complain(e)
            del self.files[name]["timeline"]

    def _conclude(self, name: str, summary: Summary, stats: RunStats | None) -> None:
        out: Console = self.session.results
        out.print()
        title = f"{name}: {frames(summary.frames)}"
        if stats is not None and stats.seconds > 0:
            title += f" in {stats.seconds:.1f} s, {stats.fps:.0f} frames/s"
            own = next((s for s in stats.sources if s.info.name == name), None)
            if own is not None and own.dropped:
                title += f", {own.dropped} dropped"
        if name in self.unfinished and self.stop.is_set():
            title += ", stopped before its end"
        if self.session.monitor.log_json:
            jsonlog.say("info", title.removeprefix(f"{name}: "), name, "finished")
        console.title(out, title)
        console.people(out, summary)
        files = {kind: path for kind, path in self.files.get(name, {}).items() if path.exists()}
        console.facts(out, {kind: str(path) for kind, path in files.items()})


def _file_name(name: str) -> str:
    """A source's name without what file names should not hold."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "live"
