"""What is learned from a joint batch: one function for supervised, FixMatch, FreeMatch, Ada-CM and LEAF.

They differ in the options of ``recipe.Method`` alone; ``recipe.PRESETS`` holds what each name stands for.
Knows outputs and losses; must not know images, networks or processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.methods.losses import contrastive_loss, cross_entropy, fairness_loss, positives, unsupervised_loss
from train.methods.thresholds import AdaptiveThreshold, ClassThreshold, FixedThreshold
from train.models.moe import balance_loss
from train.recipes.schema import Method


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutputs:
    """The outputs for a joint batch of B labelled and U unlabelled pictures.

    Attributes:
        labelled: (B, C) logits.
        targets: (B, C) distributions.
        weak: V tensors (U, C), logits of the weak views by the teacher; V is 0 where nothing is unlabelled.
        strong: (U, C) logits of the strong view by the student.
        weak_features: (U, D) by the student, as many as ``weak``; empty without the contrastive term.
        gates, load: (rows, L, K) of all views of the student.
        truth: (U,) int64, the hidden labels, -1 where there is none: for statistics alone.
    """

    labelled: Tensor
    targets: Tensor
    weak: tuple[Tensor, ...]
    strong: Tensor
    weak_features: tuple[Tensor, ...]
    gates: Tensor
    load: Tensor
    truth: Tensor


def build_threshold(method: Method, num_classes: int, device: torch.device) -> FixedThreshold:
    """The threshold that a method asks for."""
    if method.threshold == "adaptive":
        return AdaptiveThreshold(num_classes, device)
    if method.threshold == "class":
        return ClassThreshold(num_classes, method.p_cutoff, device)
    return FixedThreshold(num_classes, method.p_cutoff, device)


def student_sees_weak(method: Method) -> bool:
    """Whether the weak views go through the student."""
    return method.weak_views > 0 and (method.teacher != "ema" or method.lambda_s > 0)


def objective(joint: BatchOutputs, method: Method, threshold: FixedThreshold) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss, and its terms and statistics as detached scalars.

    Args:
        joint: The outputs.
        method: What is learned.
        threshold: Judges pseudo-labels; FreeMatch's learns from this call.

    Returns:
        Scalar loss; "loss", "loss_x", "loss_u", "loss_s", "loss_fair", "loss_balance" (unweighted terms), "coverage"
        (share of trusted pseudo-labels), "correct" and "judged" (trusted ones that are right, that have a truth) and
        "positives" (mean K).
    """
    terms: dict[str, Tensor] = {"loss_x": cross_entropy(joint.labelled, joint.targets).mean()}
    total = method.lambda_x * terms["loss_x"]
    if joint.weak:
        weak = [w.float() for w in joint.weak]
        carried = method.teacher == "student-grad"
        with torch.set_grad_enabled(carried and torch.is_grad_enabled()):
            judged = torch.stack([w.softmax(1) for w in weak]).mean(0)  # (U, C), judged by the mask
            probs = torch.stack(weak).mean(0).softmax(1)  # (U, C), judged for ambiguity
        pseudo = judged.detach().argmax(1)
        mask = threshold.mask(judged.detach())
        how = method.unsupervised if "category" in method.levels else "hard"
        terms["loss_u"] = unsupervised_loss(
            joint.strong, probs, pseudo, mask, how,
            weight=method.weight, mass=method.mass, most=method.max_positives, floor=method.min_confidence,
            rescale=method.rescale,
        )  # fmt: skip
        total = total + method.lambda_u * terms["loss_u"]
        if method.lambda_s > 0 and len(joint.weak_features) == 2:
            low = mask == 0
            first, second = joint.weak_features
            terms["loss_s"] = contrastive_loss(first[low], second[low], method.temperature)
            total = total + method.lambda_s * terms["loss_s"]
        if method.fairness > 0 and isinstance(threshold, AdaptiveThreshold):
            terms["loss_fair"] = fairness_loss(joint.strong, mask, threshold.mean_probs, threshold.histogram)
            total = total + method.fairness * terms["loss_fair"]
        known = (joint.truth >= 0) & (mask > 0)
        terms["coverage"] = mask.mean()
        terms["judged"] = known.float().sum()
        terms["correct"] = (known & (pseudo == joint.truth)).float().sum()
        if "category" in method.levels:
            terms["positives"] = positives(probs.detach(), method.mass, method.max_positives)[0].float().mean()
    if method.balance > 0 and joint.gates.shape[1]:
        levels = zip(joint.gates.unbind(1), joint.load.unbind(1), strict=True)
        terms["loss_balance"] = torch.stack([balance_loss(g, load) for g, load in levels]).sum()
        total = total + method.balance * terms["loss_balance"]
    terms["loss"] = total
    return total, {name: value.detach() for name, value in terms.items()}
