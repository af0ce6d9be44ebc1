"""Everything that changes while a run trains, and how a checkpoint stores it.

Knows models, the optimizer and the threshold; must not know data or losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from train.loop.checkpoint import load_weights
from train.loop.optimizer import restore_optimizer
from train.loop.sums import RunningSums
from train.methods.ramps import Ramp
from train.methods.thresholds import Threshold
from train.models.face_model import FaceModel


@dataclass(slots=True, eq=False)
class TrainState:
    """The state of a run.

    Attributes:
        student: The model that is trained.
        ema: Moving average of the student's weights: the teacher, and the result of the run.
        optimizer: Of the student.
        scaler: Loss scaler for fp16; disabled otherwise.
        threshold: Decides which pseudo-labels are confident.
        ramp: Weighs the ambiguous loss.
        sums: Of the loss terms and statistics over the finished steps of the current epoch.
        step: Number of finished steps.
        best: Best validation accuracy so far; -1 before the first validation.
        metrics: Latest validation metrics, with their "epoch"; empty before the first validation.
    """

    student: FaceModel
    ema: FaceModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    threshold: Threshold
    ramp: Ramp
    sums: RunningSums
    step: int = 0
    best: float = -1.0
    metrics: dict[str, Any] = field(default_factory=dict)

    def is_finite(self) -> bool:
        """Whether all weights of the EMA model are finite."""
        return all(bool(torch.isfinite(value).all()) for value in self.ema.state_dict().values())

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values, with torch's random state."""
        return {
            "metrics": self.metrics,
            "ema": self.ema.state_dict(),
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "threshold": self.threshold.state_dict(),
            "ramp": self.ramp.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "best": self.best,
            "sums": self.sums.values(),
        }

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Restore what ``state_dict`` returned, torch's random state included.

        Args:
            state: Content of a checkpoint.
            path: Of the checkpoint, for error messages.

        Raises:
            ModelError: The weights do not fit the models.
        """
        load_weights(self.student, state["student"], path)
        load_weights(self.ema, state["ema"], path)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.threshold.load_state_dict(state["threshold"])
        self.ramp.load_state_dict(state.get("ramp", {}))  # older checkpoints have none
        torch.set_rng_state(state["rng"])
        self.sums.load(state["sums"])
        self.step, self.best = state["step"], state["best"]
        self.metrics = state["metrics"]
