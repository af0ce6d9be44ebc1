"""How faces are found, tracked and classified: the settings that every command and the Python API share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from leaf_rt.backends.base import Backend, ProgressCallback, open_backend, silent
from leaf_rt.models.spec import DEFAULT_MODEL, spec_path, variant_path
from leaf_rt.recognition.pipeline import PipelineOptions
from leaf_rt.recognition.smoothing import SmoothOptions


@dataclass(frozen=True, slots=True)
class RecognitionConfig:
    """How faces are found, followed and classified.

    Attributes:
        model: Model file.
        backend: "auto" or the name of a back end.
        threads: CPU threads for inference; 0 leaves the choice to the back end.
        precision: "" for the model's own, "int8" for the quantised files beside it.
        range: Face detector: "auto", "short" or "full".
        pipeline: What a frame may cost; see ``costs``.
        smooth: How fast answers follow.
        max_classify_fps: Answers per second of all faces of a source, 0 for no limit; None leaves it to the back end.
    """

    model: Path = DEFAULT_MODEL
    backend: str = "auto"
    threads: int = 0
    precision: str = ""
    range: Literal["auto", "short", "full"] = "auto"
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    smooth: SmoothOptions = field(default_factory=SmoothOptions)
    max_classify_fps: float | None = None

    @property
    def files(self) -> list[Path]:
        """What may be read of the model: weights and description, also those of its other precisions."""
        forms = (("fp16", ""), ("int8", ""), ("int8", ".xml"))
        models = [self.model, *(variant_path(self.model, precision, suffix) for precision, suffix in forms)]
        weights = [path.with_suffix(".bin") for path in models if path.suffix == ".xml"]
        return [*models, *weights, *map(spec_path, models)]

    def pipeline_options(self, backend: Backend, *, hide_faces: bool = False) -> PipelineOptions:
        """Return the pipeline's options for this back end.

        Args:
            backend: A GPU classifies every face at the full rate. On a CPU all faces share ``max_classify_fps``.
            hide_faces: Whether faces are hidden in the output; the detector may then not skip frames.
        """
        options = self.pipeline
        if self.max_classify_fps is not None:
            options = replace(options, max_classify_fps=self.max_classify_fps)
        elif backend.name.startswith("tensorrt"):
            options = replace(options, max_classify_fps=0.0)
        return replace(options, may_skip=False) if hide_faces else options

    def open_backend(self, say: ProgressCallback = silent) -> Backend:
        """The back end asked for, see ``leaf_rt.backends.base.open_backend``."""
        return open_backend(self.model, self.backend, self.threads, precision=self.precision, say=say)
