"""The forms of the method: ramps of the ambiguous loss, consistency of two views, gate noise. Each against its formula.

The formulas are written out in plain Python, image by image. ``official`` mode uses none of them.
"""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from leaf_rt.errors import DataError
from train.loop.schedule import gate_noise
from train.methods.losses import ambiguity_weight, ambiguous_loss, consistency_loss, positives, unsupervised_loss
from train.methods.objective import BatchOutputs, objective, student_sees_weak
from train.methods.ramps import RAMPS, build_ramp
from train.methods.thresholds import build_threshold
from train.models.face_model import build_model
from train.models.moe import FusingSpec, MixtureOfExperts
from train.recipes.loading import load_recipe
from train.recipes.schema import Method

CPU = torch.device("cpu")
C = 8
UNIFORM = torch.full((1, C), 1 / C)
CERTAIN = torch.eye(C)[:1]


def teacher(n: int = 40, scale: float = 2.0, seed: int = 0) -> Tensor:
    return (torch.randn(n, C, generator=torch.Generator().manual_seed(seed)) * scale).softmax(1)


def entropy_factor(q: list[float]) -> float:
    return 1 + sum(p * math.log(p) for p in q if p > 0) / math.log(C)


def test_every_choice_of_the_option_has_a_ramp() -> None:
    assert set(get_args(get_type_hints(Method)["ramp"])) == set(RAMPS)


def test_the_entropy_ramp() -> None:
    q = teacher()
    actual = build_ramp(Method(ramp="entropy"), C, CPU).factor(q)
    assert actual.tolist() == pytest.approx([entropy_factor(row) for row in q.tolist()], abs=1e-6)


def test_the_class_ramp() -> None:
    ramp = build_ramp(Method(ramp="class", ramp_momentum=0.9, p_cutoff=0.8), C, CPU)
    thresholds = [0.8] * C
    for seed in range(30):
        q = teacher(12, seed=seed)
        ramp.update(q, torch.zeros(12))
        rows = q.tolist()
        for c in range(C):
            members = [max(row) for row in rows if row.index(max(row)) == c]
            if members:
                thresholds[c] = 0.9 * thresholds[c] + 0.1 * sum(members) / len(members)
        expected = [min(1.0, (max(row) - 1 / C) / (max(0.5, thresholds[row.index(max(row))]) - 1 / C)) for row in rows]
        assert ramp.factor(q).tolist() == pytest.approx(expected, abs=1e-5)
    assert any(t < 0.8 for t in thresholds)


def test_the_share_ramp() -> None:
    ramp = build_ramp(Method(ramp="share", ramp_momentum=0.9), C, CPU)
    assert ramp.factor(teacher(3)).tolist() == [0, 0, 0]
    share = 0.0
    for confident in (0, 1, 2, 4, 4):
        mask = (torch.arange(4) < confident).float()
        ramp.update(teacher(4), mask)
        share = 0.9 * share + 0.1 * confident / 4
        assert ramp.factor(teacher(4)).tolist() == pytest.approx([share] * 4)


@pytest.mark.parametrize("name", ["class", "entropy"])
def test_a_uniform_guess_gets_nothing_and_a_certain_one_counts_in_full(name: str) -> None:
    ramp = build_ramp(Method(ramp=name), C, CPU)  # type: ignore[arg-type]
    for _ in range(2000):  # a teacher that never learns does not talk the ramp into trusting it
        ramp.update(UNIFORM.expand(8, -1), torch.zeros(8))
    assert ramp.factor(UNIFORM).item() == pytest.approx(0.0, abs=1e-6)
    assert ramp.factor(CERTAIN).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_is_restored(name: str) -> None:
    method = Method(ramp=name)  # type: ignore[arg-type]
    first, second = build_ramp(method, C, CPU), build_ramp(method, C, CPU)
    first.update(teacher(), torch.ones(40))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.factor(teacher()), second.factor(teacher()))


@pytest.mark.parametrize("rescale", ["plain", "weighted", "none"])
def test_the_ramp_weakens_the_ambiguous_loss_whatever_the_scale(rescale: str) -> None:
    """mean(r w l), and with a scale, the same over the cross-entropy of the pseudo-labels."""
    q, r = teacher(), torch.linspace(0, 1, 40)
    strong = torch.randn(40, C, generator=torch.Generator().manual_seed(1))
    label, (k, is_positive) = q.argmax(1), positives(q)
    loss = unsupervised_loss(strong, q, label, torch.zeros(40), "ambiguous", rescale=rescale, ramp=r)
    total = plain = weighted = 0.0
    for i in range(40):
        w = float(ambiguity_weight(q, k)[i])
        cross_entropy = -float(strong[i].double().log_softmax(0)[label[i]])
        total += float(r[i]) * w * float(ambiguous_loss(strong, is_positive)[i]) / 40
        plain += float(r[i]) * cross_entropy / 40
        weighted += float(r[i]) * w * cross_entropy / 40
    assert loss.item() == pytest.approx({"plain": plain, "weighted": weighted, "none": total}[rescale], rel=1e-4)


def test_consistency_is_the_mean_squared_distance_of_two_predictions() -> None:
    a, b = teacher(seed=1).log(), teacher(seed=2).log()
    pairs = zip(a.softmax(1).tolist(), b.softmax(1).tolist(), strict=True)
    expected = sum(sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for p, q in pairs) / 40
    assert consistency_loss(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert consistency_loss(a, a + 3).item() == pytest.approx(0.0, abs=1e-6)
    assert consistency_loss(a[:0], b[:0]).item() == 0.0


def outputs(method: Method) -> BatchOutputs:
    """Random outputs of 6 labelled and 20 unlabelled images; the views of the student have gradients."""
    rng = torch.Generator().manual_seed(3)

    def logits(n: int) -> Tensor:
        return (2 * torch.randn(n, C, generator=rng)).requires_grad_()

    return BatchOutputs(
        labelled=logits(6), targets=torch.eye(C)[:6], weak=(logits(20), logits(20)), strong=logits(20),
        weak_features=(logits(20), logits(20)), weak_student=(logits(20), logits(20)),
        gates=torch.zeros(66, 0, 1), load=torch.zeros(66, 0, 1), truth=torch.full((20,), -1),
    )  # fmt: skip


@torch.no_grad()
def by_hand(out: BatchOutputs) -> tuple[float, int]:
    """The objective of ``test_the_whole_objective_of_a_form``, and the number of confident images."""
    q = ((out.weak[0] + out.weak[1]) / 2).softmax(1)
    mean = (out.weak[0].softmax(1) + out.weak[1].softmax(1)) / 2
    k, is_positive = positives(q)
    expected = -sum(float(out.labelled[i].log_softmax(0)[i]) for i in range(6)) / 6
    confident = 0
    for i in range(20):
        factor = entropy_factor(q[i].tolist()) ** 2
        loss = float(ambiguity_weight(q, k)[i]) * float(ambiguous_loss(out.strong, is_positive)[i])
        expected += factor * loss / 20
        if float(mean[i].max()) >= 0.4:
            confident += 1
            expected -= float(out.strong[i].log_softmax(0)[int(mean[i].argmax())]) / 20
        p, r = (w[i].softmax(0).tolist() for w in out.weak_student)
        expected += 0.5 * sum((x - y) ** 2 for x, y in zip(p, r, strict=True)) / 20
    return expected, confident


def test_the_whole_objective_of_a_form() -> None:
    """L_x + mean(r^2 w l) + the cross-entropy of confident labels + 0.5 L_c, without the contrast."""
    recipe = load_recipe(None, {
        "method.ramp": "entropy", "method.ramp_power": 2, "method.lambda_x": 1, "method.lambda_s": 0,
        "method.lambda_c": 0.5, "method.rescale": "none", "method.p_cutoff": 0.4,
    })  # fmt: skip
    method = recipe.method
    out = outputs(method)
    total, terms = objective(out, method, build_threshold(method, C, CPU), build_ramp(method, C, CPU))
    expected, confident = by_hand(out)
    q = ((out.weak[0] + out.weak[1]) / 2).softmax(1)
    assert 0 < confident < 20
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert terms["ramp"].item() == pytest.approx(sum(entropy_factor(r) ** 2 for r in q.tolist()) / 20, rel=1e-5)
    assert "loss_s" not in terms
    total.backward()  # type: ignore[no-untyped-call]
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in (*out.weak_student, out.strong))
    assert all(view.grad is None for view in out.weak), "the teacher gets no gradient"


def test_official_mode_uses_none_of_the_forms() -> None:
    """0.5 L_x + the share of confident images times the scaled ambiguous loss + 0.1 L_s."""
    method = load_recipe(None, {"method.mode": "official", "method.p_cutoff": 0.4}).method
    assert (method.ramp, method.lambda_c, method.noise_scale, method.noise_steps) == ("none", 0.0, 1.0, 0)
    out = outputs(method)
    total, terms = objective(out, method, build_threshold(method, C, CPU), build_ramp(method, C, CPU))
    mean = (out.weak[0].softmax(1) + out.weak[1].softmax(1)).detach() / 2
    strong = out.strong.detach().log_softmax(1)
    cross_entropy = [-float(strong[i, int(mean[i].argmax())]) for i in range(20)]
    share = float((mean.amax(1) >= 0.4).float().mean())
    assert 0 < share < 1
    assert terms["loss_u"].item() == pytest.approx(share * sum(cross_entropy) / 20, rel=1e-5)
    expected = 0.5 * terms["loss_x"] + terms["loss_u"] + 0.1 * terms["loss_s"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(terms) == {"loss", "loss_x", "loss_u", "loss_s", "coverage", "judged", "correct", "positives"}


def test_the_student_sees_the_weak_views_where_a_term_needs_them() -> None:
    assert not student_sees_weak(Method(lambda_s=0.0))
    assert student_sees_weak(Method(lambda_s=0.0, lambda_c=0.1))
    with pytest.raises(DataError, match=r"method.lambda_c: compares two weak views, but method.weak_views is 1"):
        load_recipe(None, {"method.name": "fixmatch", "method.lambda_c": 1})


def test_the_noise_of_the_gates_falls_to_zero() -> None:
    method = Method(noise_scale=0.5, noise_steps=10)
    assert [gate_noise(step, method) for step in (0, 5, 10, 99)] == [0.5, 0.25, 0.0, 0.0]
    assert gate_noise(99, Method(noise_scale=0.5)) == 0.5


def test_the_factor_on_the_noise_of_a_gate() -> None:
    torch.manual_seed(0)
    moe, x = MixtureOfExperts(16, FusingSpec(6, 8, 2)).train(), torch.randn(30, 16)
    with torch.no_grad():
        moe.w_noise.normal_()

    def scores(scale: float) -> Tensor:
        """The gates by definition: the two largest of clean + scale * deviation * normal, softmax over these."""
        torch.manual_seed(1)
        deviation = torch.log1p((x @ moe.w_noise).exp()) + 0.01
        noisy = x @ moe.w_gate + scale * deviation * torch.randn(30, 6)
        top = noisy.topk(2, dim=1)
        return torch.zeros(30, 6).scatter(1, top.indices, top.values.softmax(1))

    for scale in (1.0, 0.25, 0.0):
        moe.set_noise(scale)
        torch.manual_seed(1)
        fused = moe(x)
        torch.testing.assert_close(fused.gates, scores(scale), atol=1e-5, rtol=1e-4)
        assert torch.isfinite(fused.load).all()
        fused.load.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in moe.parameters())
    assert "noise_scale" not in moe.state_dict(), "older checkpoints fit"


def test_a_model_without_noise_takes_the_factor() -> None:
    for options in ({"noise": False}, {"control": True}):
        build_model("tiny", C, semantic=FusingSpec(**options), instance=None).set_gate_noise(0.5)
