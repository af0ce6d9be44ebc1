"""Every runtime and precision against plain eager PyTorch: one call makes the table.

Knows back ends and torch; must not know data sets. ``leaf_rt.backends.benchmark`` does the timing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from engines.deployed_model import Deployed, Preparation
from engines.onnx_export import Loaded, export
from engines.quantization import quantize_onnxruntime, quantize_openvino
from leaf_rt.backends.base import default_threads
from leaf_rt.backends.benchmark import REPEATS, Measured, Timing, measure_backends
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import LeafError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import ModelSpec, load_spec, save_spec, sha256_of, variant_path
from leaf_rt.types import U8
from train.loop.checkpoint import CheckpointMeta, Geometry
from train.models.face_model import build_model

EAGER = "PyTorch eager"


def bench(
    model: Path, loaded: Loaded | None, batches: Sequence[int], threads: int = 0, repeats: int = REPEATS
) -> Measured:
    """Time all ways to run a model, and its checkpoint in eager PyTorch.

    Args:
        model: NAME.onnx; variants beside it are taken in.
        loaded: Its checkpoint, as its author would run it: no fusing, no compilation.
        batches: Faces per call.
        threads: Of every way; 0 takes the default of the back ends.
        repeats: Calls per way and size.
    """
    threads = threads or default_threads()
    eager = {(EAGER, "fp32"): _eager(loaded, threads)} if loaded is not None else {}
    return measure_backends(model, batches, threads, repeats, others=eager)


def verdict(rows: Sequence[Timing]) -> str:
    """The quickest at the largest batch of what "auto" chooses from, and how many times faster than eager PyTorch."""
    largest = [row for row in rows if row.batch == max(r.batch for r in rows)]
    chosen = [row for row in largest if row.runtime != EAGER and row.precision != "bf16"]  # bf16 is never auto's choice
    best = min(chosen, key=lambda row: row.per_face_ms)
    text = f"auto's choice at batch {best.batch}: {best.runtime} {best.precision}, {best.per_face_ms:.2f} ms per face"
    eager = next((row for row in largest if row.runtime == EAGER), None)
    return text if eager is None else f"{text}, {eager.per_face_ms / best.per_face_ms:.1f} times faster than {EAGER}"


def bench_fresh(
    backbone: str, net_side: int, batches: Sequence[int], threads: int = 0, repeats: int = REPEATS
) -> Measured:
    """``bench`` for an architecture with random weights: times do not depend on them. Int8 where its tools are here."""
    torch.manual_seed(0)
    options = {"backbone": backbone, "num_classes": len(FERPLUS8)}
    network = build_model(backbone, len(FERPLUS8)).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preparation = Preparation(64, "grey", net_side, mean, std, flip=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{backbone}.onnx"
        geometry = Geometry(64, 0.05, "grey", net_side)
        meta = CheckpointMeta(FERPLUS8, geometry, mean, std, options, {}, {}, path)
        loaded = Loaded(network, meta, preparation, "")
        faces = golden_faces(64)
        export(loaded, path, faces)
        notes: list[str] = []
        for suffix, quantise in ((".onnx", quantize_onnxruntime), (".xml", quantize_openvino)):
            out = variant_path(path, "int8", suffix)
            try:
                quantise(path, out, faces[:32])
            except LeafError as e:
                notes.append(str(e))
                continue
            save_spec(_int8(path, out), out)
        result = bench(path, loaded, batches, threads, repeats)
    return Measured(result.rows, [*notes, *result.left_out], result.threads)


def _int8(model: Path, out: Path) -> ModelSpec:
    spec = load_spec(model)
    return replace(spec, precision="int8", sha256=sha256_of(out), parent=spec.sha256)


def _eager(loaded: Loaded, threads: int) -> Callable[[U8], object]:
    module = Deployed(loaded.model, loaded.preparation).eval()
    torch.set_num_threads(threads)

    def run(faces: U8) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(faces))

    return run
