"""What one call of a command asks for, whichever command it is. Knows the parts' options; opens the back end alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from leaf_rt.backends.base import Backend, Say, open_backend, silent
from leaf_rt.models.spec import DEFAULT_MODEL, spec_path, variant_path
from leaf_rt.recognition.pipeline import PipelineOptions
from leaf_rt.recognition.smoothing import SmoothOptions


@dataclass(frozen=True, slots=True)
class Recognition:
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
        return replace(self.pipeline, total_hz=0.0) if backend.name.startswith("tensorrt") else self.pipeline

    def open_backend(self, say: Say = silent) -> Backend:
        """The back end asked for, see ``leaf_rt.backends.base.open_backend``."""
        return open_backend(self.model, self.backend, self.threads, precision=self.precision, say=say)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written and shown. None leaves it to the kind of source: who has an end gives all three results.

    Attributes:
        out: Folder for the results; None: beside the file.
        save_video: Whether to write the annotated video.
        jsonl: One file of records for all sources, "-" for standard output; "" for no records at all.
        csv: One CSV file for all sources, "-" for standard output.
        events: One file of expressions with start, end and dwell for all sources, "-" for standard output.
        parquet: One Parquet file for all sources.
        plot: The timeline's file, for a single source; Path("") for none.
        show: Whether to open a window.
        blur: Hide faces in every picture that is written or shown.
    """

    out: Path | None = None
    save_video: bool | None = None
    jsonl: str | None = None
    csv: Path | None = None
    events: Path | None = None
    parquet: Path | None = None
    plot: Path | None = None
    show: bool = False
    blur: bool = False

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files that options name: which option, and where; while Parquet is written it has a second one."""
        jsonl = Path(self.jsonl) if self.jsonl else None
        part = self.parquet.with_name(self.parquet.name + ".part") if self.parquet and self.parquet.name else None
        plot = None if self.plot == Path() else self.plot
        named = {"--jsonl": jsonl, "--csv": self.csv, "--events": self.events, "--plot": plot}
        named |= {"--parquet": self.parquet, "--parquet, while written,": part}
        return [(option, path) for option, path in named.items() if path is not None and str(path) != "-"]

    def endings(self, has_end: bool) -> dict[str, str]:
        """The results that each source has for itself, by their kind: how their names end.

        Args:
            has_end: Whether the source comes to an end, as files do.
        """
        by_default = has_end or self.out is not None
        wanted = {
            "video": (".mp4", has_end if self.save_video is None else self.save_video),
            "records": (".jsonl", self.jsonl is None and by_default),
            "timeline": (".png", self.plot is None and by_default),
        }
        return {kind: ending for kind, (ending, asked) in wanted.items() if asked}

    @property
    def on_stdout(self) -> bool:
        """Whether standard output carries results, so that words for people must go elsewhere."""
        return "-" in (self.jsonl, str(self.csv), str(self.events))


@dataclass(frozen=True, slots=True)
class Monitor:
    """How programs watch a run.

    Attributes:
        metrics: TCP port of this machine that answers /metrics and /healthz, 0 for a free one; None for no such thing.
        log_json: Whether stderr carries JSON lines in place of words for people.
    """

    metrics: int | None = None
    log_json: bool = False
