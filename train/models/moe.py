"""The fusing of the semantic and the instance level: a noisy top-k mixture of residual experts.

Source: Shazeer et al., 2017, arXiv 1701.06538, for the gate and the load balance. Knows tensors; must not know data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SMALLEST = math.log(2.0**-149)  # below this, exp() is zero in float32
_LEAST_DEVIATION = 1e-6  # keeps the load finite where the noise has fallen to zero
LOG_EPSILON = math.log(torch.finfo(torch.float64).eps)


@dataclass(frozen=True, slots=True)
class FusingSpec:
    """Options of one mixture.

    Attributes:
        experts: K, the number of experts.
        hidden: Number of hidden units of an expert.
        k: Number of experts that are used for a sample.
        shared: Use the same expert in all K slots.
        combine: "sum": weighted sum of the outputs; "log": log of the weighted sum of their exponentials.
        noise: Whether the gate has noise in training.
        control: Use one residual MLP with K * hidden units and no gate instead, as a baseline of the same size.
    """

    experts: int = 8
    hidden: int = 256
    k: int = 2
    shared: bool = False
    combine: str = "sum"
    noise: bool = True
    control: bool = False


class Fused(NamedTuple):
    """``y`` (B, d); ``gates`` (B, K), at most k per row above 0; ``load`` (B, K), probability of being selected."""

    y: Tensor
    gates: Tensor
    load: Tensor


class MixtureOfExperts(nn.Module):
    """Maps (B, d) to (B, d): experts E_j(x) = x + W2 relu(W1 x + b1) + b2, mixed by a noisy top-k gate.

    Every expert is computed for every sample. For experts this small that is faster than routing, it exports to a
    static graph, and every parameter gets a gradient in every process.
    """

    noise_scale: Tensor

    def __init__(self, dim: int, spec: FusingSpec) -> None:
        super().__init__()
        if not 1 <= spec.k <= spec.experts:
            raise ValueError(f"FusingSpec.k: wanted 1 to {spec.experts} (experts), got {spec.k}")
        self.spec = spec
        slots = 1 if spec.shared or spec.control else spec.experts
        hidden = spec.hidden * spec.experts if spec.control else spec.hidden
        self.w1 = nn.Parameter(_uniform(slots, hidden, dim, fan=dim))
        self.b1 = nn.Parameter(_uniform(slots, hidden, fan=dim))
        self.w2 = nn.Parameter(_uniform(slots, dim, hidden, fan=hidden))
        self.b2 = nn.Parameter(_uniform(slots, dim, fan=hidden))
        if spec.combine == "sum":  # start near the identity, to preserve a pre-trained feature
            nn.init.zeros_(self.b2)
            with torch.no_grad():
                self.w2.mul_(0.1)
        if not spec.control:
            # Zero makes all gates equal; with k > 1 or distinct experts they would stay equal.
            scale = 0.0 if spec.shared and spec.k == 1 else 0.02
            self.w_gate = nn.Parameter(torch.randn(dim, spec.experts) * scale)
            if spec.noise:
                self.w_noise = nn.Parameter(torch.zeros(dim, spec.experts))
                # Factor on the noise. The training loop sets it in every step, so no checkpoint holds it.
                self.register_buffer("noise_scale", torch.ones(()), persistent=False)

    def set_noise(self, scale: float) -> None:
        """Multiply the noise of the gate by a factor from now on; no effect without noise."""
        if not self.spec.control and self.spec.noise:
            self.noise_scale.fill_(scale)

    def forward(self, x: Tensor) -> Fused:
        """Fuse (B, d), in float32 even under autocast, because of the exponentials."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            experts = self.expert_outputs(x)  # (B, K or 1, d)
            if self.spec.control:
                ones = x.new_ones(x.shape[0], 1)
                return Fused(experts[:, 0], ones, ones)
            gates, load = self.gate(x)
            y = combine(experts, gates, self.spec.combine)
            if self._full_softmax:  # the gate weights only what the expert adds; the shortcut keeps weight 1
                y = y + (1 - gates.sum(1, keepdim=True)) * x
            return Fused(y, gates, load)

    def expert_outputs(self, x: Tensor) -> Tensor:
        """Outputs (B, slots, d) of the experts for x (B, d)."""
        hidden = torch.relu(torch.einsum("bd,khd->bkh", x, self.w1) + self.b1)
        return x[:, None] + torch.einsum("bkh,kdh->bkd", hidden, self.w2) + self.b2

    def gate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and loads, (B, K) each, for x (B, d)."""
        clean = x @ self.w_gate
        if not (self.training and self.spec.noise):
            gates = top_k_gates(clean, self.spec.k, full=self._full_softmax)
            return gates, (gates > 0).to(gates.dtype)
        deviation = (F.softplus(x @ self.w_noise) + 0.01) * self.noise_scale
        deviation = deviation.clamp_min(_LEAST_DEVIATION)
        noisy = clean + torch.randn_like(clean) * deviation
        gates = top_k_gates(noisy, self.spec.k, full=self._full_softmax)
        return gates, chance_in_top_k(clean, noisy, deviation, self.spec.k)

    @property
    def _full_softmax(self) -> bool:
        """Whether a gate is the softmax over all K experts. With k = 1 the gate gets no gradient otherwise."""
        return self.spec.k == 1 and not self.spec.shared and self.spec.combine == "sum"


def top_k_gates(scores: Tensor, k: int, *, full: bool = False) -> Tensor:
    """Softmax over the k largest of each row of (B, K) scores, zero elsewhere.

    Args:
        scores: (B, K) float32.
        k: Number of gates above zero.
        full: Take the softmax over all K scores, so that a single gate is below 1.
    """
    top, index = scores.topk(k, dim=1)  # (B, k)
    values = scores.softmax(1).gather(1, index) if full else top.softmax(1)
    chosen = index[..., None] == torch.arange(scores.shape[1], device=scores.device)  # (B, k, K)
    return (values[..., None] * chosen).sum(1)


def chance_in_top_k(clean: Tensor, noisy: Tensor, deviation: Tensor, k: int) -> Tensor:
    """(B, K): probability of being among the top k if only the noise of that expert is drawn again (eq. 8 to 10)."""
    experts = clean.shape[1]
    if k == experts:
        return torch.ones_like(clean)
    top = noisy.topk(k + 1, dim=1).values
    inside = noisy > top[:, k : k + 1]
    limit = torch.where(inside, top[:, k : k + 1], top[:, k - 1 : k])
    probability: Tensor = torch.special.ndtr((clean - limit) / deviation)
    return probability


def combine(experts: Tensor, gates: Tensor, how: str) -> Tensor:
    """Mix outputs (B, K or 1, d) by gates (B, K) to (B, d); ``how`` is "sum" or "log", see ``FusingSpec``."""
    if how == "sum":
        return (experts * gates[..., None]).sum(1) if experts.shape[1] > 1 else experts[:, 0] * gates.sum(1, True)
    if experts.shape[1] == 1:
        experts = experts.expand(-1, gates.shape[1], -1)
    # log sum_j g_j exp(E_j) without overflow, over the gates above zero.
    unused = gates[..., None] <= 0
    terms = experts + gates.clamp_min(torch.finfo(gates.dtype).tiny).log()[..., None]
    total = terms.masked_fill(unused, -torch.inf).logsumexp(1)
    return torch.where(total < LOG_SMALLEST, LOG_EPSILON, total)


def balance_loss(gates: Tensor, load: Tensor) -> Tensor:
    """CV^2(importance) + CV^2(load) of a batch, scalar; gates and load (B, K)."""
    return squared_variation(gates.sum(0)) + squared_variation(load.sum(0))


def squared_variation(x: Tensor) -> Tensor:
    """Squared coefficient of variation of (K,) values; 0 for a single one."""
    if len(x) < 2:
        return x.sum() * 0.0
    return x.float().var() / (x.float().mean() ** 2 + 1e-10)


def _uniform(*shape: int, fan: int) -> Tensor:
    return (torch.rand(*shape) * 2 - 1) / math.sqrt(fan)
