"""Sums of loss terms and statistics over steps, kept on the device until somebody reads them.

Reading a number from a GPU waits for all work before it, so a step reads none. Knows tensors; must not know what the
numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

COUNTS = ("judged", "correct")  # statistics that add up over micro-batches; the others are averaged


class RunningSums:
    """Sums by name, in float64, in the order of the steps.

    Args:
        device: Of the terms.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Start again at nothing."""
        self._names: list[str] = []
        self._total = torch.zeros(0, dtype=torch.float64, device=self._device)
        self._zero = torch.zeros((), dtype=torch.float64, device=self._device)
        self._seconds = 0.0
        self.steps = 0

    def add(self, terms: Mapping[str, Tensor], seconds_input: float) -> None:
        """Add the scalars of a step, and the time in s that its input took the host."""
        if new := [name for name in terms if name not in self._names]:
            self._names += new
            self._total = torch.cat([self._total, self._total.new_zeros(len(new))])
        self._total += torch.stack([terms.get(name, self._zero).double() for name in self._names])
        self._seconds += seconds_input
        self.steps += 1

    def values(self) -> dict[str, float]:
        """All sums. Waits for the device."""
        if not self._names:
            return {}
        return {**dict(zip(self._names, self._total.tolist(), strict=True)), "seconds_input": self._seconds}

    def load(self, values: Mapping[str, float]) -> None:
        """Go on from the sums that ``values`` returned. The number of steps is not among them: it restarts at 0."""
        self.clear()
        self._names = [name for name in values if name != "seconds_input"]
        self._total = torch.tensor([values[n] for n in self._names], dtype=torch.float64, device=self._device)
        self._seconds = values.get("seconds_input", 0.0)


def means(sums: Mapping[str, float], steps: int) -> dict[str, float]:
    """Mean terms of ``steps`` steps, with the accuracy of confident pseudo-labels."""
    found = {name: value / steps for name, value in sums.items() if name not in COUNTS}
    if sums.get("judged"):
        found["pseudo_accuracy"] = sums["correct"] / sums["judged"]
    return found


def reduce_parts(collected: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of a step, float64 scalars, from those of its micro-batches."""
    names = list(collected[0])
    total = torch.stack([collected[0][name].double() for name in names])
    for terms in collected[1:]:
        total += torch.stack([terms[name].double() for name in names])
    summed, mean = total.unbind(), (total / len(collected)).unbind()
    return {name: summed[i] if name in COUNTS else mean[i] for i, name in enumerate(names)}
