"""One call of `leaf-rt image`: every picture read, searched, written and put in a table.

Knows pictures, the detector, the back end and the record sinks; must not know how options are parsed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from leaf_rt.backends.base import Backend
from leaf_rt.cli import console
from leaf_rt.cli.targets import without_results
from leaf_rt.errors import LeafError
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.media.images import read_picture, write_picture
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.images import recognize_image
from leaf_rt.render.overlay import annotate
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.config import OutputConfig
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.sinks.shared import shared_sinks
from leaf_rt.sources.base import SourceInfo
from leaf_rt.system.files import make_folder
from leaf_rt.text import readable
from leaf_rt.types import Frame


class ImageCommand:
    """Recognises pictures one after the other; one that fails does not stop those after it."""

    def __init__(self, recognition: RecognitionConfig, outputs: OutputConfig) -> None:
        self.recognition, self.outputs = recognition, outputs
        self.out = console.console(stderr=True)
        self.results = self.out if outputs.on_stdout else console.console(stderr=False)
        self._codes: list[int] = []
        self._places = OutputPaths()

    def run(self, paths: Sequence[Path]) -> int:
        """Do all of them.

        Returns:
            0, or the exit code of the first picture that failed; its error has been said.

        Raises:
            LeafError: Nothing could be started at all, or the only picture failed.
        """
        kept, left_out = without_results([str(path) for path in paths])
        self._places = OutputPaths([*map(Path, kept), *self.recognition.files], self.outputs.files)
        endings = [".jsonl"] * (self.outputs.jsonl is None) + [".jpg"] * (self.outputs.save_video is not False)
        pictures = [(self.outputs.out or path.parent, path.stem) for path in map(Path, kept)]
        self._places.check((*picture, ending) for picture in pictures for ending in endings)
        if self.outputs.out is not None:
            make_folder(self.outputs.out)
        with contextlib.ExitStack() as open_now:
            backend = self.recognition.open_backend(lambda text: console.note(self.out, text))
            open_now.enter_context(contextlib.closing(backend))
            console.facts(self.out, {"back end": backend.reason})
            shared = open_now.enter_context(shared_sinks(self.outputs, backend.spec.labels, self._complain))
            detector = open_now.enter_context(ImageFaceDetector(range=self.recognition.range))
            if left_out:
                console.note(self.out, left_out)
            for path in map(Path, kept):
                try:
                    self._one(path, detector, backend, shared)
                except LeafError as e:
                    if len(kept) == 1:
                        raise
                    self._complain(e)
        return self._codes[0] if self._codes else 0

    def _complain(self, error: LeafError) -> None:
        console.error(self.out, str(error))
        self._codes.append(console.exit_code(error))

    def _one(self, path: Path, detector: ImageFaceDetector, backend: Backend, shared: Sequence[Sink]) -> None:
        image = read_picture(path)
        start = time.perf_counter()
        wanted, labels = self.recognition, backend.spec.labels
        estimates = recognize_image(
            image,
            detector,
            backend,
            max_faces=wanted.pipeline.max_faces,
            uncertain_below=wanted.smooth.uncertain_below,
        )
        latency = time.perf_counter() - start
        height, width = image.shape[:2]
        name = readable(path.name)
        info = SourceInfo(name, str(path), "picture", width, height, frame_count=1, decoder="OpenCV", path=path)
        frame = Frame(image, 0, 0.0, name)
        files: dict[str, str] = {}
        for sink in shared:
            sink.write(info, frame, estimates, latency)
        if self.outputs.jsonl is None:
            place = self._place(path, ".jsonl")
            own = JsonlSink(place, labels)
            try:
                own.write(info, frame, estimates, latency)
            finally:
                own.close()
            files["records"] = str(place)
        if self.outputs.save_video is not False:
            place = self._place(path, ".jpg")
            write_picture(place, annotate(image, estimates, labels, self.outputs.blur))
            files = {"picture": str(place), **files}
        count = len(estimates)
        faces = "no face found" if count == 0 else f"{count} face" if count == 1 else f"{count} faces"
        console.title(self.results, f"{name}: {width}x{height}, {faces}")
        if count:
            console.faces(self.results, estimates, labels)
        console.facts(self.results, files)

    def _place(self, path: Path, ending: str) -> Path:
        return self._places.take(self.outputs.out or path.parent, path.stem, ending)
