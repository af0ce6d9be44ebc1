"""The work of `leaf-rt image`: recognizes faces in pictures, one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaf_rt.backends.base import Backend
from leaf_rt.cli import console
from leaf_rt.cli.reporter import Reporter
from leaf_rt.cli.shared import shared_files
from leaf_rt.cli.skipping import without_finished
from leaf_rt.cli.targets import without_results
from leaf_rt.errors import LeafError
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.media.images import read_picture, write_picture
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.images import recognize_image
from leaf_rt.render.overlay import annotate
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig, prepare_paths
from leaf_rt.sinks.factory import shared_sinks
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.system.result_file import ResultFile
from leaf_rt.text import counted, readable
from leaf_rt.types import Estimates, Frame, SourceInfo

_SUFFIX = ".jpg"  # of annotated pictures


@dataclass(frozen=True, slots=True)
class ImageCommand:
    """Recognizes faces in pictures. A picture that fails does not stop those after it.

    Attributes:
        recognition: How faces are recognized.
        outputs: What is written.
        reporter: Reports messages and results.
    """

    recognition: RecognitionConfig
    outputs: OutputConfig
    reporter: Reporter

    def run(self, files: Sequence[Path]) -> int:
        """Process all pictures.

        Returns:
            0, or the exit code of the first picture that failed; its error has been reported.

        Raises:
            LeafError: Nothing could be started, or the only picture failed.
        """
        kept, skipped = without_results([str(path) for path in files])
        pictures = [Path(name) for name in kept]
        if self.outputs.skip_existing:
            infos = ((path, _describe(path)) for path in pictures)
            pictures, finished = without_finished(pictures, infos, self.outputs, _SUFFIX)
            if finished:
                self.reporter.notify("info", finished)
            if not pictures:
                return self.reporter.exit_code
        inputs = [*pictures, *self.recognition.files]
        paths = prepare_paths(self.outputs, inputs, (_describe(path) for path in pictures), _SUFFIX)
        with contextlib.ExitStack() as stack:
            backend = self.recognition.open_backend(lambda text: self.reporter.notify("info", text))
            stack.enter_context(contextlib.closing(backend))
            choice = self.recognition.choose_detector(lambda text: self.reporter.notify("info", text))
            console.facts(self.reporter.messages, {"detector": choice.reason, "back end": backend.reason})
            together = stack.enter_context(shared_files(self.reporter, follow=False))
            close_failed = self.reporter.close_failed
            shared = stack.enter_context(
                shared_sinks(
                    self.outputs,
                    backend.spec.labels,
                    close_failed,
                    together.results,
                    follow=False,
                    extra=self.recognition.extra_columns,
                )
            )
            detector = stack.enter_context(
                ImageFaceDetector(range=self.recognition.range, detector=self.recognition.detector)
            )
            if skipped:
                self.reporter.notify("info", skipped)
            together.whole = False  # without any picture there is no result that could replace an earlier one
            for path in pictures:
                try:
                    self._process(path, detector, backend, shared, paths)
                    together.whole = True
                except LeafError as e:
                    if len(files) == 1:
                        raise
                    self.reporter.error(e)
        return self.reporter.exit_code

    def _process(
        self, path: Path, detector: ImageFaceDetector, backend: Backend, shared: Sequence[Sink], paths: OutputPaths
    ) -> None:
        """Recognize the faces in one picture, and write and report the results."""
        image = read_picture(path)
        start = time.perf_counter()
        estimates = recognize_image(
            image,
            detector,
            backend,
            max_faces=self.recognition.pipeline.max_faces,
            uncertain_below=self.recognition.uncertain_below,
            pose=self.recognition.pose,
            landmarker=self.recognition.open_landmarker(),
            prior=self.recognition.prior,
        )
        latency = time.perf_counter() - start
        height, width = image.shape[:2]
        info = _describe(path, width, height)
        frame, labels = Frame(image, 0, 0.0, info.name), backend.spec.labels
        for sink in shared:
            sink.write(info, frame, estimates, latency)
        files = self.outputs.for_source(info, paths, _SUFFIX)
        written: dict[str, Path] = {}
        if files.records is not None:
            with self._attempt("records", files.records, written), ResultFile(files.records) as result:
                with JsonlSink(result, labels) as records:
                    records.write(info, frame, estimates, latency)
                result.complete()
        if files.annotated is not None:
            with self._attempt("picture", files.annotated, written):
                write_picture(files.annotated, annotate(image, estimates, labels, self.outputs.blur))
        self._report(info, estimates, labels, written)

    @contextlib.contextmanager
    def _attempt(self, kind: str, path: Path, written: dict[str, Path]) -> Iterator[None]:
        """Note a result that was written, or report why it was not; the other results are written all the same."""
        try:
            yield
            written[kind] = path
        except LeafError as e:
            self.reporter.error(e)

    def _report(self, info: SourceInfo, estimates: Estimates, labels: tuple[str, ...], files: dict[str, Path]) -> None:
        out, count = self.reporter.results, len(estimates)
        faces = counted(count, "face") if count else "no face found"
        console.title(out, f"{info.name}: {info.width}x{info.height}, {faces}")
        if count:
            console.faces(out, estimates, labels)
        console.facts(out, {kind: str(path) for kind, path in files.items()})


def _describe(path: Path, width: int = 0, height: int = 0) -> SourceInfo:
    """Describe a picture as a source; its size is not known before it is read."""
    name = readable(path.name)
    return SourceInfo(name, str(path), "picture", width, height, frame_count=1, decoder="OpenCV", path=path)
