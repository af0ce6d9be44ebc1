"""Resources of a recognizer: back end, image detector, background runs. Must not know the recognizer."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from leaf_rt.backends.base import Backend
from leaf_rt.errors import LeafError
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_detector, build_pipeline
from leaf_rt.recognition.parts import Detector
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognizer.background import BackgroundRun
from leaf_rt.recognizer.source import Opener, is_live
from leaf_rt.sinks.base import Sink
from leaf_rt.sources.base import Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import U8, Prediction, SourceInfo


@contextmanager
def named_by_parameters() -> Iterator[None]:
    """Make the message of an error that begins with an option of the command line name the parameter instead."""
    try:
        yield
    except LeafError as e:
        e.args = (re.sub(r"^--([a-z-]+)", lambda name: name[1].replace("-", "_"), str(e)),)
        raise


class SharedBackend:
    """A back end that several threads use in turn; see ``Backend``."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self._lock = backend, threading.Lock()
        self.name, self.device = backend.name, backend.device
        self.reason, self.spec, self.cropper = backend.reason, backend.spec, backend.cropper

    def infer(self, faces: U8) -> Prediction:
        """Classify crops."""
        with self._lock:
            return self._backend.infer(faces)

    def close(self) -> None:
        """Free the runtime's resources."""
        with self._lock:
            self._backend.close()


class Parts:
    """Resources of a recognizer. They do not refer to it, so that it can be garbage-collected."""

    def __init__(self, config: RecognitionConfig, backend: Backend) -> None:
        self.config = config
        self.backend = SharedBackend(backend)
        self.detector_lock = threading.Lock()
        self._detector: ImageFaceDetector | None = None
        self._runs: list[BackgroundRun] = []

    def detector(self) -> ImageFaceDetector:
        """The detector of pictures; call under ``detector_lock``."""
        if self._detector is None:
            self._detector = ImageFaceDetector(range=self.config.range, detector=self.config.detector)
        return self._detector

    def start(self, background: BackgroundRun) -> None:
        """Start a run. It is stopped when the recognizer is closed."""
        self._runs = [other for other in self._runs if not other.wait(0)]
        background.start()
        self._runs.append(background)

    def run(
        self,
        target: Target,
        opener: Opener,
        sinks: Callable[[SourceInfo], Sequence[Sink]],
        hooks: Hooks,
        options: RunOptions,
        stop: StopSignal,
        *,
        blur: bool = False,
    ) -> RunStats:
        """Run one source to its end, in this thread.

        Args:
            target: What to read.
            opener: Opens the target.
            sinks: Makes the sinks of the source.
            hooks: Called during the run.
            options: Options of the run.
            stop: Set it to stop the run.
            blur: Whether faces are hidden in the output.
        """
        ready: list[Detector] = []
        if is_live(target):  # live frames do not wait for models to load
            ready.append(build_detector(self.config, hide_faces=blur))

        def pipeline(info: SourceInfo) -> Pipeline:
            detector = ready.pop() if ready else None
            with named_by_parameters():
                return build_pipeline(self.config, self.backend, hide_faces=blur, detector=detector)

        try:
            return run([target], pipeline, self.backend, sinks, (), hooks, options, stop, opener)
        finally:
            for detector in ready:
                detector.close()

    def close(self) -> None:
        """End all runs, then free the detector and the model."""
        for background in self._runs:
            background.close()
        with self.detector_lock:
            if self._detector is not None:
                self._detector.close()
        self.backend.close()
