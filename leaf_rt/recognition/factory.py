"""Builds the parts of a pipeline from a configuration; the command line and the Python API share it."""

from __future__ import annotations

from dataclasses import replace

from leaf_rt.backends.base import Backend
from leaf_rt.faces.encoder import FaceEncoder
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import HIDE_PERIOD, SCAN_PERIOD, VideoFaceDetector
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.parts import Detector
from leaf_rt.recognition.people import PeopleMemory
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.resting import RestingFaces
from leaf_rt.recognition.shots import ShotDetector


def build_detector(config: RecognitionConfig, *, hide_faces: bool = False) -> VideoFaceDetector:
    """Build the detector of one video source, and load its models.

    Args:
        config: Which detector to build.
        hide_faces: Whether faces are hidden in the output. New faces are then found sooner, at a higher cost.

    Raises:
        BackendError: The face detector cannot run here.
        ModelError: A bundled model is missing or damaged.
    """
    period = HIDE_PERIOD if hide_faces else SCAN_PERIOD
    detector = VideoFaceDetector(range=config.range, scan_period=period, detector=config.detector)
    detector.warm_up()
    return detector


def build_pipeline(
    config: RecognitionConfig, backend: Backend, *, hide_faces: bool = False, detector: Detector | None = None
) -> Pipeline:
    """Build the pipeline of one video source.

    Args:
        config: How to recognize.
        backend: An open back end. Pipelines may share it; the caller closes it.
        hide_faces: Whether faces are hidden in the output. The detector then skips no frames, and new faces are found
            sooner.
        detector: A detector that is not in use, for example one that was built before the source was opened. The
            pipeline closes it. None builds a new one.

    Raises:
        BackendError: The face detector cannot run here.
        ModelError: A bundled model is missing or damaged, or ``reid_model`` or ``landmarks`` is another file.
        NotFound: ``reid_model`` or ``landmarks`` is missing.
    """
    detector = build_detector(config, hide_faces=hide_faces) if detector is None else detector
    options = config.pipeline_options(backend, hide_faces=hide_faces)
    shots = ShotDetector() if config.cuts else None
    people = PeopleMemory(config.reid) if config.reid > 0 else None
    # Opened in any case, so that a wrong file is an error.
    encoder = None if config.reid_model is None else FaceEncoder(config.reid_model)
    smooth = replace(config.smooth, uncertain_below=config.threshold(backend.spec))
    resting = RestingFaces(config.calibrate, backend.spec) if config.calibrate > 0 else None
    return Pipeline(
        detector, FaceTracker(), backend, smooth, options, shots, people, encoder,
        pose=config.pose, landmarker=config.open_landmarker(), prior=config.prior, resting=resting,
    )  # fmt: skip
