"""The loss terms: functions of tensors that return a scalar or a value per sample, and are safe under autocast.

With several processes the caller gathers the joint batch first. Knows tensors; must not know models or data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy per sample (B,) of logits (B, C) and class indices (B,) or distributions (B, C)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def positives(probs: Tensor, mass: float = 0.9, most: int = 3) -> tuple[Tensor, Tensor]:
    """The positives of an ambiguous pseudo-label: the K most likely classes.

    K is the smallest number in 1 .. most - 1 for which the K + 1 largest probabilities reach ``mass``, else ``most``.
    Source: FPL (arXiv 2210.08519) as LEAF uses it.

    Args:
        probs: (B, C), rows sum to 1, C > most.
        mass: Probability to reach.
        most: Largest K.

    Returns:
        K (B,) int64, and the positives (B, C) bool.

    Raises:
        ValueError: There are too few classes.
    """
    classes = probs.shape[1]
    if classes <= most:
        raise ValueError(
            f"ambiguous pseudo-labels: wanted more than {most} classes (method.max_positives), got {classes}; "
            "remove category from method.levels or lower method.max_positives"
        )
    ordered, index = probs.float().sort(dim=1, descending=True, stable=True)
    reached = ordered.cumsum(1)[:, 1:most] >= mass  # (B, most - 1), for K = 1, 2, ...
    k = torch.where(reached.any(1), reached.to(torch.int64).argmax(1) + 1, most)
    rank = index.argsort(dim=1)
    return k, rank < k[:, None]


def ambiguous_loss(logits: Tensor, is_positive: Tensor) -> Tensor:
    """The category-level loss log(1 + sum_n sum_p exp(s_n - s_p)) per sample, over positives p and negatives n.

    It pushes the logit of every positive above that of every negative. With one positive it is the cross-entropy.

    Args:
        logits: (B, C) of the strong view.
        is_positive: (B, C) bool, the positives; at least one and not all in each row.

    Returns:
        (B,) float32.
    """
    s = logits.float()
    low = (-s).masked_fill(~is_positive, -math.inf).logsumexp(1)
    high = s.masked_fill(is_positive, -math.inf).logsumexp(1)
    return F.softplus(low + high)


def ambiguity_weight(probs: Tensor, k: Tensor, kind: str = "concave") -> Tensor:
    """Weight of an ambiguous label: 1 if class K + 1 has probability 0, 0 if the K + 1 largest probabilities are equal.

    Args:
        probs: (B, C), rows sum to 1.
        k: (B,) int64, K of each row, below C.
        kind: "concave", "linear", "convex" or "none" (always 1).

    Returns:
        (B,) float32 in [0, 1].
    """
    if kind == "none":
        return torch.ones_like(probs[:, 0])
    ordered = probs.float().sort(dim=1, descending=True).values
    runner_up = ordered.gather(1, k[:, None])[:, 0]  # q_{K+1}
    mu = ordered.cumsum(1).gather(1, k[:, None])[:, 0] / (k + 1)  # mean of q_1 .. q_{K+1}
    gap = mu - runner_up
    if kind == "concave":
        weight = torch.log1p(50 * gap) / torch.log1p(50 * mu)
    elif kind == "linear":
        weight = gap / mu
    else:
        weight = gap / (runner_up + mu)
    return weight.clamp(max=1.0)


def rescale_to(value: Tensor, target: Tensor) -> Tensor:
    """Scale ``value`` by a detached factor so that it equals ``target``. A value of 0 stays 0."""
    return value * (target / (value + EPSILON)).detach()


def unsupervised_loss(
    strong: Tensor,
    probs: Tensor,
    pseudo: Tensor,
    mask: Tensor,
    how: str,
    *,
    weight: str = "concave",
    mass: float = 0.9,
    most: int = 3,
    floor: float = 0.0,
    rescale: str = "plain",
    ramp: Tensor | float = 1.0,
) -> Tensor:
    """The unsupervised loss L_u, scalar.

    ``how`` is one of
      - "hard": cross-entropy with the pseudo-label over confident samples;
      - "ambiguous": weighted category-level loss over all samples with q1 >= floor;
      - "both": the sum of the two (LEAF, mode "paper");
      - "masked": weighted category-level loss over confident samples;
      - "scalar": weighted category-level loss over all samples, times the share of confident ones (mode "official").

    The category-level loss grows with K, so a detached factor scales it to the value of a cross-entropy over the same
    samples. ``rescale`` is one of
      - "plain": the cross-entropy as published. Pseudo-labels of an uncertain teacher get full strength;
      - "weighted": the cross-entropy with the same weights, which keeps them as weak as their weights;
      - "none": no factor.

    Args:
        strong: (B, C) logits of the strong view.
        probs: (B, C), softmax of the teacher's mean weak logits, for the ambiguous labels.
        pseudo: (B,) int64, the most likely class of the mean weak probabilities.
        mask: (B,) in {0, 1}, which samples are confident.
        how: See above.
        weight: See ``ambiguity_weight``.
        mass: See ``positives``.
        most: See ``positives``.
        floor: Smallest largest probability q1 for the category-level loss.
        rescale: See above.
        ramp: (B,) in [0, 1], how much each sample counts in the category-level loss; see ``methods.ramps``. It counts
            in the cross-entropy that ``rescale`` takes as well, so that no factor makes up for it.
    """
    plain = cross_entropy(strong, pseudo)  # (B,)
    if len(strong) == 0:
        return plain.sum()
    hard = (mask * plain).mean()
    if how == "hard":
        return hard
    k, is_positive = positives(probs.detach(), mass, most)
    weights = ambiguity_weight(probs, k, weight)  # (B,)
    included = torch.ones_like(plain)
    if how == "masked":
        included = mask
    elif how != "scalar":
        included = (probs.detach().amax(1) >= floor).to(plain.dtype)
    included = included * ramp
    ambiguous = (included * weights * ambiguous_loss(strong, is_positive)).mean()
    if rescale == "plain":
        ambiguous = rescale_to(ambiguous, (included * plain).mean())
    elif rescale == "weighted":
        ambiguous = rescale_to(ambiguous, (included * weights * plain).mean())
    if how == "scalar":
        return ambiguous * mask.mean()
    return ambiguous + hard if how == "both" else ambiguous


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.07, keep: Tensor | None = None) -> Tensor:
    """The NT-Xent loss between two views, scalar; 0 for fewer than two samples.

    Source: Chen et al., 2020, arXiv 2002.05709, eq. 1.

    Args:
        first: (B, D) features of one view; they are L2-normalised here.
        second: (B, D) features of the other view of the same samples.
        temperature: Divides the cosine similarity.
        keep: (B,) bool, the samples to compare; None for all. The others are masked, not removed, because their
            number would have to be fetched from the device.
    """
    n = len(first)
    if n == 0:
        return (first.sum() + second.sum()) * 0.0
    if keep is None:
        keep = torch.ones(n, dtype=torch.bool, device=first.device)
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = z @ z.T / temperature  # (2B, 2B)
        self_pairs = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        partner = torch.arange(2 * n, device=z.device).roll(n)
        kept = torch.cat([keep, keep])  # (2B,)
        logits = similarity.masked_fill(self_pairs | ~kept[None], -math.inf)
        logits = logits.masked_fill(~kept[:, None], 0.0)  # any finite values: these rows do not count
        each = F.cross_entropy(logits, partner, reduction="none")
        return (each * kept).sum() / kept.sum().clamp_min(1)


def consistency_loss(first: Tensor, second: Tensor) -> Tensor:
    """The mean squared distance of two predictions of the same image, scalar, from logits (B, C); 0 for no image.

    Source: Laine and Aila, 2017, arXiv 1610.02242. Both predictions get a gradient. Two uniform guesses agree.
    """
    distance = (first.float().softmax(1) - second.float().softmax(1)).square().sum(1)
    return distance.sum() / max(len(distance), 1)


def fairness_loss(strong: Tensor, mask: Tensor, mean_probs: Tensor, histogram: Tensor) -> Tensor:
    """The self-adaptive fairness loss of FreeMatch (arXiv 2205.07246, eq. 11), scalar; 0 without a confident sample.

    Args:
        strong: (B, C) logits of the strong view.
        mask: (B,) in {0, 1}, which samples are confident.
        mean_probs: (C,) running mean of the weak probabilities.
        histogram: (C,) running share of each class among the pseudo-labels.
    """
    probs = strong.float().softmax(1)
    number = mask.sum().clamp_min(1)
    counts = class_counts(probs.argmax(1), probs.shape[1], mask) / number
    target = mean_probs / histogram.clamp_min(EPSILON)
    mean = (probs * mask[:, None]).sum(0) / number
    actual = torch.where(counts > 0, mean / counts.clamp_min(EPSILON), 0.0)
    target, actual = target / target.sum(), actual / actual.sum().clamp_min(EPSILON)
    return (target * torch.log(actual + 1e-12)).sum() * mask.amax()  # 0 without a confident sample


def class_counts(predicted: Tensor, num_classes: int, mask: Tensor) -> Tensor:
    """How many samples of each class there are, (C,) float32.

    Args:
        predicted: (B,) int64, the class of each sample.
        num_classes: C.
        mask: (B,) in {0, 1}, which samples count; any other numbers are added up.


    ``torch.bincount`` waits for the device to know how large its result is.
    """
    belongs = predicted[:, None] == torch.arange(num_classes, device=predicted.device)  # (B, C)
    return (belongs * mask[:, None]).sum(0).float()
