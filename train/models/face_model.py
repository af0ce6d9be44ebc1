"""The network: encoder, semantic fusing, classifier, instance fusing. All methods and modes use this class.

Knows modules; must not know data, losses or files.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.models.backbones import build_backbone, fold_batch_norm
from train.models.moe import Fused, FusingSpec, MixtureOfExperts
from train.recipes.schema import Method, Model


class Output(NamedTuple):
    """The outputs for a batch of B faces, all float32.

    Attributes:
        logits: (B, C).
        features: (B, D), after the semantic fusing.
        gates: (B, L, K) gates of the L fusing levels; (B, 0, 1) without a level.
        load: (B, L, K), probability that an expert is selected.
    """

    logits: Tensor
    features: Tensor
    gates: Tensor
    load: Tensor


class FaceModel(nn.Module):
    """Maps normalised faces (B, 3, S, S) to ``Output``. Use ``build_model`` to build one."""

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int,
        *,
        dropout: float = 0.0,
        semantic: FusingSpec | None = None,
        instance: FusingSpec | None = None,
        instance_on: str = "logits",
        unit_features: bool = False,
    ) -> None:
        super().__init__()
        dim = int(encoder.dim)  # type: ignore[arg-type]
        self.encoder = encoder
        self.semantic = MixtureOfExperts(dim, semantic) if semantic else None
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, num_classes)
        level_dim = dim if instance_on == "features" else num_classes
        self.instance = MixtureOfExperts(level_dim, instance) if instance else None
        self.instance_on = instance_on
        self.unit_features = unit_features

    def set_gate_noise(self, scale: float) -> None:
        """Set the factor on the noise of the gates of all levels."""
        for level in (self.semantic, self.instance):
            if level is not None:
                level.set_noise(scale)

    def forward(self, x: Tensor) -> Output:
        """``Output`` for normalised faces (B, 3, S, S)."""
        features = self.encoder(x).float()  # (B, D)
        fused: list[Fused] = []
        with torch.autocast(x.device.type, enabled=False):  # float32 keeps exponentials from overflowing
            if self.semantic is not None:
                fused.append(self.semantic(features))
                features = fused[-1].y
            if self.unit_features:
                features = F.normalize(features, dim=1)
            logits = features
            if self.instance is not None and self.instance_on == "features":
                fused.append(self.instance(features))
                logits = fused[-1].y
            logits = self.classifier(self.drop(logits))  # (B, C)
            if self.instance is not None and self.instance_on == "logits":
                fused.append(self.instance(logits))
                logits = fused[-1].y
        gated = [f for f in fused if f.gates.shape[1] > 1]
        none = features.new_zeros(features.shape[0], 0, 1)  # len() would make the batch size constant in an export
        gates = torch.stack([f.gates for f in gated], 1) if gated else none
        load = torch.stack([f.load for f in gated], 1) if gated else none
        return Output(logits, features, gates, load)


def build_model(
    backbone: str,
    num_classes: int,
    *,
    dropout: float = 0.0,
    folded: bool = False,
    semantic: FusingSpec | dict[str, Any] | None = None,
    instance: FusingSpec | dict[str, Any] | None = None,
    instance_on: str = "logits",
    unit_features: bool = False,
) -> FaceModel:
    """Build a model with random weights.

    Args:
        backbone: See ``backbones.build_backbone``.
        num_classes: C.
        dropout: Before the classifier.
        folded: Whether the batch norms are folded into the convolutions.
        semantic: The fusing before the classifier, as a spec or as the dict in a checkpoint; None: no such level.
        instance: The fusing after the classifier, likewise.
        instance_on: "logits" (paper) or "features" (official).
        unit_features: L2-normalise the features after the semantic level (official).
    """
    encoder = build_backbone(backbone)
    if folded:
        fold_batch_norm(encoder.eval()).train()
    return FaceModel(
        encoder,
        num_classes,
        dropout=dropout,
        semantic=FusingSpec(**semantic) if isinstance(semantic, dict) else semantic,
        instance=FusingSpec(**instance) if isinstance(instance, dict) else instance,
        instance_on=instance_on,
        unit_features=unit_features,
    )


def model_options(model: Model, method: Method, num_classes: int, dim: int) -> dict[str, Any]:
    """The arguments of ``build_model`` for a recipe, as plain values, which a checkpoint stores.

    Args:
        model: Section of the recipe.
        method: Section of the recipe.
        num_classes: C.
        dim: D, the number of features of the backbone.
    """

    def level(name: str, hidden: int) -> dict[str, Any] | None:
        if name not in method.levels:
            return None
        return asdict(
            FusingSpec(
                method.experts,
                hidden,
                method.k,
                method.shared,
                method.combine,
                method.noise,
                control=method.mlp_baseline,
            )
        )

    on_features = method.instance_on == "features"
    half = method.hidden or dim // 2
    return {
        "backbone": model.backbone,
        "num_classes": num_classes,
        "dropout": model.dropout,
        "folded": model.fold_batch_norm,
        "semantic": level("semantic", half),
        "instance": level("instance", half if on_features else method.hidden_instance),
        "instance_on": method.instance_on,
        "unit_features": method.unit_features,
    }
