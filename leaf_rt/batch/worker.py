"""``Worker``: processes one file after the other with a model that is loaded once.

It runs in a process of its own, here or on another machine. A result gets its name only when it is complete.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import stat
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import cv2

from leaf_rt.backends.base import Backend
from leaf_rt.batch.job import Clip, Job, Outcome, Ready, SetUpFailed
from leaf_rt.errors import BackendError, LeafError, NoPermission, NotAVideo, NotFound, install_hint, out_of_resources
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.media.images import read_picture
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.recognition.images import recognize_image
from leaf_rt.sinks.base import Sink
from leaf_rt.sinks.factory import open_records
from leaf_rt.sinks.paths import check_place
from leaf_rt.sources.base import Target
from leaf_rt.sources.picture import SUFFIXES as PICTURES
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event
from leaf_rt.system.closing import Closing
from leaf_rt.system.files import make_folder
from leaf_rt.system.result_file import ResultFile
from leaf_rt.types import Estimates, Frame, SourceInfo

_BUG = 70  # exit code
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other result can be written either


@dataclass(slots=True)
class _Counts:
    """What one file came to."""

    frames: int = 0
    faces: int = 0
    warning: str = ""

    def add(self, info: SourceInfo, frame: Frame, estimates: Estimates) -> None:
        """Count a finished frame."""
        self.frames += 1
        self.faces += len(estimates)

    def note(self, event: Event) -> None:
        """Keep the first thing that went wrong."""
        if event.level != "info" and not self.warning:
            self.warning = event.text


class Worker(Closing):
    """Processes files for one job.

    Args:
        job: What all files have in common.

    Attributes:
        ready: What was loaded.

    Raises:
        SetUpFailed: This machine cannot do the job.
    """

    def __init__(self, job: Job) -> None:
        logging.getLogger("leaf_rt").addHandler(logging.NullHandler())  # the outcome says what went wrong
        self._job = job
        notes: list[str] = []
        try:
            _check_machine(job)
            cv2.setNumThreads(job.threads)
            self._backend: Backend = self._config().open_backend(notes.append)
            detector = job.recognition.choose_detector(notes.append)
        except LeafError as e:
            raise SetUpFailed(str(e), e.exit_code) from e
        self._pictures: ImageFaceDetector | None = None
        self.ready = Ready(self._backend.reason, detector.reason, tuple(notes))

    def process(self, clip: Clip) -> Outcome:
        """Process one file. Whatever is wrong with it is in the outcome."""
        start, counts = time.perf_counter(), _Counts()
        try:
            self._process(clip, counts)
            outcome = Outcome(clip, "done", counts.warning, frames=counts.frames, faces=counts.faces)
        except LeafError as e:
            outcome = Outcome(clip, "failed", str(e), e.exit_code, fatal=_is_full(e))
        except Exception as e:  # noqa: BLE001 - a bug that one file shows must not stop the others
            known = out_of_resources(e)
            reason = f"this is a bug in leaf-rt ({type(e).__name__}: {e})" if known is None else str(known)
            outcome = Outcome(clip, "failed", reason, _BUG if known is None else known.exit_code)
        return replace(outcome, seconds=time.perf_counter() - start, backend=self._backend.name)

    def close(self) -> None:
        """Free the models."""
        if self._pictures is not None:
            self._pictures.close()
        self._backend.close()

    def _config(self) -> RecognitionConfig:
        recognition = self._job.recognition
        return replace(recognition, threads=recognition.threads or self._job.threads)

    def _process(self, clip: Clip, counts: _Counts) -> None:
        _check_file(clip.path)
        result = Path(clip.result)
        make_folder(result.parent)
        check_place(result)
        with ResultFile(result) as file:
            try:
                extra = self._job.recognition.extra_columns
                with open_records(self._job.format, file, self._backend.spec.labels, extra) as sink:
                    self._recognize(clip, sink, counts)
                file.complete()
            finally:
                file.discard()

    def _recognize(self, clip: Clip, sink: Sink, counts: _Counts) -> None:
        if Path(clip.path).suffix.lower() in PICTURES:
            self._picture(clip, sink, counts)
            return
        job = self._job
        options = RunOptions(handle_signals=False, close_shared=False, workers=1 if job.threads == 1 else 0)
        stats = run(
            [Target(clip.path, replace(job.source, name=clip.name, decoder_threads=job.threads))],
            lambda _: build_pipeline(job.recognition, self._backend),
            self._backend,
            shared=[sink],
            hooks=Hooks(frame=counts.add, event=counts.note),
            options=options,
        )
        for failure in stats.failures:
            raise failure

    def _picture(self, clip: Clip, sink: Sink, counts: _Counts) -> None:
        recognition = self._job.recognition
        image = read_picture(Path(clip.path))
        if self._pictures is None:
            self._pictures = ImageFaceDetector(range=recognition.range, detector=recognition.detector)
        start = time.perf_counter()
        estimates = recognize_image(
            image,
            self._pictures,
            self._backend,
            max_faces=recognition.pipeline.max_faces,
            uncertain_below=recognition.uncertain_below,
            pose=recognition.pose,
            landmarker=recognition.open_landmarker(),
            prior=recognition.prior,
        )
        height, width = image.shape[:2]
        info = SourceInfo(clip.name, clip.path, "picture", width, height, frame_count=1, path=Path(clip.path))
        frame = Frame(image, 0, 0.0, clip.name)
        sink.write(info, frame, estimates, time.perf_counter() - start)
        counts.add(info, frame, estimates)


def _check_machine(job: Job) -> None:
    """Check that this machine has the same program and sees the same folder.

    Raises:
        LeafError: It does not.
    """
    host, own = platform.node(), version("leaf-rt")
    if own != job.version:
        raise NotFound(
            f"{host} has leaf-rt {own}, and the batch was started by {job.version}; install the same version"
        )
    if job.format == "parquet" and find_spec("pyarrow") is None:
        raise BackendError(f"--format parquet: {host} has no pyarrow; {install_hint('parquet')}")
    if not Path(job.out).is_dir():
        raise NotFound(f"{host} does not see the folder {job.out}; all machines need the same folders")


def _check_file(path: str) -> None:
    """Refuse what would block, or never end.

    Raises:
        NotFound, NoPermission, NotAVideo: It is no file that can be read.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it; change its permissions") from e
    except (OSError, ValueError) as e:
        reason = f" ({e.strerror})" if isinstance(e, OSError) and e.errno != errno.ENOENT else ""
        raise NotFound(f"{path}: no such file{reason}; check its name") from e
    if not stat.S_ISREG(mode):
        raise NotAVideo(f"{path}: is not a regular file; a batch reads files only")


def _is_full(error: BaseException | None) -> bool:
    """Whether the error comes from the place of the results as a whole."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
