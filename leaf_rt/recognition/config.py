"""The settings of recognition, which all commands and the Python API share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from leaf_rt.backends.base import Backend, ProgressCallback, silent, threads_for_files
from leaf_rt.backends.opening import open_backend
from leaf_rt.errors import LeafError
from leaf_rt.faces.detectors import DetectorChoice, choose_detector
from leaf_rt.faces.landmarks import FaceLandmarker, open_landmarker
from leaf_rt.models.calibration import Calibration, Prior
from leaf_rt.models.spec import DEFAULT_MODEL, ModelSpec, spec_path, variant_path
from leaf_rt.recognition.resting import RestingFaces
from leaf_rt.recognition.smoothing import SmoothOptions
from leaf_rt.results.records import extra_columns


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Limits on the work that one frame may cost.

    Attributes:
        classify_fps: Classifications per second and face. 0 classifies every face in every frame.
        max_classify_fps: Classifications per second of all faces of the source together. In a crowd the faces that
            waited longest go first; new faces are classified at once. 0 sets no limit. No effect if ``classify_fps``
            is 0.
        min_classify_fps: Classifications per second that each face gets even in the largest crowd, as far as
            ``max_per_frame`` allows. With fewer, the smoother has nothing to work with.
        max_per_frame: Largest number of faces classified in one frame. No effect if ``classify_fps`` is 0.
        max_faces: Largest number of people reported per frame; the largest faces are kept. 0 sets no limit.
        max_coast: Seconds for which a lost face is still reported, not counting the time in which the detector did
            not look for it.
        may_skip: Whether the detector may skip frames under load. Set it to False where faces are hidden: a face that
            appears in a skipped frame would be shown.
    """

    classify_fps: float = 10.0
    max_classify_fps: float = 40.0
    min_classify_fps: float = 1.5
    max_per_frame: int = 16
    max_faces: int = 0
    max_coast: float = 0.2
    may_skip: bool = True


@dataclass(frozen=True, slots=True)
class RecognitionConfig:
    """How to detect, track and classify faces.

    Attributes:
        model: Model file.
        backend: "auto", or the name of a back end.
        threads: CPU threads for inference. 0 lets the back end choose.
        precision: "" for the precision of the model file, or "int8" for the quantized files beside it.
        range: Range of the face detector: "auto", "short" or "full".
        detector: What runs the face detector: "auto", "onnxruntime", "openvino", "torch" or "mediapipe".
        pipeline: Limits on the work per frame; see ``pipeline_options``.
        smooth: How to smooth the results over time.
        max_classify_fps: Classifications per second of all faces of a source together. 0 sets no limit. None chooses
            by the back end.
        cuts: Whether to look for cuts, at which all tracks end.
        reid: Seconds for which a person who is gone is remembered. 0 remembers nobody.
        reid_model: ONNX file of a face-recognition network; see ``leaf_rt.faces.encoder``. None compares the colors of
            heads only.
        pose: Whether to compute the head pose.
        landmarks: MediaPipe's ``face_landmarker.task``: blendshapes and the head pose come from it. None: no
            blendshapes, and the head pose comes from the keypoints.
        uncertain_below: If no class has this share, the label is "uncertain". None takes the threshold of the model.
        prior: How frequent the classes are taken to be: "natural", as in training, or "balanced".
        calibrate: Seconds for which a face must rest before its look at rest is taken out of its answers. 0: never.
    """

    model: Path = DEFAULT_MODEL
    backend: str = "auto"
    threads: int = 0
    precision: str = ""
    range: Literal["auto", "short", "full"] = "auto"
    detector: str = "auto"
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    smooth: SmoothOptions = field(default_factory=SmoothOptions)
    max_classify_fps: float | None = None
    cuts: bool = True
    reid: float = 30.0
    reid_model: Path | None = None
    pose: bool = False
    landmarks: Path | None = None
    uncertain_below: float | None = None
    prior: Prior = "natural"
    calibrate: float = 0.0

    @property
    def files(self) -> list[Path]:
        """All files that may be read: weights and descriptions of every precision, and other models."""
        if not self.model.name:  # such as "/", which opening it will refuse
            return []
        variants = (("fp16", ""), ("int8", ""), ("int8", ".xml"))
        models = [self.model, *(variant_path(self.model, precision, suffix) for precision, suffix in variants)]
        weights = [path.with_suffix(".bin") for path in models if path.suffix == ".xml"]
        others = [path for path in (self.reid_model, self.landmarks) if path is not None]
        return [*models, *weights, *map(spec_path, models), *others]

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """The columns that a table of records has only because they were asked for."""
        return extra_columns(pose=self.pose or self.landmarks is not None, blendshapes=self.landmarks is not None)

    def pipeline_options(self, backend: Backend, *, hide_faces: bool = False) -> PipelineOptions:
        """Return the pipeline's options for this back end.

        Args:
            backend: A GPU classifies every face at the full rate. On a CPU all faces share ``max_classify_fps``.
            hide_faces: Whether faces are hidden in the output; the detector may then not skip frames.
        """
        options = self.pipeline
        if self.max_classify_fps is not None:
            options = replace(options, max_classify_fps=self.max_classify_fps)
        elif backend.device == "cuda":
            options = replace(options, max_classify_fps=0.0)
        return replace(options, may_skip=False) if hide_faces else options

    def threshold(self, spec: ModelSpec) -> float:
        """Return the share that a label needs, for this model."""
        return Calibration.of(spec).uncertain_below if self.uncertain_below is None else self.uncertain_below

    def _check(self, spec: ModelSpec) -> None:
        """Check that the models can do what is asked for.

        Raises:
            ModelError: It does not know its prior, or has no class "neutral"; or ``landmarks`` is another file.
            NotFound, NoPermission: ``landmarks`` cannot be opened.
        """
        calibration = Calibration.of(spec)
        if self.prior == "balanced":
            calibration.known_prior()
        if self.calibrate > 0:
            RestingFaces(self.calibrate, spec)
        self.open_landmarker()

    def open_landmarker(self) -> FaceLandmarker | None:
        """Load ``landmarks``, or return what this process has loaded before. Raises as ``FaceLandmarker``."""
        return None if self.landmarks is None else open_landmarker(self.landmarks)

    def open_backend(self, notify: ProgressCallback = silent, *, for_files: bool = False) -> Backend:
        """Open the back end; see ``leaf_rt.backends.opening.open_backend``.

        Args:
            notify: Called with one sentence about each slow step or problem.
            for_files: Whether all frames will come from files, which need no short latency.

        Raises:
            ModelError: The model cannot do what is asked for; or see there.
            LeafError: ``landmarks`` cannot be used.
        """
        threads = self.threads or (threads_for_files() if for_files else 0)
        opened = open_backend(self.model, self.backend, threads, precision=self.precision, notify=notify)
        try:
            self._check(opened.spec)
        except LeafError:
            opened.close()
            raise
        return opened

    def choose_detector(self, notify: ProgressCallback = silent) -> DetectorChoice:
        """Choose what runs the face detector, and report what users should know about it.

        Raises:
            BackendError, ModelError: See ``leaf_rt.faces.detectors.choose_detector``.
        """
        choice = choose_detector(self.detector)
        for note in choice.notes:
            notify(note)
        return choice
