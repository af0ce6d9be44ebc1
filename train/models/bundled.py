"""The network of the bundled model as a start for training.

The weights are read from the bundled ONNX file. Its batch norms are folded into the convolutions.
Knows the bundled file; must not know data or losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from leaf_rt.errors import BackendError, ModelError, install_hint
from leaf_rt.labels import match
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.recipes.schema import BUNDLED

_ENCODER, _CLASSIFIER = "model.encoder.", "model.classifier."


def known_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """The class names that the bundled model knows, by name or synonym."""
    sources = match(labels, load_spec(DEFAULT_MODEL).labels)
    return tuple(label for label, source in zip(labels, sources, strict=True) if source is not None)


def load_bundled(encoder: nn.Module, classifier: nn.Linear, labels: Sequence[str]) -> tuple[str, ...]:
    """Load the bundled network into a folded MobileFaceNet and, class by class, into a classifier.

    Args:
        encoder: MobileFaceNet after ``fold_batch_norm``.
        classifier: From 512 features to C logits.
        labels: The C class names, found in the bundled model by name or synonym. Classes that it does not have keep
            their weights.

    Returns:
        The class names whose weights were loaded.

    Raises:
        BackendError: The onnx package is not installed.
        ModelError: The bundled file does not fit the network.
    """
    weights = _read_weights()
    state = {k.removeprefix(_ENCODER): v for k, v in weights.items() if k.startswith(_ENCODER)}
    try:
        encoder.load_state_dict(state)
    except RuntimeError as e:
        raise ModelError(f"model.weights {BUNDLED}: {DEFAULT_MODEL.name} does not fit the backbone ({e})") from e
    sources = match(labels, load_spec(DEFAULT_MODEL).labels)
    with torch.no_grad():
        for row, source in enumerate(sources):
            if source is not None:
                classifier.weight[row] = weights[f"{_CLASSIFIER}weight"][source]
                classifier.bias[row] = weights[f"{_CLASSIFIER}bias"][source]
    return known_classes(labels)


def _read_weights() -> dict[str, Tensor]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as e:
        raise BackendError(f"model.weights {BUNDLED}: onnx is not installed; {install_hint('train')}") from e
    graph = onnx.load(str(DEFAULT_MODEL)).graph
    return {
        tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        for tensor in graph.initializer
        if tensor.name.startswith((_ENCODER, _CLASSIFIER))
    }
