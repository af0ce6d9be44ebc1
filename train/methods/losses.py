"""The loss terms: tensors in, scalars or one value per sample out; safe under autocast, no sentinels.

A joint batch comes in: with several processes the caller has gathered it. Knows no model, data or device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy per sample (B,) of logits (B, C) with class numbers (B,) or distributions (B, C)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def positives(probs: Tensor, mass: float = 0.9, most: int = 3) -> tuple[Tensor, Tensor]:
    """The ambiguous label: which classes count as possible.

    K is the smallest number in 1 .. most - 1 for which the K + 1 largest probabilities reach ``mass``, else ``most``.
    Source: FPL (arXiv 2210.08519) as LEAF uses it.

    Args:
        probs: (B, C), rows summing to 1, C > most.
        mass: Probability to be reached.
        most: Largest K.

    Returns:
        K (B,) int64 and the positives (B, C) bool, the K largest of each row.

    Raises:
        ValueError: Too few classes.
    """
    classes = probs.shape[1]
    if classes <= most:
        raise ValueError(
            f"ambiguous pseudo-labels: wanted more than {most} classes (method.max_positives), got {classes}; "
            "switch the category level off or lower method.max_positives"
        )
    ordered, index = probs.float().sort(dim=1, descending=True, stable=True)
    reached = ordered.cumsum(1)[:, 1:most] >= mass  # (B, most - 1): K = 1, 2, ... suffices
    k = torch.where(reached.any(1), reached.to(torch.int64).argmax(1) + 1, most)
    rank = index.argsort(dim=1)
    return k, rank < k[:, None]


def ambiguous_loss(logits: Tensor, chosen: Tensor) -> Tensor:
    """log(1 + sum_n sum_p exp(s_n - s_p)) per sample: every possible class above every impossible one.

    With one positive this is cross-entropy.

    Args:
        logits: (B, C) of the strong view.
        chosen: (B, C) bool, the positives; at least one and not all in each row.
    """
    s = logits.float()
    low = (-s).masked_fill(~chosen, -math.inf).logsumexp(1)
    high = s.masked_fill(chosen, -math.inf).logsumexp(1)
    return F.softplus(low + high)


def ambiguous_loss_naive(logits: Tensor, chosen: Tensor) -> Tensor:
    """``ambiguous_loss`` by its definition, sample by sample: what the fast one is tested against."""
    out = []
    for s, p in zip(logits.double(), chosen, strict=True):
        pairs = s[~p][:, None] - s[p][None, :]
        out.append(torch.log1p(pairs.exp().sum()))
    return torch.stack(out)


def ambiguity_weight(probs: Tensor, k: Tensor, kind: str = "concave") -> Tensor:
    """How much an ambiguous label counts (B,): 1 where the next class has no probability, 0 where all are equal.

    Args:
        probs: (B, C), rows summing to 1.
        k: (B,) int64, K of each row, below C.
        kind: "concave", "linear", "convex" or "none".
    """
    if kind == "none":
        return torch.ones_like(probs[:, 0])
    ordered = probs.float().sort(dim=1, descending=True).values
    following = ordered.gather(1, k[:, None])[:, 0]  # q_{K+1}
    mu = ordered.cumsum(1).gather(1, k[:, None])[:, 0] / (k + 1)  # mean of q_1 .. q_{K+1}
    gap = mu - following
    if kind == "concave":
        weight = torch.log1p(50 * gap) / torch.log1p(50 * mu)
    elif kind == "linear":
        weight = gap / mu
    else:
        weight = gap / (following + mu)
    return weight.clamp(max=1.0)


def rescale_to(value: Tensor, target: Tensor) -> Tensor:
    """``value`` scaled by a detached factor so that it equals ``target``; stays 0, without NaN, where it is 0."""
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
) -> Tensor:
    """L_u, scalar.

    ``how``:
      - "hard": cross-entropy with the pseudo-label, where the mask is 1;
      - "ambiguous": weighted ambiguous loss over all samples with q1 >= floor, no mask;
      - "both": their sum, the method's "paper" mode;
      - "masked": weighted ambiguous loss where the mask is 1;
      - "scalar": the mean over all samples, then times the share of ones in the mask; the method's "official" mode.

    The ambiguous part grows with K, so a detached factor brings it to the value of a cross-entropy over the same
    samples: "plain" cross-entropy, as published, which gives the pseudo-labels of a clueless teacher full strength; or
    "weighted" cross-entropy, with the same weights, which leaves them as weak as their weights; or "none".

    Args:
        strong: (B, C) logits of the strong view.
        probs: (B, C) of the teacher, softmax of its mean weak logits: what the ambiguity is judged by.
        pseudo: (B,) int64, the likeliest class by the mean of the weak probabilities, as the mask sees it.
        mask: (B,) in {0, 1}.
        how: See above.
        weight: See ``ambiguity_weight``.
        mass: See ``positives``.
        most: See ``positives``.
        floor: Least q1 for the ambiguous part.
        rescale: See above.
    """
    plain = cross_entropy(strong, pseudo)  # (B,)
    if len(strong) == 0:
        return plain.sum()
    hard = (mask * plain).mean()
    if how == "hard":
        return hard
    k, chosen = positives(probs.detach(), mass, most)
    factor = ambiguity_weight(probs, k, weight)  # (B,)
    among = torch.ones_like(plain)
    if how == "masked":
        among = mask
    elif how != "scalar":
        among = (probs.detach().amax(1) >= floor).to(plain.dtype)
    ambiguous = (among * factor * ambiguous_loss(strong, chosen)).mean()
    if rescale == "plain":
        ambiguous = rescale_to(ambiguous, (among * plain).mean())
    elif rescale == "weighted":
        ambiguous = rescale_to(ambiguous, (among * factor * plain).mean())
    if how == "scalar":
        return ambiguous * mask.mean()
    return ambiguous + hard if how == "both" else ambiguous


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """NT-Xent between two views, scalar; 0 for fewer than two samples.

    Source: Chen et al., 2020, arXiv 2002.05709, eq. 1.

    Args:
        first: (B, D) features of one view, of any length; they are normalised here.
        second: (B, D) features of the other view of the same samples.
        temperature: Divides the cosine.
    """
    n = len(first)
    if n < 2:
        return (first.sum() + second.sum()) * 0.0
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = z @ z.T / temperature  # (2B, 2B)
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        partner = torch.arange(2 * n, device=z.device).roll(n)
        return F.cross_entropy(similarity.masked_fill(itself, -math.inf), partner)


def fairness_loss(strong: Tensor, mask: Tensor, mean_probs: Tensor, histogram: Tensor) -> Tensor:
    """FreeMatch's self-adaptive fairness (arXiv 2205.07246, eq. 11), scalar; 0 where the mask is empty.

    Args:
        strong: (B, C) logits of the strong view.
        mask: (B,) in {0, 1}.
        mean_probs: (C,) running mean of the weak probabilities.
        histogram: (C,) running share of each class among the pseudo-labels.
    """
    if not bool(mask.any()):
        return strong.sum() * 0.0
    probs = strong[mask > 0].float().softmax(1)
    counts = torch.bincount(probs.argmax(1), minlength=probs.shape[1]).to(probs.dtype) / len(probs)
    wanted = mean_probs / histogram.clamp_min(EPSILON)
    got = torch.where(counts > 0, probs.mean(0) / counts.clamp_min(EPSILON), 0.0)
    wanted, got = wanted / wanted.sum(), got / got.sum()
    return (wanted * torch.log(got + 1e-12)).sum()
