"""The stored weights of the quality of faces. Knows their file; must not know crops."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leaf_rt.errors import ModelError
from leaf_rt.models.spec import MODELS
from leaf_rt.system.parsing import read_json
from leaf_rt.types import F32

QUALITY_WEIGHTS = MODELS / "face_quality.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class QualityWeights:
    """How the measures of a crop become its quality; see ``leaf_rt.faces.quality``.

    Attributes:
        mean: (M,) float32, of the measures.
        std: (M,) float32, their standard deviation.
        clear: (2 M,) float32, weights of measures and squares in the logarithm of the quality.
        clear_offset: Is added to it.
        fitted: Number of pictures of each kind that it was fitted on.
    """

    mean: F32
    std: F32
    clear: F32
    clear_offset: float
    fitted: dict[str, Any]

    def save(self, path: Path = QUALITY_WEIGHTS) -> None:
        """Write the file."""
        values = {
            name: [round(number, 5) for number in value.tolist()] if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@functools.cache
def load_weights(path: Path = QUALITY_WEIGHTS) -> QualityWeights:
    """Read the weights, once per process.

    Raises:
        ModelError: The file is missing or damaged.
    """
    try:
        raw = read_json(path, _MAX_BYTES)
        values: dict[str, Any] = {k: np.asarray(v, np.float32) if isinstance(v, list) else v for k, v in raw.items()}
        weights = QualityWeights(**values)
        count = len(weights.mean)
        shapes = [array.shape for array in (weights.std, weights.clear)]
        if shapes != [(count,), (2 * count,)] or not weights.std.min() > 0:
            raise ValueError
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise ModelError(f"{path}: is missing or damaged; install leaf-rt again") from e
    return weights
