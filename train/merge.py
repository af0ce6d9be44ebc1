"""Several runs as one model: their encoders side by side, the mean of their logits.

Networks that err differently are right together more often than alone (Hansen and Salamon, 1990); what is merged is an
ordinary checkpoint, which is exported, quantised, measured and trained further like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from leaf_rt.errors import DataError
from train.backbones import Ensemble
from train.checkpoint import LAST, CheckpointMeta, load_model, save
from train.model import FaceModel, build_model


def merge(runs: Sequence[Path], out: Path, shares: Sequence[float] = ()) -> Path:
    """Write the ensemble of the EMA models of ``runs`` to ``out``/last.pt.

    The crop goes in at its own side, and each part resizes it to the side that it was trained at: the same pixels as
    it sees alone.

    Args:
        runs: Folders or checkpoints.
        out: Folder.
        shares: What each run's logits count, in proportion; equal if empty.

    Raises:
        NotFound, ModelError: See ``train.checkpoint.load_model``.
        DataError: Fewer than two runs; they differ in labels, crops or normalisation; one has levels behind its
            encoder (LEAF's experts), which have no mean, or is merged itself; or ``out`` holds a run.
    """
    if len(runs) < 2:
        raise DataError("merge: wanted two runs or more")
    shares = shares or [1.0] * len(runs)
    if len(shares) != len(runs) or not all(0 < share < float("inf") for share in shares):
        raise DataError(f"--shares: wanted {len(runs)} positive numbers, one per run, got {len(shares)}: {shares}")
    if (out / LAST).exists():
        raise DataError(f"--out {out}: holds a run already; choose another folder")
    parts = [load_model(run) for run in runs]
    model, metas = build(parts, [share / sum(shares) for share in shares]), [meta for _, meta in parts]
    first = metas[0]
    meta = replace(
        first,
        geometry=replace(first.geometry, net_side=first.geometry.side),
        model={**first.model, "backbone": name_of(metas)},
        training={"parts": [m.training for m in metas], "shares": list(shares)},
        metrics={},
        path=out / LAST,
    )
    state = model.state_dict()
    save(meta.path, meta, {"ema": state, "student": state})
    return meta.path


def name_of(metas: Sequence[CheckpointMeta]) -> str:
    """The backbone of the ensemble, see ``train.backbones.build_backbone``."""
    return "+".join(f"{m.model['backbone']}@{m.geometry.net_side}" for m in metas)


def build(parts: Sequence[tuple[FaceModel, CheckpointMeta]], shares: Sequence[float]) -> FaceModel:
    """The ensemble in eval mode, its parts' logits weighted by shares that sum to 1; see ``merge`` for the errors."""
    first = parts[0][1]
    for model, meta in parts:
        same = (meta.labels, meta.mean, meta.std) == (first.labels, first.mean, first.std)
        if not same or replace(meta.geometry, net_side=0) != replace(first.geometry, net_side=0):
            raise DataError(f"merge {meta.path}: labels, crops or normalisation differ from those of {first.path}")
        if model.semantic is not None or model.instance is not None or model.unit_features:
            raise DataError(f"merge {meta.path}: LEAF's levels behind its encoder have no mean; merge models without")
        if isinstance(model.encoder, Ensemble):
            raise DataError(f"merge {meta.path}: is merged already; merge all of its runs at once with the others")
        if meta.model["folded"] != first.model["folded"]:
            raise DataError(f"merge {meta.path}: batch norms are folded in one of the two, and not in {first.path}")
    joined = build_model(**{**first.model, "backbone": name_of([meta for _, meta in parts])})
    for own, (model, _) in zip(joined.encoder.parts, parts, strict=True):  # type: ignore[arg-type]
        own.load_state_dict(model.encoder.state_dict())
    heads = [model.classifier for model, _ in parts]
    with torch.no_grad():
        joined.classifier.weight.copy_(torch.cat([w * h.weight for w, h in zip(shares, heads, strict=True)], 1))
        joined.classifier.bias.copy_(torch.stack([w * h.bias for w, h in zip(shares, heads, strict=True)]).sum(0))
    return joined.eval()
