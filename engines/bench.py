"""Benchmark of every runtime and precision against eager PyTorch.

Knows back ends and PyTorch; must not know data sets. ``leaf_rt.backends.benchmark`` measures the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engines.deployed_model import Deployed, Preparation
from engines.descriptions import describe_variant
from engines.onnx_export import LoadedCheckpoint, export_onnx, load_checkpoint
from engines.quantization import quantize_onnxruntime, quantize_openvino
from leaf_rt.backends.base import default_threads
from leaf_rt.backends.benchmark import REPEATS, Measured, Timing, json_line, measure_backends, table
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import BackendError, LeafError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, variant_path
from leaf_rt.system.cpu import cpu_name
from leaf_rt.types import U8
from train.loop.checkpoint import CheckpointMeta, Geometry
from train.models.face_model import build_model

EAGER = "PyTorch eager"


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure: a model file, an architecture, or both.

    Attributes:
        model: NAME.onnx; its variants beside it take part. None means the bundled model, or no model file if only
            ``backbone`` is given.
        checkpoint: Run or checkpoint of ``model``, also measured in eager PyTorch.
        backbone: An architecture of the trainer, with random weights.
        net_side: Input size of ``backbone``, px.
        batches: Faces per call.
        threads: CPU threads for inference; 0 means the default of the back ends.
        repeats: Calls per runtime and batch size.
    """

    model: Path | None = None
    checkpoint: Path | None = None
    backbone: str | None = None
    net_side: int = 224
    batches: Sequence[int] = (1, 4, 8)
    threads: int = 0
    repeats: int = REPEATS

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise BackendError(f"--repeats {self.repeats}: wanted a whole number from 1")


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The timings of one model.

    Attributes:
        title: Name of the model file or architecture.
        measured: Timings, what could not run, and the number of threads.
        repeats: Calls per runtime and batch size.
    """

    title: str
    measured: Measured
    repeats: int

    def text(self) -> str:
        """A table, the fastest choice, and what could not run."""
        head = f"{self.title}, {cpu_name()}, {self.measured.threads} threads, medians of {self.repeats} calls"
        lines = [head, "", table(self.measured.rows, EAGER), "", verdict(self.measured.rows)]
        return "\n".join([*lines, *(f"left out: {reason}" for reason in self.measured.left_out)])

    def json(self) -> str:
        """All timings as one line of JSON."""
        return json_line(
            self.measured.rows, model=self.title, processor=cpu_name(), threads=self.measured.threads,
            repeats=self.repeats, verdict=verdict(self.measured.rows),
        )  # fmt: skip


def run_benchmarks(config: BenchConfig) -> Iterator[BenchResult]:
    """Measure a model file, then an architecture; yield each result as soon as it is known.

    Raises:
        LeafError: A model cannot be read or run.
    """
    if config.model is not None or config.checkpoint is not None or config.backbone is None:
        model = config.model or DEFAULT_MODEL
        checkpoint = None
        if config.checkpoint is not None:
            spec = load_spec(model)
            checkpoint = load_checkpoint(config.checkpoint, flip=spec.flip, net_side=spec.net_side)
        measured = measure_model(model, checkpoint, config.batches, config.threads, config.repeats)
        yield BenchResult(model.name, measured, config.repeats)
    if config.backbone is not None:
        measured = measure_backbone(config.backbone, config.net_side, config.batches, config.threads, config.repeats)
        yield BenchResult(f"{config.backbone} at {config.net_side} px", measured, config.repeats)


def measure_model(
    model: Path, checkpoint: LoadedCheckpoint | None, batches: Sequence[int], threads: int, repeats: int
) -> Measured:
    """Time a model file in every runtime and precision, and its checkpoint in eager PyTorch.

    Args:
        model: NAME.onnx; its variants beside it take part.
        checkpoint: Its checkpoint, run without fusing or compilation.
        batches: Faces per call.
        threads: CPU threads for inference; 0 means the default of the back ends.
        repeats: Calls per runtime and batch size.

    Raises:
        LeafError: The model cannot be read, or no runtime can run it.
    """
    threads = threads or default_threads()
    eager = {} if checkpoint is None else {(EAGER, "fp32"): _eager(checkpoint, threads)}
    return measure_backends(model, batches, threads, repeats, others=eager)


def measure_backbone(backbone: str, net_side: int, batches: Sequence[int], threads: int, repeats: int) -> Measured:
    """``measure_model`` for an architecture with random weights, on which times do not depend.

    Its int8 files take part if the quantizers are installed.
    """
    torch.manual_seed(0)
    options = {"backbone": backbone, "num_classes": len(FERPLUS8)}
    network = build_model(backbone, len(FERPLUS8)).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preparation = Preparation(64, "grey", net_side, mean, std, flip=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{backbone}.onnx"
        meta = CheckpointMeta(FERPLUS8, Geometry(64, 0.05, "grey", net_side), mean, std, options, {}, {}, path)
        checkpoint = LoadedCheckpoint(network, meta, preparation, "")
        faces = golden_faces(64)
        export_onnx(checkpoint, path, faces)
        left_out: list[str] = []
        for suffix, quantize in ((".onnx", quantize_onnxruntime), (".xml", quantize_openvino)):
            int8 = variant_path(path, "int8", suffix)
            try:
                quantize(path, int8, faces[:32])
            except LeafError as e:
                left_out.append(str(e))
                continue
            describe_variant(int8, path, "int8")
        result = measure_model(path, checkpoint, batches, threads, repeats)
    return Measured(result.rows, [*left_out, *result.left_out], result.threads)


def verdict(rows: Sequence[Timing]) -> str:
    """The fastest runtime that "auto" can choose at the largest batch, and its speed-up over eager PyTorch."""
    largest = [row for row in rows if row.batch == max(r.batch for r in rows)]
    candidates = [row for row in largest if row.runtime != EAGER and row.precision != "bf16"]  # "auto" never takes bf16
    best = min(candidates, key=lambda row: row.per_face_ms)
    text = f"auto's choice at batch {best.batch}: {best.runtime} {best.precision}, {best.per_face_ms:.2f} ms per face"
    eager = next((row for row in largest if row.runtime == EAGER), None)
    return text if eager is None else f"{text}, {eager.per_face_ms / best.per_face_ms:.1f} times faster than {EAGER}"


def _eager(checkpoint: LoadedCheckpoint, threads: int) -> Callable[[U8], object]:
    module = Deployed(checkpoint.model, checkpoint.preparation).eval()
    torch.set_num_threads(threads)

    def run(faces: U8) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(faces))

    return run
