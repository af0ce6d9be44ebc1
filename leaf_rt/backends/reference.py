"""What the fp32 model answers for the stored crops: every GPU engine is compared with it when it is opened.

The answers are kept in the cache folder by the hash of the model, because computing them takes seconds on a CPU. Knows
files and ONNX Runtime; must not know engines.
"""

from __future__ import annotations

import hashlib
import io
from importlib import metadata
from pathlib import Path

import numpy as np

from leaf_rt.backends.base import BackendConfig, ProgressCallback, load_errors, silent
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.plan_cache import cache_folder, folder_problem, hashed_name
from leaf_rt.errors import LeafError
from leaf_rt.models.spec import GOLDEN, ModelSpec
from leaf_rt.system.files import write_whole
from leaf_rt.system.parsing import read_arrays
from leaf_rt.types import Prediction

_MAX_ANSWERS = 64 << 20  # bytes; the answers of 256 classes and 4096 features for all stored crops are under 5 MB


def fp32_answers(
    model: Path, spec: ModelSpec, notify: ProgressCallback = silent, folder: Path | None = None
) -> Prediction:
    """The answers of a model in ONNX Runtime for all stored crops, from the cache or computed now.

    Args:
        model: The .onnx file.
        spec: Its description; the hash in it has been checked.
        notify: Called with one sentence if the answers cannot be stored.
        folder: Folder of the cache; None means the user's.

    Raises:
        BackendError: ONNX Runtime cannot be loaded or fails.
        ModelError: It cannot load the model.
        NotFound: The stored crops are missing.
    """
    faces = golden_faces(spec.side)
    key = {
        "model": spec.sha256, "side": spec.side, "faces": hashlib.sha256(GOLDEN.read_bytes()).hexdigest(),
        "onnxruntime": metadata.version("onnxruntime"),
    }  # fmt: skip
    folder = folder or cache_folder()
    path = folder / f"answers-{hashed_name(key)}.npz"
    usable = folder_problem(folder) is None
    shapes = (len(faces), len(spec.labels)), (len(faces), spec.feature_dim)
    if usable and (stored := _read(path)) is not None and (stored.probs.shape, stored.features.shape) == shapes:
        return stored
    with load_errors("onnxruntime"):
        from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(model, spec, BackendConfig())
    try:
        answers = backend.infer(faces)
    finally:
        backend.close()
    if usable:
        content = io.BytesIO()
        np.savez(content, probs=answers.probs, features=answers.features)
        try:
            write_whole(path, content.getvalue())
        except LeafError as e:
            notify(f"the answers of the fp32 model are computed at every start: {e}")
    return answers


def _read(path: Path) -> Prediction | None:
    """The stored answers; None if there are none, or the file is damaged."""
    try:
        probs, features = read_arrays(path, ("probs", "features"), _MAX_ANSWERS)
    except (OSError, ValueError):
        return None
    if probs.dtype != np.float32 or features.dtype != np.float32:
        return None
    return Prediction(probs, features) if np.isfinite(probs).all() and np.isfinite(features).all() else None
