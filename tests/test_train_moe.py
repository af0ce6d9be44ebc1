"""Gate, experts and load balance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.models.moe import (
    FusingSpec,
    MixtureOfExperts,
    balance_loss,
    chance_in_top_k,
    combine,
    squared_variation,
    top_k_gates,
)


def test_shared_experts_with_k_1_are_a_residual_mlp() -> None:
    torch.manual_seed(0)
    moe = MixtureOfExperts(32, FusingSpec(8, 16, 1, shared=True, combine="log")).train()
    x = torch.randn(64, 32)
    mlp = x + torch.relu(x @ moe.w1[0].T + moe.b1[0]) @ moe.w2[0].T + moe.b2[0]
    torch.testing.assert_close(moe(x).y, mlp, atol=1e-6, rtol=1e-6)
    assert torch.equal(moe(x).gates.sum(1), torch.ones(64))


@pytest.mark.parametrize("k", [1, 2, 8])
def test_gates_sum_to_one_over_k(k: int) -> None:
    gates = top_k_gates(torch.randn(50, 8), k)
    assert (gates > 0).sum(1).tolist() == [k] * 50
    torch.testing.assert_close(gates.sum(1), torch.ones(50))


def test_ties_keep_exactly_k() -> None:
    assert (top_k_gates(torch.zeros(3, 8), 2) > 0).sum(1).tolist() == [2, 2, 2]


def test_a_single_expert_is_weighted_by_its_probability() -> None:
    moe = MixtureOfExperts(8, FusingSpec(4, 4, 1))
    x = torch.randn(16, 8)
    fused = moe(x)
    assert ((fused.gates.amax(1) > 0) & (fused.gates.amax(1) < 1)).all()
    fused.y.sum().backward()
    assert moe.w_gate.grad is not None
    assert moe.w_gate.grad.abs().sum() > 0
    chosen = fused.gates.argmax(1)
    added = moe.expert_outputs(x)[torch.arange(16), chosen] - x  # x itself is not scaled down
    torch.testing.assert_close(fused.y, x + fused.gates.amax(1, keepdim=True) * added)


def test_noise_in_training_only() -> None:
    moe = MixtureOfExperts(8, FusingSpec(4, 4, 2))
    x = torch.randn(16, 8)
    assert not torch.equal(moe(x).gates, moe(x).gates)
    moe.eval()
    assert torch.equal(moe(x).gates, moe(x).gates)
    quiet = MixtureOfExperts(8, FusingSpec(4, 4, 2, noise=False))
    assert torch.equal(quiet(x).gates, quiet(x).gates)


def test_selection_probability_matches_sampled_noise() -> None:
    torch.manual_seed(0)
    clean, deviation = torch.randn(1, 5), torch.full((1, 5), 0.7)
    noisy = clean + torch.randn(1, 5) * deviation
    expected = torch.zeros(5)
    for j in range(5):
        again = noisy.repeat(20000, 1)
        again[:, j] = clean[0, j] + torch.randn(20000) * deviation[0, j]
        expected[j] = (again.topk(2, dim=1).indices == j).any(1).float().mean()
    torch.testing.assert_close(chance_in_top_k(clean, noisy, deviation, 2)[0], expected, atol=0.015, rtol=0)


def test_balance_is_zero_for_equal_use() -> None:
    even = torch.full((8, 4), 0.25)
    assert balance_loss(even, even) == pytest.approx(0.0, abs=1e-7)
    skewed = torch.eye(4)[:1].repeat(8, 1)
    assert balance_loss(skewed, skewed) == pytest.approx(2 * 4.0, rel=1e-5)
    assert squared_variation(torch.tensor([3.0])) == 0.0


def test_log_space_neither_overflows_nor_vanishes() -> None:
    experts = torch.tensor([[[500.0, -500.0], [400.0, -400.0]]])
    got = combine(experts, torch.tensor([[0.5, 0.5]]), "log")
    assert got[0, 0] == pytest.approx(500 - 0.6931, rel=1e-4)
    assert got[0, 1] == pytest.approx(-36.0437, rel=1e-4)  # exp() is zero there: the log of machine epsilon
    assert torch.isfinite(got).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_safe_under_autocast(dtype: torch.dtype) -> None:
    moe = MixtureOfExperts(16, FusingSpec(4, 8, 2, combine="log"))
    x = torch.randn(8, 16).to(dtype) * 50
    with torch.autocast("cpu", dtype):
        y = moe(x).y
    assert y.dtype == torch.float32
    y.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in moe.parameters())


def test_the_mlp_baseline_has_as_many_parameters_and_no_gate() -> None:
    spec = FusingSpec(8, 16, 2)
    experts = MixtureOfExperts(32, spec)
    control = MixtureOfExperts(32, FusingSpec(8, 16, 2, control=True))

    def count(m: nn.Module) -> int:
        return sum(p.numel() for p in m.parameters())

    gate = 2 * 32 * 8
    assert abs(count(experts) - gate - count(control)) < 0.05 * count(control)
    assert control(torch.randn(4, 32)).gates.shape == (4, 1)


def test_experts_start_near_the_identity_and_differ() -> None:
    torch.manual_seed(0)
    moe = MixtureOfExperts(32, FusingSpec(4, 16, 2)).eval()
    x = torch.randn(8, 32)
    outputs = moe.expert_outputs(x)
    assert (outputs - x[:, None]).abs().max() < 0.5
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])


def test_wrong_k_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="k: wanted 1 to 4"):
        MixtureOfExperts(8, FusingSpec(4, 4, 5))
