"""The loss terms: identities, fast against naive form, half precision and edge cases."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.methods.losses import (
    ambiguity_weight,
    ambiguous_loss,
    contrastive_loss,
    fairness_loss,
    positives,
    rescale_to,
    unsupervised_loss,
)


def random_case(classes: int, n: int = 200, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(classes)
    logits = torch.randn(n, classes, generator=rng) * scale
    probs = (torch.randn(n, classes, generator=rng) * scale / 2).softmax(1)
    return logits, probs


def naive_loss(logits: Tensor, is_positive: Tensor) -> Tensor:
    """``ambiguous_loss`` by its definition, sample by sample."""
    out = []
    for s, p in zip(logits.double(), is_positive, strict=True):
        pairs = s[~p][:, None] - s[p][None, :]
        out.append(torch.log1p(pairs.exp().sum()))
    return torch.stack(out)


@pytest.mark.parametrize("classes", [4, 7, 8, 20])
def test_fast_equals_naive(classes: int) -> None:
    logits, probs = random_case(classes)
    _, is_positive = positives(probs)
    fast = ambiguous_loss(logits, is_positive)
    torch.testing.assert_close(fast.double(), naive_loss(logits, is_positive), atol=1e-5, rtol=1e-5)


def test_one_positive_is_cross_entropy() -> None:
    logits, probs = random_case(7)
    label = probs.argmax(1)
    actual = ambiguous_loss(logits, F.one_hot(label, 7).bool())
    torch.testing.assert_close(actual, F.cross_entropy(logits, label, reduction="none"))


@pytest.mark.parametrize(
    ("probs", "k"),
    [
        ([0.6, 0.3, 0.05, 0.05], 1),
        ([0.5, 0.3, 0.15, 0.05], 2),
        ([0.4, 0.2, 0.2, 0.2], 3),
        ([0.97, 0.01, 0.01, 0.01], 1),
    ],
)
def test_k_is_the_smallest_that_reaches_the_mass(probs: list[float], k: int) -> None:
    actual, is_positive = positives(torch.tensor([probs]))
    assert actual.tolist() == [k]
    assert is_positive[0].nonzero()[:, 0].tolist() == list(range(k))


def test_ties_still_give_k_positives() -> None:
    actual, is_positive = positives(torch.full((2, 8), 1 / 8))
    assert actual.tolist() == [3, 3]
    assert is_positive.sum(1).tolist() == [3, 3]


def test_too_few_classes_are_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"more than 3 classes .*got 3"):
        positives(torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize("kind", ["concave", "linear", "convex", "none"])
def test_weight_is_between_0_and_1(kind: str) -> None:
    _, probs = random_case(8)
    weight = ambiguity_weight(probs, positives(probs)[0], kind)
    assert ((weight >= 0) & (weight <= 1)).all()
    sure = torch.tensor([[1.0, 0, 0, 0]])
    assert ambiguity_weight(sure, torch.tensor([1]), kind).item() == pytest.approx(1.0)


def test_weight_kinds_are_ordered() -> None:
    _, probs = random_case(8)
    k = positives(probs)[0]
    concave, linear, convex = (ambiguity_weight(probs, k, kind) for kind in ("concave", "linear", "convex"))
    assert (concave >= linear - 1e-6).all()
    assert (linear >= convex - 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["hard", "ambiguous", "both", "masked", "scalar"])
def test_safe_under_autocast(dtype: torch.dtype, how: str) -> None:
    logits, probs = random_case(8, scale=300.0)
    strong = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = unsupervised_loss(strong, probs.to(dtype), probs.argmax(1), (probs.amax(1) > 0.8).float(), how)
        loss = loss + contrastive_loss(logits[:9].to(dtype) * 10, logits[9:18].to(dtype) * 10)
    loss.backward()
    assert torch.isfinite(loss)
    assert strong.grad is not None
    assert torch.isfinite(strong.grad).all()


@pytest.mark.parametrize("how", ["ambiguous", "both", "masked", "scalar"])
def test_zero_loss_is_safe(how: str) -> None:
    strong = torch.zeros(4, 8)
    strong[:, 0] = 1e4
    strong.requires_grad_()
    probs = torch.eye(8)[:1].expand(4, -1)
    loss = unsupervised_loss(strong, probs, probs.argmax(1), torch.ones(4), how)
    loss.backward()
    assert loss.item() == 0.0
    assert strong.grad is not None
    assert torch.isfinite(strong.grad).all()


def test_rescaled_value_and_gradient() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    y = rescale_to(x * 3, torch.tensor(12.0))
    y.backward()
    assert y.item() == pytest.approx(12.0)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(6.0)  # the factor 2 is no part of the graph


def test_mask_gates_the_hard_part_only() -> None:
    logits, probs = random_case(8)
    none, pseudo = torch.zeros(len(logits)), probs.argmax(1)
    assert unsupervised_loss(logits, probs, pseudo, none, "hard") == 0
    both = unsupervised_loss(logits, probs, pseudo, none, "both")
    assert both == unsupervised_loss(logits, probs, pseudo, none, "ambiguous")
    assert both > 0
    assert unsupervised_loss(logits, probs, pseudo, none, "ambiguous", floor=1.1) == 0


def test_ambiguous_part_has_the_value_of_cross_entropy() -> None:
    logits, probs = random_case(8)
    pseudo = probs.argmax(1)
    actual = unsupervised_loss(logits, probs, pseudo, torch.ones(len(logits)), "ambiguous")
    assert actual.item() == pytest.approx(F.cross_entropy(logits, pseudo).item(), rel=1e-5)


def test_contrastive_loss_of_a_known_case() -> None:
    first, second = torch.eye(4)[:2] * 5, torch.eye(4)[:2] * 0.1
    near = math.exp(1 / 0.07)
    expected = -math.log(near / (near + 2))  # the partner, and two others at a right angle
    assert contrastive_loss(first, second).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_contrastive_loss_needs_two_samples(n: int) -> None:
    features = torch.randn(n, 4, requires_grad=True)
    loss = contrastive_loss(features, features)
    loss.backward()
    assert loss.item() == 0.0


def test_fairness_prefers_balanced_predictions() -> None:
    mask, mean, histogram = torch.ones(8), torch.full((4,), 0.25), torch.full((4,), 0.25)
    even = torch.eye(4).repeat(2, 1) * 4
    skewed = even.clone()
    skewed[:, 0] += 3
    assert fairness_loss(even, mask, mean, histogram) > fairness_loss(skewed, mask, mean, histogram)
    assert fairness_loss(even, torch.zeros(8), mean, histogram) == 0
