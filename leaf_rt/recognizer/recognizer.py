"""``Recognizer``: one loaded model for pictures, crops, streams and videos."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from leaf_rt.models.calibration import PRIORS
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
from leaf_rt.recognition.images import recognize_image
from leaf_rt.recognition.smoothing import SmoothOptions
from leaf_rt.recognizer.background import BackgroundRun, FrameQueue, close_with
from leaf_rt.recognizer.crops import classify_crops
from leaf_rt.recognizer.faces import Faces
from leaf_rt.recognizer.parts import Parts, named_by_parameters
from leaf_rt.recognizer.picture import load_picture
from leaf_rt.recognizer.progress import progress_bar
from leaf_rt.recognizer.source import SourceArguments, StreamSource, has_end, target_of
from leaf_rt.recognizer.stream import Stream
from leaf_rt.recognizer.video import VideoJob, VideoResult
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.closing import Closing
from leaf_rt.system.signals import StopSignal

if TYPE_CHECKING:
    from leaf_rt.recognizer.picture import PictureLike

_log = logging.getLogger("leaf_rt")
_log.addHandler(logging.NullHandler())
_READY_FRAMES = 2  # finished frames of a file that wait for the caller
_NO_TIMEOUT = 1e6  # s; the caller may take any time for a frame
_PROGRESS_PERIOD = 0.1  # s between two updates of the progress bar

MAX_THREADS = 1024


class Recognizer(Closing):
    """Recognizes facial expressions in pictures, crops, streams and videos. A context manager.

    The model is loaded once. One recognizer may be used from several threads; calls of the model take turns.

    Args:
        model: Model file (.onnx, .xml, .pt2, .plan) with its .json beside it; None takes the bundled model.
        backend: "auto", "onnxruntime", "openvino", "torch", "tensorrt" or "tensorrt-rtx". "auto" takes the fastest
            one here.
        precision: "auto", "fp32", "fp16", "bf16" or "int8".
        threads: CPU threads for inference; 0 lets the back end choose.
        face_range: "auto", "short" (faces close to the camera) or "full" (small faces too).
        detector: What runs the face detector: "auto", "onnxruntime", "openvino", "torch" (on the GPU), or "mediapipe",
            which sends usage statistics to Google and needs your users' consent. "auto" never takes the last two.
        max_faces: Largest number of faces per frame; the largest faces are kept. 0 sets no limit.
        classify_fps: In videos, classifications per second and face; 0 classifies every face in every frame.
        max_classify_fps: In videos, classifications per second of all faces together; 0 sets no limit; None means 40 on
            a CPU and no limit on a GPU.
        cuts: In videos, look for cuts, at which all tracks end.
        reid: In videos, seconds for which a person who is gone is remembered, to get the same ``person_id`` again. 0
            remembers nobody.
        reid_model: In videos, ONNX file of a face-recognition network that recognizes these people better; see
            docs/identity.md. None compares the colors of heads only.
        pose: Whether to compute the head pose: ``Face.yaw``, ``pitch`` and ``roll``.
        landmarks: MediaPipe's ``face_landmarker.task``, for ``Face.blendshapes`` and a better head pose; see
            docs/records.md.
        smooth: In videos, time constant of the smoothing, s; 0 switches it off.
        smooth_talking: In videos, the same while a face talks, s. No effect if it is not above ``smooth``.
        min_dwell: In videos, shortest time for which a label is shown, s.
        uncertain_below: If the largest probability is below this, the label is "uncertain". 0 to 1. None takes the
            threshold that was chosen with the model.
        prior: How frequent the classes are taken to be: "natural", as where the model learned, or "balanced", which
            finds more of the rare ones and makes more mistakes.
        calibrate: In videos, seconds for which a face must rest before its look at rest is taken out of its answers; 0
            never does that.

    Attributes:
        labels: Names of the classes, in the order of all probabilities.
        backend: Name of the back end that runs.
        reason: One sentence about the runtime, its precision, and why it was chosen.

    Raises:
        LeafError: The model or the back end cannot be loaded.
        ValueError: A number is out of range.

    Example:
        >>> with leaf_rt.Recognizer() as recognizer:
        ...     for face in recognizer.image("party.jpg"):
        ...         print(face.xyxy, face.emotion, face.probs["happiness"])
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        face_range: Literal["auto", "short", "full"] = "auto",
        detector: Literal["auto", "onnxruntime", "openvino", "torch", "mediapipe"] = "auto",
        max_faces: int = 0,
        classify_fps: float = 10.0,
        max_classify_fps: float | None = None,
        cuts: bool = True,
        reid: float = 30.0,
        reid_model: str | os.PathLike[str] | None = None,
        pose: bool = False,
        landmarks: str | os.PathLike[str] | None = None,
        smooth: float = 0.3,
        smooth_talking: float = 1.2,
        min_dwell: float = 0.4,
        uncertain_below: float | None = None,
        prior: Literal["natural", "balanced"] = "natural",
        calibrate: float = 0.0,
    ) -> None:
        if face_range not in ("auto", "short", "full"):
            raise ValueError(f"face_range: wanted 'auto', 'short' or 'full', got {face_range!r}")
        _check_integer("threads", threads, MAX_THREADS)
        _check_integer("max_faces", max_faces)
        _check_flag("cuts", cuts)
        _check_flag("pose", pose)
        _check_path("landmarks", landmarks)
        _check_path("reid_model", reid_model)
        _check_number("classify_fps", classify_fps)
        _check_number("reid", reid)
        _check_number("smooth", smooth)
        _check_number("smooth_talking", smooth_talking)
        _check_number("min_dwell", min_dwell)
        _check_number("calibrate", calibrate)
        if uncertain_below is not None:
            _check_number("uncertain_below", uncertain_below, 1.0)
        if prior not in PRIORS:
            raise ValueError(f"prior: wanted 'natural' or 'balanced', got {prior!r}")
        if max_classify_fps is not None:
            _check_number("max_classify_fps", max_classify_fps)
        self._config = RecognitionConfig(
            model=DEFAULT_MODEL if model is None else Path(model),
            backend=backend,
            threads=threads,
            precision="" if precision == "auto" else precision,
            range=face_range,
            detector=detector,
            pipeline=PipelineOptions(classify_fps=classify_fps, max_faces=max_faces),
            smooth=SmoothOptions(
                time_constant=smooth,
                min_dwell=min_dwell,
                talking_time_constant=smooth_talking,
            ),
            max_classify_fps=max_classify_fps,
            cuts=cuts,
            reid=reid,
            reid_model=None if reid_model is None else Path(reid_model),
            pose=pose,
            landmarks=None if landmarks is None else Path(landmarks),
            uncertain_below=uncertain_below,
            prior=prior,
            calibrate=calibrate,
        )
        if detector != "auto":  # "auto" chooses when the first face is looked for
            self._config.choose_detector(_log.warning)
        with named_by_parameters():
            opened = self._config.open_backend(_log.info)
        self._parts = Parts(self._config, opened)
        self._finalizer = close_with(self, self._parts.close)  # also runs at exit
        self.labels = opened.spec.labels
        self.backend, self.reason = opened.name, opened.reason

    def image(self, picture: PictureLike) -> Faces:
        """Find and classify the faces of a picture, small ones included.

        Args:
            picture: Path, bytes of a picture file, PIL image, or NumPy array: (H, W, 3) uint8 in BGR order as OpenCV
                reads it, or (H, W) uint8 grey.

        Returns:
            The faces from left to right.

        Raises:
            NotFound, NoPermission, NotAVideo, CodecError: The file or its bytes cannot be read as a picture.
            TypeError, ValueError: The array has the wrong type, dtype or shape.
            ValueError: The recognizer is closed.
        """
        self._check_open()
        image = load_picture(picture)
        with self._parts.detector_lock:
            estimates = recognize_image(
                image,
                self._parts.detector(),
                self._parts.backend,
                max_faces=self._config.pipeline.max_faces,
                uncertain_below=self._config.uncertain_below,
                pose=self._config.pose,
                landmarker=self._config.open_landmarker(),
                prior=self._config.prior,
            )
        return Faces(estimates, self.labels, image=image)

    def crops(self, faces: Sequence[PictureLike], *, aligned: bool = False) -> Faces:
        """Classify pictures that show one face each.

        Args:
            faces: Pictures of any size, as ``image`` takes them.
            aligned: False: find the face in each crop and align it; where none is found, the whole crop is classified
                and ``Face.detected`` is False. True: the crops are aligned as the model was trained; they are only
                resized.

        Returns:
            One face per crop, in order; boxes are in px of the crop.

        Raises:
            LeafError, TypeError, ValueError: As ``image``.
        """
        self._check_open()
        if isinstance(faces, str | bytes) or getattr(faces, "ndim", 4) < 4:
            raise TypeError(f"crops(): wanted a list of pictures, got one {type(faces).__name__}")
        images = [load_picture(face) for face in faces]
        with self._parts.detector_lock:
            detector = None if aligned else self._parts.detector()
            estimates, detected = classify_crops(
                images, detector, self._parts.backend, self._config.uncertain_below, self._config.prior
            )
        return Faces(estimates, self.labels, crops=images, detected=detected)

    def stream(
        self, source: StreamSource, *, duration: float | None = None, **options: Unpack[SourceArguments]
    ) -> Stream:
        """Recognize frame by frame, while the source is read in the background.

        Args:
            source: Video file; number or path of a camera; address (rtsp://, http://, ...); or an iterable of frames:
                NumPy arrays as ``image`` takes them, with ``fps=``, or pairs (array, seconds). An iterable is read in
                a background thread.
            duration: s of wall time after which the stream ends.
            options: What to read and how; see ``SourceArguments``.

        Returns:
            An iterator over ``FrameResult``, which is a context manager too. Errors of the source are raised by it.

        Example:
            >>> for frame in recognizer.stream("rtsp://camera/1"):
            ...     for face in frame.faces:
            ...         print(frame.time, face.track_id, face.emotion)
        """
        self._check_open()
        target, opener = target_of(source, options)
        frames = FrameQueue(_READY_FRAMES)
        run_options = RunOptions(duration=duration, handle_signals=False, drain_timeout=_NO_TIMEOUT)

        def work(stop: StopSignal) -> RunStats:
            return parts.run(target, opener, lambda info: [frames], Hooks(), run_options, stop)

        parts = self._parts
        background = BackgroundRun(work, frames)
        self._parts.start(background)
        return Stream(self, background, frames, self.labels)

    def video(
        self,
        source: StreamSource,
        *,
        progress: bool = False,
        save_video: str | os.PathLike[str] | None = None,
        blur: bool = False,
        duration: float | None = None,
        **options: Unpack[SourceArguments],
    ) -> VideoResult:
        """Recognize a whole video and keep all records in memory, about 150 bytes per face and frame.

        Args:
            source: As for ``stream``. A camera or an address needs ``duration``.
            progress: Show a progress bar, in a terminal or a notebook.
            save_video: Also write the annotated video (.mp4) there.
            blur: Hide the faces in the annotated video.
            duration: s of wall time after which to stop.
            options: What to read and how; see ``SourceArguments``.

        Raises:
            LeafError: The source, the model or the annotated video failed.
            TypeError: The source has the wrong type.
            ValueError: An option is out of range, an endless source has no ``duration``, or the recognizer is closed.
        """
        self._check_open()
        target, opener = target_of(source, options)
        if not has_end(target) and duration is None:
            raise ValueError("video(): this source has no end; use stream(), or give duration=SECONDS")
        video = None if save_video is None else Path(save_video)
        if video is not None:
            _check_output(video, [Path(target.target), *self._config.files])
        job, parts = VideoJob(self.labels, video, blur), self._parts
        run_options = RunOptions(duration=duration, handle_signals=False)

        def work(stop: StopSignal) -> RunStats:
            return parts.run(target, opener, job.sinks, job.hooks, run_options, stop, blur=blur)

        background = BackgroundRun(work)
        name = target.options.name or target.address.name
        self._parts.start(background)
        try:
            with progress_bar(name, progress) as update:
                while not background.wait(_PROGRESS_PERIOD):
                    update(job.done, job.total)
                update(job.done, job.total)
            background.close()
            if background.error is not None:
                raise background.error
            return job.result(name)
        finally:
            background.close()
            job.close()

    def close(self) -> None:
        """Stop all streams and free the model. May be called twice."""
        if self._finalizer.detach() is not None:
            self._parts.close()

    def __repr__(self) -> str:
        state = self.reason if self._finalizer.alive else "closed"
        return f"Recognizer({self._config.model.name!r}, {self.backend!r}: {state})"

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise ValueError("Recognizer: it is closed; create a new one")


def _check_number(name: str, value: object, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: wanted a number, got {value!r}")
    if not (math.isfinite(value) and 0 <= float(value) <= high):
        span = "a finite number >= 0" if math.isinf(high) else f"a number from 0 to {high:g}"
        raise ValueError(f"{name}: wanted {span}, got {value!r}")


def _check_integer(name: str, value: object, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: wanted an integer, got {value!r}")
    _check_number(name, value, high)


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: wanted True or False, got {value!r}")


def _check_path(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: wanted a path or None, got {value!r}")


def _check_output(video: Path, read: Sequence[Path]) -> None:
    from leaf_rt.sinks.paths import OutputPaths

    OutputPaths(read, [("save_video", video)])
