"""Parity check: one model in every runtime and precision available here, on the same faces.

Knows back ends, and PyTorch as the reference; must not know how the files were made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engines.deployed_model import Deployed
from engines.evaluation_faces import Faces, predict, select_faces
from engines.onnx_export import LoadedCheckpoint, load_checkpoint
from leaf_rt.backends.base import Backend, BackendConfig
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import compare
from leaf_rt.backends.variants import variants
from leaf_rt.errors import LeafError, ModelError
from leaf_rt.models.spec import load_spec, variant_path
from leaf_rt.system.files import save_json
from leaf_rt.types import U8, Prediction

# Names of rows.
PYTORCH = "PyTorch, not fused"
FP32 = "ONNX Runtime fp32"
FP16_GRAPH = "fp16 graph (on CPU, for proof alone)"


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One runtime and precision, compared with the reference.

    Attributes:
        name: Runtime and precision.
        accuracy: Share of correct labels; None if the labels of the faces are unknown.
        agreement: Share of faces with the same predicted label as the reference.
        probs: Largest absolute difference of a probability.
        features: Largest absolute difference of a feature, as a share of the largest feature.
        cosine: Smallest cosine similarity between its features and those of the reference.
    """

    name: str
    accuracy: float | None
    agreement: float
    probs: float
    features: float
    cosine: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The result of a parity check.

    Attributes:
        model: Name of the model file.
        faces: Name of the faces.
        count: Number of faces.
        rows: Runtimes and precisions; the first is the reference.
        left_out: What could not run, and why.
    """

    model: str
    faces: str
    count: int
    rows: tuple[ParityRow, ...]
    left_out: tuple[str, ...]

    def accuracy(self, name: str) -> float | None:
        """Accuracy of the row of this name; None if there is no such row or the labels are unknown."""
        return next((row.accuracy for row in self.rows if row.name == name), None)

    def text(self) -> str:
        """The report as a Markdown table."""
        lines = [
            f"Parity of {self.model} on {self.count} faces ({self.faces}), against {self.rows[0].name}",
            "",
            "| | accuracy | equal labels | largest difference of a probability | of a feature | smallest cosine |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            accuracy = "" if row.accuracy is None else f"{row.accuracy:.4f}"
            lines.append(
                f"| {row.name} | {accuracy} | {row.agreement:.4f} | {row.probs:.1e} | {row.features:.1e} "
                f"| {row.cosine:.6f} |"
            )
        return "\n".join([*lines, *(f"left out: {reason}" for reason in self.left_out)])

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        save_json(path, asdict(self))

    def json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps({"bench": "parity", **asdict(self)}, ensure_ascii=False)


def program_row(precision: str) -> str:
    """Name of the row of a .pt2 file."""
    return f"PyTorch program {precision}"


def check_parity(
    model: Path,
    faces: Faces,
    checkpoint: LoadedCheckpoint | None = None,
    threads: int = 0,
    program: Path | None = None,
) -> ParityReport:
    """Run a model in every runtime and precision.

    Args:
        model: NAME.onnx, fp32; its variants beside it take part.
        faces: At least one.
        checkpoint: The checkpoint of the model; its PyTorch model, not fused, becomes the reference. Without it the
            reference is ONNX Runtime with fp32.
        threads: As for ``open_backend``.
        program: A .pt2 file of the model, which takes part.

    Raises:
        ModelError: No runtime here can run the model.
    """
    predictions: list[tuple[str, Prediction]] = []
    left_out: list[str] = []
    if checkpoint is not None:
        module = Deployed(checkpoint.model, checkpoint.preparation).eval()
        predictions.append((PYTORCH, predict(lambda x: _infer_torch(module, x), faces.images)))
    half = variant_path(model, "fp16")
    openers: list[tuple[str, Callable[[], Backend]]] = [
        (variant.title, partial(variant.open, BackendConfig(threads))) for variant in variants(model)
    ]
    if half.is_file():
        openers.append((FP16_GRAPH, partial(open_backend, half, "onnxruntime", threads, precision="fp16")))
    if program is not None:
        name = program_row(load_spec(program).precision)
        openers.append((name, partial(open_backend, program, "torch", threads)))
    for name, open_variant in openers:
        try:
            backend = open_variant()
        except LeafError as e:
            left_out.append(f"{name}: {e}")
            continue
        try:
            predictions.append((name, predict(backend.infer, faces.images)))
        finally:
            backend.close()
    if not predictions:
        raise ModelError(f"{model}: no runtime here can run it ({'; '.join(left_out)})")
    reference = predictions[0][1]
    scale = float(np.abs(reference.features).max()) or 1.0
    rows = []
    for name, prediction in predictions:
        parity = compare(reference, prediction)
        accuracy = faces.accuracy(prediction.probs)
        rows.append(ParityRow(name, accuracy, parity.agreement, parity.probs, parity.features / scale, parity.cosine))
    return ParityReport(model.name, faces.name, len(faces), tuple(rows), tuple(left_out))


def check_model(
    model: Path,
    checkpoint: Path | None = None,
    *,
    data: Path | None = None,
    layout: str = "auto",
    cache: str = "",
    limit: int | None = None,
    threads: int = 0,
) -> ParityReport:
    """Run ``check_parity`` on a model file and, optionally, the checkpoint that it was exported from.

    Args:
        model: NAME.onnx, fp32; its variants beside it take part.
        checkpoint: Folder of a run or a .pt file; see ``check_parity``.
        data: Labelled faces; None takes the crops stored with the package.
        layout: Layout of ``data``, as for the trainer.
        cache: Folder of the crop cache of ``data``; "" means that of the trainer.
        limit: Compare on at most this many faces.
        threads: As for ``open_backend``.

    Raises:
        LeafError: See ``load_spec``, ``select_faces``, ``load_checkpoint`` and ``check_parity``.
    """
    spec = load_spec(model)
    faces, _ = select_faces(data, layout, spec, run=checkpoint, cache=cache, limit=limit)
    loaded = None if checkpoint is None else load_checkpoint(checkpoint, flip=spec.flip, net_side=spec.net_side)
    return check_parity(model, faces, loaded, threads)


@torch.inference_mode()
def _infer_torch(module: Deployed, faces: U8) -> Prediction:
    probs, features = module(torch.from_numpy(faces))
    return Prediction(probs.numpy(), features.numpy())
