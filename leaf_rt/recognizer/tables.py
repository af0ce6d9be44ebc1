"""Data frames of pandas and polars. Imports these libraries only when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leaf_rt.errors import BackendError
from leaf_rt.labels import UNCERTAIN
from leaf_rt.results import records
from leaf_rt.types import F32, I64

BOX = ("x0", "y0", "x1", "y1")


def data_frame(library: str, columns: Mapping[str, Any]) -> Any:
    """A DataFrame of these columns.

    Args:
        library: "pandas" or "polars".
        columns: Name to values, all of the same length.

    Raises:
        BackendError: The library is not installed.
    """
    return optional(library, f"to_{library}()").DataFrame(dict(columns))


def optional(library: str, caller: str) -> Any:
    """Import an optional library.

    Raises:
        BackendError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as e:
        raise BackendError(f"{caller} needs {library}; install it with: pip install {library}") from e


def extra_columns(pose: F32, blendshapes: F32) -> dict[str, F32]:
    """Head pose (N, 3) and blendshapes (N, B) as columns; those with no column were not asked for."""
    names = records.extra_columns(pose=pose.shape[1] > 0, blendshapes=blendshapes.shape[1] > 0)
    return dict(zip(names, [*pose.T, *blendshapes.T], strict=True))


def label_names(emotion: I64, labels: Sequence[str]) -> list[str]:
    """Names of class indices (N,); -1 becomes "uncertain"."""
    names = np.array([*labels, UNCERTAIN], dtype=object)
    return [str(name) for name in names[emotion]]


def box_columns(xyxy: F32) -> dict[str, F32]:
    """Boxes (N, 4) as four columns."""
    return {name: np.ascontiguousarray(xyxy[:, k]) for k, name in enumerate(BOX)}


def share_columns(prefix: str, shares: F32, labels: Sequence[str]) -> dict[str, F32]:
    """Probabilities (N, C) as a column per label, such as "prob_happiness"."""
    return {f"{prefix}_{label}": np.ascontiguousarray(shares[:, k]) for k, label in enumerate(labels)}
