"""The training objective of a joint batch, for supervised, FixMatch, FreeMatch, Ada-CM and LEAF.

The methods differ only in the options of ``Method``; ``PRESETS`` in ``train.recipes.presets`` lists them.
Knows network outputs and losses; must not know images, networks or processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.methods.losses import consistency_loss, contrastive_loss, cross_entropy, positives, unsupervised_loss
from train.methods.ramps import Ramp
from train.methods.thresholds import Threshold
from train.models.moe import balance_loss
from train.recipes.schema import Method


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutputs:
    """Network outputs for a joint batch of B labelled and U unlabelled images.

    Attributes:
        labelled: (B, C) logits of the labelled view.
        targets: (B, C) target distributions.
        weak: V tensors (U, C), the teacher's logits of the weak views; empty if the batch has no unlabelled images.
        strong: (U, C) logits of the strong view.
        weak_features: V tensors (U, D), the student's features of the weak views; empty without the contrastive term.
        weak_student: V tensors (U, C), the student's logits of the weak views; empty without the consistency term.
        gates: (rows, L, K) gates of the L fusing levels, for all views that the student sees.
        load: (rows, L, K) probability that an expert is selected, likewise.
        truth: (U,) int64, the hidden labels, -1 if unknown. Used for statistics only.
    """

    labelled: Tensor
    targets: Tensor
    weak: tuple[Tensor, ...]
    strong: Tensor
    weak_features: tuple[Tensor, ...]
    weak_student: tuple[Tensor, ...]
    gates: Tensor
    load: Tensor
    truth: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """What the teacher predicts for U unlabelled images.

    Attributes:
        probs: (U, C), softmax of the mean weak logits, for the ambiguous labels. Has a gradient with the teacher
            "student-grad".
        label: (U,) int64, the most likely class of the mean weak probabilities.
        mask: (U,) in {0, 1}, whether ``label`` is confident.
    """

    probs: Tensor
    label: Tensor
    mask: Tensor


def uses_unlabelled(method: Method) -> bool:
    """Whether the method learns from unlabelled images."""
    return method.weak_views > 0


def student_sees_weak(method: Method) -> bool:
    """Whether the weak views pass through the student."""
    return method.weak_views > 0 and (method.teacher != "ema" or method.lambda_s > 0 or method.lambda_c > 0)


def objective(
    outputs: BatchOutputs, method: Method, threshold: Threshold, ramp: Ramp
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss, with its terms and statistics as detached scalars.

    Args:
        outputs: Network outputs for the joint batch.
        method: Options of the method.
        threshold: Decides which pseudo-labels are confident. An adaptive threshold learns from this call.
        ramp: Weighs the ambiguous loss. A running one learns from this call.

    Returns:
        The loss, scalar, and a dict with

        - "loss": the total;
        - "loss_x", "loss_u", "loss_s", "loss_c", "loss_fair", "loss_balance": the terms without their weights;
        - "coverage": share of confident pseudo-labels;
        - "judged": number of confident pseudo-labels whose true label is known; "correct": how many of them are right;
        - "positives": mean number of possible classes of an ambiguous label (K);
        - "ramp": mean factor of the confidence ramp.

        Terms and statistics that the method does not use are missing.
    """
    terms = {"loss_x": cross_entropy(outputs.labelled, outputs.targets).mean()}
    if outputs.weak:
        pseudo = _pseudo_labels(outputs.weak, method, threshold)
        probs = pseudo.probs.detach()
        ramp.update(probs, pseudo.mask)
        factor = ramp.factor(probs) ** method.ramp_power
        terms |= _unlabelled_terms(outputs, pseudo, method, threshold, factor)
        terms |= _statistics(outputs.truth, pseudo, method)
        if method.ramp != "none":
            terms["ramp"] = factor.mean()
    if method.balance > 0 and outputs.gates.shape[1]:
        levels = zip(outputs.gates.unbind(1), outputs.load.unbind(1), strict=True)
        terms["loss_balance"] = torch.stack([balance_loss(gates, load) for gates, load in levels]).sum()
    weights = {
        "loss_u": method.lambda_u,
        "loss_s": method.lambda_s,
        "loss_c": method.lambda_c,
        "loss_fair": method.fairness,
        "loss_balance": method.balance,
    }
    total = method.lambda_x * terms["loss_x"]
    for name, weight in weights.items():
        if name in terms:
            total = total + weight * terms[name]
    terms["loss"] = total
    return total, {name: value.detach() for name, value in terms.items()}


def _pseudo_labels(weak: tuple[Tensor, ...], method: Method, threshold: Threshold) -> PseudoLabels:
    """The teacher's predictions, from V weak views with logits (U, C)."""
    logits = torch.stack([w.float() for w in weak])  # (V, U, C)
    with torch.set_grad_enabled(method.teacher == "student-grad" and torch.is_grad_enabled()):
        probs = logits.mean(0).softmax(1)
    mean_probs = logits.detach().softmax(2).mean(0)
    threshold.update(mean_probs)
    return PseudoLabels(probs, mean_probs.argmax(1), threshold.mask(mean_probs))


def _unlabelled_terms(
    outputs: BatchOutputs, pseudo: PseudoLabels, method: Method, threshold: Threshold, ramp: Tensor
) -> dict[str, Tensor]:
    """The loss terms of the unlabelled images, without their weights; ``ramp`` (U,) weighs the ambiguous labels."""
    terms = {
        "loss_u": unsupervised_loss(
            outputs.strong,
            pseudo.probs,
            pseudo.label,
            pseudo.mask,
            method.unsupervised if "category" in method.levels else "hard",
            weight=method.weight,
            mass=method.mass,
            most=method.max_positives,
            floor=method.min_confidence,
            rescale=method.rescale,
            ramp=ramp,
        )
    }
    if method.lambda_s > 0 and len(outputs.weak_features) == 2:
        first, second = outputs.weak_features
        terms["loss_s"] = contrastive_loss(first, second, method.temperature, keep=pseudo.mask == 0)
    if method.lambda_c > 0:
        terms["loss_c"] = consistency_loss(*outputs.weak_student)
    if method.fairness > 0 and (fairness := threshold.fairness(outputs.strong, pseudo.mask)) is not None:
        terms["loss_fair"] = fairness
    return terms


def _statistics(truth: Tensor, pseudo: PseudoLabels, method: Method) -> dict[str, Tensor]:
    """How many pseudo-labels are confident, right and ambiguous."""
    judged = (truth >= 0) & (pseudo.mask > 0)
    statistics = {
        "coverage": pseudo.mask.mean(),
        "judged": judged.float().sum(),
        "correct": (judged & (pseudo.label == truth)).float().sum(),
    }
    if "category" in method.levels:
        k, _ = positives(pseudo.probs.detach(), method.mass, method.max_positives)
        statistics["positives"] = k.float().mean()
    return statistics
