"""Comparison with recorded outputs of the official functions: every array of the reference file, to 1e-5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from train.methods.losses import ambiguity_weight, ambiguous_loss, contrastive_loss, positives, unsupervised_loss
from train.methods.thresholds import class_thresholds, confident
from train.models.moe import FusingSpec, MixtureOfExperts, combine, top_k_gates

FILE = Path(__file__).parents[2] / "shared" / "reference" / "leaf_reference.npz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"{FILE} (recorded reference) is not here")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(FILE) as data:
        return {name: torch.from_numpy(data[name]) for name in data}


@pytest.fixture(params=["", "c8_"])
def part(request: pytest.FixtureRequest, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arrays for one number of classes, without the prefix."""
    return {
        k.removeprefix(request.param): v for k, v in reference.items() if k.startswith("c8_") == bool(request.param)
    }


def weak_probs(part: dict[str, Tensor]) -> Tensor:
    return ((part["weak1_logits"] + part["weak2_logits"]) / 2).softmax(1)


def test_category_loss_and_weight(part: dict[str, Tensor]) -> None:
    k, is_positive = positives(weak_probs(part))
    assert k.unique().tolist() == [1, 2, 3]
    torch.testing.assert_close(ambiguous_loss(part["strong_logits"], is_positive), part["category_loss"], **CLOSE)
    torch.testing.assert_close(ambiguity_weight(weak_probs(part), k), part["category_weight"], **CLOSE)


def mean_probs(part: dict[str, Tensor]) -> Tensor:
    return (part["weak1_logits"].softmax(1) + part["weak2_logits"].softmax(1)) / 2


def test_mask(part: dict[str, Tensor]) -> None:
    mask = confident(mean_probs(part), part["thresholds_in"])
    assert 0 < mask.sum() < len(mask)
    torch.testing.assert_close(mask, part["mask"])


def test_unsupervised_loss(part: dict[str, Tensor]) -> None:
    pseudo = mean_probs(part).argmax(1)
    loss = unsupervised_loss(part["strong_logits"], weak_probs(part), pseudo, part["mask"], "scalar")
    torch.testing.assert_close(loss, part["unsup_loss_total"], **CLOSE)


@pytest.mark.parametrize("epoch", [1, 5, 20])
def test_class_thresholds(part: dict[str, Tensor], epoch: int) -> None:
    actual = class_thresholds(part["labeled_logits"].softmax(1), part["labeled_targets"], epoch)
    torch.testing.assert_close(actual, part[f"thresholds_epoch{epoch}"], **CLOSE)


def test_contrastive_loss(part: dict[str, Tensor]) -> None:
    torch.testing.assert_close(contrastive_loss(part["feat1"], part["feat2"]), part["contrastive_loss"], **CLOSE)


@pytest.mark.parametrize("k", [1, 2])
def test_shared_experts(reference: dict[str, Tensor], k: int) -> None:
    part = {name.removeprefix(f"moe_k{k}_"): v for name, v in reference.items() if name.startswith(f"moe_k{k}_")}
    moe = MixtureOfExperts(32, FusingSpec(8, 16, k, shared=True, combine="log")).eval()
    with torch.no_grad():
        moe.w_gate.copy_(part["w_gate"])
        moe.w1.copy_(part["fc1_w"][None])
        moe.b1.copy_(part["fc1_b"][None])
        moe.w2.copy_(part["fc2_w"][None])
        moe.b2.copy_(part["fc2_b"][None])
        actual = moe(part["x"]).y
    torch.testing.assert_close(actual, part["shared_y"], **CLOSE)


@pytest.mark.parametrize("k", [1, 2])
def test_individual_experts(reference: dict[str, Tensor], k: int) -> None:
    part = {name.removeprefix(f"moe_k{k}_"): v for name, v in reference.items() if name.startswith(f"moe_k{k}_")}
    experts = torch.einsum("bi,koi->bko", part["x"], part["ind_w"]) + part["ind_b"]
    actual = combine(experts, top_k_gates(part["x"] @ part["ind_w_gate"], k), "log")
    torch.testing.assert_close(actual, part["ind_y"], **CLOSE)


def test_every_array_has_its_test(reference: dict[str, Tensor]) -> None:
    used = {
        "strong_logits", "weak1_logits", "weak2_logits", "category_loss", "category_weight", "thresholds_in", "mask",
        "unsup_loss_total", "labeled_logits", "labeled_targets", "thresholds_epoch1", "thresholds_epoch5",
        "thresholds_epoch20", "feat1", "feat2", "contrastive_loss",
    }  # fmt: skip
    moe = {"x", "w_gate", "fc1_w", "fc1_b", "fc2_w", "fc2_b", "shared_y", "ind_w_gate", "ind_w", "ind_b", "ind_y"}
    wanted = used | {f"c8_{name}" for name in used} | {f"moe_k{k}_{name}" for k in (1, 2) for name in moe}
    assert set(reference) == wanted
