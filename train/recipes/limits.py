"""Which numbers a recipe may hold, option by option.

Knows options by their names; must not know what is done with them.
"""

from __future__ import annotations

import math
from typing import Any

from leaf_rt.errors import DataError

INF = math.inf
# Least and largest value, both allowed; every other number is only wanted finite.
RANGES: dict[str, tuple[float, float]] = {
    "data.side": (8, 4096),
    "data.validation": (0, 0.9),
    "split.labels": (0, INF),
    "split.share": (0, 1),
    "split.seed": (0, 2**32 - 1),
    "split.folds": (0, INF),
    "split.imbalance": (1, INF),
    "model.dropout": (0, 0.99),
    "model.recalibrate": (0, INF),
    "augment.strength": (0, INF),
    "augment.mixup": (0, 1),
    "augment.mixup_alpha": (1e-3, INF),
    "augment.crop_padding": (0, 0.5),
    "augment.strong_operations": (0, 14),
    "augment.cutout": (0, 1),
    "method.weak_views": (0, 2),
    "method.unsupervised_start_step": (0, INF),
    "method.p_cutoff": (0, 1),
    "method.min_confidence": (0, 1),
    "method.mass": (0, 1),
    "method.max_positives": (1, INF),
    "method.temperature": (1e-3, INF),
    "method.lambda_x": (0, INF),
    "method.lambda_u": (0, INF),
    "method.lambda_s": (0, INF),
    "method.fairness": (0, INF),
    "method.balance": (0, INF),
    "method.experts": (1, INF),
    "method.hidden": (0, INF),
    "method.hidden_instance": (1, INF),
    "optim.lr": (0, INF),
    "optim.weight_decay": (0, INF),
    "optim.head_lr": (0, INF),
    "optim.warmup": (0, INF),
    "optim.clip": (0, INF),
    "optim.accumulate": (1, INF),
    "optim.shrink": (0, INF),
    "optim.ema_decay": (0, 1),
    "run.epochs": (1, INF),
    "run.stop": (0, INF),
    "run.steps": (0, INF),
    "run.batch": (1, INF),
    "run.batch_unlabelled": (1, INF),
    "run.input_sizes": (8, 4096),
    "run.seed": (0, 2**32 - 1),
    "run.threads": (0, 4096),
    "run.evaluate_every": (1, INF),
    "run.log_every": (1, INF),
    "run.checkpoint_steps": (0, INF),
}


def check_range(key: str, value: Any) -> None:
    """See that an option's number, or every one of its numbers, is in range.

    Raises:
        DataError: One is not; it is named, with what was wanted.
    """
    numbers = [v for v in (value if isinstance(value, (tuple, list)) else [value]) if type(v) in (int, float)]
    low, high = RANGES.get(key, (-INF, INF))
    for number in numbers:
        if number in (INF, -INF) or not low <= number <= high:  # of no number, NaN, every comparison is false
            span = f"a number from {low:g} to {high:g}" if high < INF else f"{low:g} or more"
            raise DataError(f"{key}: wanted {span if low > -INF else 'a finite number'}, got {number}")
