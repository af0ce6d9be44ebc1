"""The parity table: one model through every runtime and precision that is here, on the same faces.

Knows back ends, and torch as the reference; must not know how the files were made.
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
from engines.evaluation_faces import Faces
from engines.onnx_export import Loaded
from engines.quantization import accuracy
from leaf_rt.backends.base import Backend, BackendConfig
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import compare
from leaf_rt.backends.variants import variants
from leaf_rt.errors import LeafError, ModelError
from leaf_rt.models.spec import variant_path
from leaf_rt.system.files import save_json
from leaf_rt.types import U8, Prediction

BATCH = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One way of running the model.

    Attributes:
        name: Runtime and precision.
        accuracy: Share of right labels; None where the truth is unknown.
        agreement: Share of labels equal to the reference's.
        probs: Largest difference of a probability from the reference's.
        features: Largest difference of a feature, as a share of the largest feature.
        cosine: Smallest cosine between its features and the reference's.
    """

    name: str
    accuracy: float | None
    agreement: float
    probs: float
    features: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Report:
    """The table; the first row is the reference."""

    model: str
    faces: str
    count: int
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    def text(self) -> str:
        """For people, as a Markdown table."""
        lines = [
            f"Parity of {self.model} on {self.count} faces ({self.faces}), against {self.rows[0].name}",
            "",
            "| | accuracy | equal labels | largest difference of a probability | of a feature | smallest cosine |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            right = "" if row.accuracy is None else f"{row.accuracy:.4f}"
            lines.append(
                f"| {row.name} | {right} | {row.agreement:.4f} | {row.probs:.1e} | {row.features:.1e} "
                f"| {row.cosine:.6f} |"
            )
        return "\n".join([*lines, *(f"left out: {text}" for text in self.left_out)])

    def save(self, path: Path) -> None:
        """As JSON."""
        save_json(path, asdict(self))

    def json(self) -> str:
        """On one line."""
        return json.dumps({"bench": "parity", **asdict(self)}, ensure_ascii=False)


def report(model: Path, faces: Faces, loaded: Loaded | None = None, threads: int = 0) -> Report:
    """Run all ways.

    Args:
        model: NAME.onnx, fp32; variants beside it are taken in.
        faces: At least one.
        loaded: The checkpoint; its unfused torch model is the reference. Without it ONNX Runtime's fp32 is.
        threads: As for ``open_backend``.

    Raises:
        ModelError: Nothing here runs the model.
    """
    answers: list[tuple[str, Prediction]] = []
    left_out: list[str] = []
    if loaded is not None:
        module = Deployed(loaded.model, loaded.preparation).eval()
        answers.append(("PyTorch, not fused", batched(lambda x: _torch(module, x), faces.images)))
    half = variant_path(model, "fp16")
    named: list[tuple[str, Callable[[], Backend]]] = [
        (variant.title, partial(variant.open, BackendConfig(threads))) for variant in variants(model)
    ]
    if half.is_file():
        named.append(
            (
                "fp16 graph (on CPU, for proof alone)",
                partial(open_backend, half, "onnxruntime", threads, precision="fp16"),
            )
        )
    for name, start in named:
        try:
            opened = start()
        except LeafError as e:
            left_out.append(f"{name}: {e}")
            continue
        try:
            answers.append((name, batched(opened.infer, faces.images)))
        finally:
            opened.close()
    if not answers:
        raise ModelError(f"{model}: no runtime here can run it ({'; '.join(left_out)})")
    reference = answers[0][1]
    scale = float(np.abs(reference.features).max()) or 1.0
    rows = []
    for name, answer in answers:
        parity = compare(reference, answer)
        right = accuracy(answer.probs, faces.label) if (faces.label >= 0).any() else None
        rows.append(Row(name, right, parity.agreement, parity.probs, parity.features / scale, parity.cosine))
    return Report(model.name, faces.name, len(faces), tuple(rows), tuple(left_out))


def batched(infer: Callable[[U8], Prediction], faces: U8) -> Prediction:
    """Predictions on many faces, ``BATCH`` at a time."""
    parts = [infer(faces[i : i + BATCH]) for i in range(0, len(faces), BATCH)]
    return Prediction(np.concatenate([p.probs for p in parts]), np.concatenate([p.features for p in parts]))


@torch.inference_mode()
def _torch(module: Deployed, faces: U8) -> Prediction:
    probs, features = module(torch.from_numpy(faces))
    return Prediction(probs.numpy(), features.numpy())
