"""Merges several runs into one model, by the mean of their logits or of their weights.

The mean of logits is an ensemble (Hansen and Salamon, 1990): the encoders run in parallel, at the cost of all of them.
The mean of weights (Wortsman et al., ICML 2022) needs runs with the same initial model and costs as much as one run.
The merged model is an ordinary checkpoint. Knows checkpoints and models; must not know data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from leaf_rt.errors import DataError
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.loop.checkpoint import LAST, CheckpointMeta, load_model, save
from train.models.backbones import Ensemble, fold_batch_norm
from train.models.bundled import load_bundled
from train.models.face_model import FaceModel, build_model
from train.recipes.schema import BUNDLED, BUNDLED_BACKBONE


def merge(
    runs: Sequence[Path], out: Path, shares: Sequence[float] = (), mean: Literal["logits", "weights"] = "logits"
) -> Path:
    """Merge the EMA models of runs and write the result to ``out``/last.pt.

    An ensemble takes the whole crop. Each encoder resizes it to the side that the encoder was trained at, so that it
    sees the same pixels as alone.

    Args:
        runs: Folders or checkpoints; "bundled" for the bundled model, which has the classes of the first run.
        out: Folder of the merged model.
        shares: Weight of each run, in any scale; equal if empty.
        mean: Average the logits or the weights.

    Returns:
        The written checkpoint.

    Raises:
        NotFound, ModelError: See ``train.loop.checkpoint.load_model``.
        DataError: There are fewer than two runs, ``out`` contains a run, or see ``build_ensemble`` and
            ``average_weights``.
    """
    if len(runs) < 2:
        raise DataError("merge: wanted two runs or more")
    shares = shares or [1.0] * len(runs)
    if len(shares) != len(runs) or not all(0 < share < float("inf") for share in shares):
        raise DataError(f"--shares: wanted {len(runs)} positive numbers, one per run, got {len(shares)}: {shares}")
    if (out / LAST).exists():
        raise DataError(f"--out {out}: contains a run already; choose another folder")
    parts = load_parts(runs)
    metas = [meta for _, meta in parts]
    normalised = [share / sum(shares) for share in shares]
    merged = build_ensemble(parts, normalised) if mean == "logits" else average_weights(parts, normalised)
    first = metas[0]
    if mean == "logits":
        geometry = replace(first.geometry, net_side=first.geometry.side)
        first = replace(first, geometry=geometry, model=ensemble_options(metas))
    meta = replace(
        first,
        training={"parts": [m.training for m in metas], "shares": list(shares), "mean": mean},
        metrics={},
        path=out / LAST,
    )
    state = merged.state_dict()
    save(meta.path, meta, {"ema": state, "student": state})
    return meta.path


def load_parts(runs: Sequence[Path]) -> list[tuple[FaceModel, CheckpointMeta]]:
    """The models of runs with their descriptions, in the same order.

    Raises:
        DataError: All of them are the bundled model, or it does not know the same classes or needs other crops.
        NotFound, ModelError: See ``load_model``.
    """
    own = {run: load_model(run) for run in runs if str(run) != BUNDLED}
    if not own:
        raise DataError(f"merge: {BUNDLED} can be merged with a run of yours; give one")
    return [own[run] if run in own else _bundled_part(next(iter(own.values()))[1]) for run in runs]


def _bundled_part(other: CheckpointMeta) -> tuple[FaceModel, CheckpointMeta]:
    """The bundled model with the description of another one."""
    spec, geometry = load_spec(DEFAULT_MODEL), other.geometry
    same_crops = (geometry.side, geometry.margin, geometry.color) == (spec.side, spec.margin, spec.color)
    if not same_crops or set(other.labels) != set(spec.labels):
        raise DataError(f"merge {other.path}: its classes or crops are not those of the bundled model")
    model = build_model(BUNDLED_BACKBONE, len(other.labels), folded=True)
    load_bundled(model.encoder, model.classifier, other.labels)
    plain = {**other.model, "backbone": BUNDLED_BACKBONE, "folded": True}
    training = {"name": BUNDLED, "sha256": spec.sha256}
    geometry = replace(geometry, net_side=spec.net_side)
    return model.eval(), replace(other, geometry=geometry, model=plain, training=training, path=Path(BUNDLED))


def ensemble_options(metas: Sequence[CheckpointMeta]) -> dict[str, Any]:
    """The arguments of ``build_model`` for the ensemble. If one model has folded batch norms, all are folded."""
    names = "+".join(f"{m.model['backbone']}@{m.geometry.net_side}" for m in metas)
    return {**metas[0].model, "backbone": names, "folded": any(m.model["folded"] for m in metas)}


def build_ensemble(parts: Sequence[tuple[FaceModel, CheckpointMeta]], shares: Sequence[float]) -> FaceModel:
    """Build the ensemble, in eval mode, whose logits are the weighted mean of those of its parts.

    Args:
        parts: Models and their descriptions.
        shares: Weight of each model, with sum 1.

    Raises:
        DataError: The parts differ in labels, crops or normalisation, one has levels of LEAF or is an ensemble itself,
            or the batch norms of one are folded and those of another cannot be.
    """
    first = parts[0][1]
    for model, meta in parts:
        same = (meta.labels, meta.mean, meta.std) == (first.labels, first.mean, first.std)
        if not same or replace(meta.geometry, net_side=0) != replace(first.geometry, net_side=0):
            raise DataError(f"merge {meta.path}: labels, crops or normalisation differ from those of {first.path}")
        if model.semantic is not None or model.instance is not None or model.unit_features:
            raise DataError(
                f"merge {meta.path}: has levels of LEAF after its encoder, which cannot be merged; use models without"
            )
        if isinstance(model.encoder, Ensemble):
            raise DataError(f"merge {meta.path}: is an ensemble already; merge all of its runs at once with the others")
    options = ensemble_options([meta for _, meta in parts])
    try:
        ensemble = build_model(**options)
    except ValueError as e:
        raise DataError(f"merge: batch norms are folded in one of the models and cannot be folded in all ({e})") from e
    for part, (model, _) in zip(ensemble.encoder.parts, parts, strict=True):  # type: ignore[arg-type]
        encoder = fold_batch_norm(model.encoder) if options["folded"] else model.encoder
        part.load_state_dict(encoder.state_dict())
    heads = [model.classifier for model, _ in parts]
    with torch.no_grad():
        ensemble.classifier.weight.copy_(torch.cat([w * h.weight for w, h in zip(shares, heads, strict=True)], 1))
        ensemble.classifier.bias.copy_(torch.stack([w * h.bias for w, h in zip(shares, heads, strict=True)]).sum(0))
    return ensemble.eval()


def average_weights(parts: Sequence[tuple[FaceModel, CheckpointMeta]], shares: Sequence[float]) -> FaceModel:
    """Build the model, in eval mode, whose weights are the weighted mean of those of its parts.

    Args:
        parts: Models and their descriptions.
        shares: Weight of each model, with sum 1.

    Raises:
        DataError: The parts differ in more than their weights, or have batch norms, whose statistics have no
            meaningful mean.
    """
    model, first = parts[0]
    for other, meta in parts:
        if (meta.labels, meta.mean, meta.std, meta.geometry, meta.model) != (
            first.labels, first.mean, first.std, first.geometry, first.model
        ):  # fmt: skip
            raise DataError(f"merge {meta.path}: labels, crops or network differ from those of {first.path}")
        if any(isinstance(m, nn.BatchNorm2d) for m in other.modules()):
            raise DataError(f"merge {meta.path}: has batch norms; train with --model.fold_batch_norm true")
    states = [other.state_dict() for other, _ in parts]
    mean = {key: torch.stack([w * s[key] for w, s in zip(shares, states, strict=True)]).sum(0) for key in states[0]}
    model.load_state_dict(mean)
    return model.eval()
