"""Updates of the JSON description beside a model file. Knows ``ModelSpec``; must not know runtimes or data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from leaf_rt.models.spec import load_spec, save_spec, sha256_of


def describe_variant(path: Path, model: Path, precision: str) -> None:
    """Write the description of a file that was made from another model file.

    Measurements are copied only if the precision stays the same.

    Args:
        path: The new file.
        model: The file that it was made from.
        precision: Precision of the new file.

    Raises:
        ModelError, NotFound: See ``load_spec``.
    """
    spec = load_spec(model)
    metrics = spec.metrics if precision == spec.precision else {}
    save_spec(
        replace(spec, precision=precision, sha256=sha256_of(path), parent=spec.sha256, metrics=metrics), path
    )  # fmt: skip


def record_accuracy(model: Path, accuracy: float, faces: str, count: int) -> None:
    """Add a measured accuracy to the description of a model file.

    Args:
        model: The file that was measured.
        accuracy: Share of correct labels.
        faces: Name of the faces.
        count: Number of faces.
    """
    spec = load_spec(model)
    measured = {"accuracy": round(accuracy, 4), "faces": count}
    save_spec(replace(spec, metrics={**spec.metrics, faces: measured}), model)
