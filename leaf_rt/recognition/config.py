"""How faces are found, tracked and classified: the settings that every command and the Python API share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from leaf_rt.backends.base import Backend, ProgressCallback, silent
from leaf_rt.backends.opening import open_backend
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
        total_hz: Answers per second of all faces of a source, 0 for no limit; None leaves it to the back end.
    """

    model: Path = DEFAULT_MODEL
    backend: str = "auto"
    threads: int = 0
    precision: str = ""
    range: Literal["auto", "short", "full"] = "auto"
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    smooth: SmoothOptions = field(default_factory=SmoothOptions)
    total_hz: float | None = None

    @property
    def files(self) -> list[Path]:
        """What may be read of the model: weights and description, also those of its other precisions."""
        forms = (("fp16", ""), ("int8", ""), ("int8", ".xml"))
        models = [self.model, *(variant_path(self.model, precision, suffix) for precision, suffix in forms)]
        weights = [path.with_suffix(".bin") for path in models if path.suffix == ".xml"]
        return [*models, *weights, *map(spec_path, models)]

    def costs(self, backend: Backend) -> PipelineOptions:
        """What a frame may cost with this back end: a GPU serves a crowd, a CPU shares its answers out."""
        if self.total_hz is not None:
            return replace(self.pipeline, total_hz=self.total_hz)
        return replace(self.pipeline, total_hz=0.0) if backend.device == "cuda" else self.pipeline

    def open_backend(self, say: ProgressCallback = silent) -> Backend:
        """The back end asked for, see ``leaf_rt.backends.opening.open_backend``."""
        return open_backend(self.model, self.backend, self.threads, precision=self.precision, notify=say)
