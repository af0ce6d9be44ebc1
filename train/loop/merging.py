"""Several runs as one model: the mean of their logits, encoders side by side, or the mean of their weights.

Networks that err differently are right together more often than alone (Hansen and Salamon, 1990), at the cost of all of
them; networks that went different ways from one start lie in one basin, and the mean of their weights is often better
than each at the cost of one (Wortsman et al., ICML 2022). What is merged is an ordinary checkpoint, which is exported,
quantised, measured and trained further like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from leaf_rt.errors import DataError
from train.loop.checkpoint import LAST, CheckpointMeta, load_model, save
from train.models.backbones import Ensemble, fold_batch_norm
from train.models.face_model import FaceModel, build_model


def merge(
    runs: Sequence[Path], out: Path, shares: Sequence[float] = (), mean: Literal["logits", "weights"] = "logits"
) -> Path:
    """Write one model of the EMA models of ``runs`` to ``out``/last.pt.

    Of several encoders each resizes the crop, which goes in at its own side, to the side that it was trained at: the
    same pixels as it sees alone.

    Args:
        runs: Folders or checkpoints.
        out: Folder.
        shares: What each run counts, in proportion; equal if empty.
        mean: Of what.

    Raises:
        NotFound, ModelError: See ``train.loop.checkpoint.load_model``.
        DataError: Fewer than two runs; ``out`` holds a run; or see ``build`` and ``average``.
    """
    if len(runs) < 2:
        raise DataError("merge: wanted two runs or more")
    shares = shares or [1.0] * len(runs)
    if len(shares) != len(runs) or not all(0 < share < float("inf") for share in shares):
        raise DataError(f"--shares: wanted {len(runs)} positive numbers, one per run, got {len(shares)}: {shares}")
    if (out / LAST).exists():
        raise DataError(f"--out {out}: holds a run already; choose another folder")
    parts = [load_model(run) for run in runs]
    metas = [meta for _, meta in parts]
    joined = {"logits": build, "weights": average}[mean](parts, [share / sum(shares) for share in shares])
    first = metas[0]
    if mean == "logits":
        geometry = replace(first.geometry, net_side=first.geometry.side)
        first = replace(first, geometry=geometry, model=options_of(metas))
    meta = replace(
        first,
        training={"parts": [m.training for m in metas], "shares": list(shares), "mean": mean},
        metrics={},
        path=out / LAST,
    )
    state = joined.state_dict()
    save(meta.path, meta, {"ema": state, "student": state})
    return meta.path


def options_of(metas: Sequence[CheckpointMeta]) -> dict[str, Any]:
    """The arguments of ``build_model`` for the ensemble: where the batch norms of one are folded, those of all are."""
    names = "+".join(f"{m.model['backbone']}@{m.geometry.net_side}" for m in metas)
    return {**metas[0].model, "backbone": names, "folded": any(m.model["folded"] for m in metas)}


def build(parts: Sequence[tuple[FaceModel, CheckpointMeta]], shares: Sequence[float]) -> FaceModel:
    """The ensemble in eval mode, its parts' logits weighted by shares that sum to 1.

    Raises:
        DataError: The parts differ in labels, crops or normalisation; one has levels behind its encoder (LEAF's
            experts), which have no mean, or is merged itself; the batch norms of one are folded, and another's cannot
            be.
    """
    first = parts[0][1]
    for model, meta in parts:
        same = (meta.labels, meta.mean, meta.std) == (first.labels, first.mean, first.std)
        if not same or replace(meta.geometry, net_side=0) != replace(first.geometry, net_side=0):
            raise DataError(f"merge {meta.path}: labels, crops or normalisation differ from those of {first.path}")
        if model.semantic is not None or model.instance is not None or model.unit_features:
            raise DataError(f"merge {meta.path}: LEAF's levels behind its encoder have no mean; merge models without")
        if isinstance(model.encoder, Ensemble):
            raise DataError(f"merge {meta.path}: is merged already; merge all of its runs at once with the others")
    options = options_of([meta for _, meta in parts])
    try:
        joined = build_model(**options)
    except ValueError as e:
        raise DataError(f"merge: batch norms are folded in one of the models and cannot be in all ({e})") from e
    for own, (model, _) in zip(joined.encoder.parts, parts, strict=True):  # type: ignore[arg-type]
        encoder = fold_batch_norm(model.encoder) if options["folded"] else model.encoder
        own.load_state_dict(encoder.state_dict())
    heads = [model.classifier for model, _ in parts]
    with torch.no_grad():
        joined.classifier.weight.copy_(torch.cat([w * h.weight for w, h in zip(shares, heads, strict=True)], 1))
        joined.classifier.bias.copy_(torch.stack([w * h.bias for w, h in zip(shares, heads, strict=True)]).sum(0))
    return joined.eval()


def average(parts: Sequence[tuple[FaceModel, CheckpointMeta]], shares: Sequence[float]) -> FaceModel:
    """The model in eval mode whose weights are the mean of its parts', weighted by shares that sum to 1.

    Raises:
        DataError: The parts differ in anything but their weights, or have batch norms, whose statistics would be those
            of none of them.
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
