"""The log of a run: a live table, JSON lines and TensorBoard scalars.

Knows terminals and log files; must not know tensors or models.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leaf_rt.system.parsing import parse_json
from train.loop.sums import means as step_means

LOG = "log.jsonl"
FEW_TRUSTED = 0.02  # share of trusted pseudo-labels below which the unlabelled faces hardly count
TERMS = {
    "loss_x": "labelled",
    "loss_u": "unlabelled",
    "loss_s": "contrast",
    "loss_c": "consistency",
    "loss_fair": "fairness",
    "loss_balance": "load balance",
}


class Reporter:
    """Reports the progress of a run. A context manager, used in the main process only.

    Args:
        out: Folder of the run.
        labels: C class names.
        batch: Number of images per step, for the speed.
        console: Shows the live table; None shows nothing.
        tensorboard: Whether to write TensorBoard files, if TensorBoard is installed.
    """

    def __init__(
        self,
        out: Path,
        labels: Sequence[str],
        batch: int,
        console: Console | None = None,
        *,
        tensorboard: bool = True,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.labels, self.batch, self.console = labels, batch, console
        self._log = (out / LOG).open("a", encoding="utf-8")
        self._board = _open_tensorboard(out) if tensorboard else None
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console else None
        self._since = time.monotonic()
        self._rate = 0.0
        self._most_trusted: float | None = 0.0  # largest share of trusted pseudo-labels so far; None once it was judged
        self._last_epoch: dict[str, Any] = {}
        self._load: list[list[float]] = []

    def __enter__(self) -> Reporter:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        if self._board is not None:
            self._board.close()
        self._log.close()

    def event(self, name: str, **values: Any) -> None:
        """Write a record as a JSON line, with the wall-clock time. Numbers that are not finite become null."""
        record = _finite({"event": name, "time": round(time.time(), 3), **values})
        self._log.write(json.dumps(record, allow_nan=False) + "\n")
        self._log.flush()

    def began(self, left: int) -> None:
        """Tell the user after the first step how long the others will take, so that no terminal stays silent.

        Args:
            left: Number of the other steps.
        """
        if self.console is not None:
            seconds = time.monotonic() - self._since
            text = (
                f"first step done in {seconds:.1f} s; about {timedelta(seconds=round(left * seconds))} for the others"
            )
            self.console.print(text, highlight=False)

    def step(
        self, step: int, per_epoch: int, total: int, sums: Mapping[str, float], steps: int, thresholds: Sequence[float]
    ) -> None:
        """Write a record of the steps since the last one.

        Args:
            step: Number of finished steps.
            per_epoch: Number of steps per epoch.
            total: Number of steps of the run.
            sums: Sums over these steps of terms and statistics, and "seconds_input", the time that the input took.
            steps: Number of these steps.
            thresholds: C class thresholds; empty if the method has none.
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = step_means(sums, steps)
        means["input_share"] = means.pop("seconds_input", 0.0) * steps / seconds
        self._rate = steps * self.batch / seconds
        left = (total - step) * seconds / steps
        self._warn_of_few(step, total, means)
        self.event(
            "step", step=step, epoch=(step - 1) // per_epoch + 1, images_per_s=round(self._rate, 1),
            **{k: round(v, 5) for k, v in means.items()}, thresholds=[round(t, 4) for t in thresholds],
        )  # fmt: skip
        if self._board is not None:
            for name, value in {**means, "images_per_s": self._rate}.items():
                self._board.add_scalar(f"train/{name}", value, step)
            for label, value in zip(self.labels, thresholds, strict=bool(thresholds)):
                self._board.add_scalar(f"threshold/{label}", value, step)
        if self._live is not None:
            self._live.update(self._view(step, per_epoch, total, means, thresholds, left))
        self._since = time.monotonic()

    def epoch(
        self,
        epoch: int,
        side: int,
        means: dict[str, float],
        metrics: dict[str, Any],
        thresholds: Sequence[float],
        load: list[list[float]],
    ) -> None:
        """Report a finished epoch.

        Args:
            epoch: Number of the epoch, from 1.
            side: Of the network's input, px.
            means: Mean terms of the epoch.
            metrics: Latest validation metrics, of this or an earlier epoch.
            thresholds: C class thresholds; empty if the method has none.
            load: Share of the images per expert, for each level.
        """
        self._load = load
        fresh = metrics if metrics.get("epoch") == epoch else {}
        self._last_epoch = metrics
        self.event("epoch", epoch=epoch, side=side, means={k: round(v, 5) for k, v in means.items()},
                   validation=fresh, thresholds=[round(t, 4) for t in thresholds], expert_load=load)  # fmt: skip
        if self._board is not None:
            for name in ("accuracy", "balanced_accuracy", "calibration_error") if fresh else ():
                self._board.add_scalar(f"validation/{name}", fresh[name], epoch)
            for label, recall in fresh.get("recall", {}).items():
                if recall is not None:
                    self._board.add_scalar(f"recall/{label}", recall, epoch)
            for level, share in enumerate(load, 1):
                for expert, value in enumerate(share, 1):
                    self._board.add_scalar(f"expert_load_{level}/{expert}", value, epoch)
        if self.console is not None:
            accuracy = f", validation {100 * fresh['accuracy']:.2f} %" if fresh else ""
            line = f"epoch {epoch}: loss {means.get('loss', 0.0):.4f}{accuracy} ({self._rate:.0f} images/s)"
            self.console.print(line, highlight=False)
        self._since = time.monotonic()  # evaluation is not training time

    def _warn_of_few(self, step: int, total: int, means: dict[str, float]) -> None:
        """Warn once, after a third of the run, if the method has learned from almost no unlabelled face so far."""
        if "coverage" not in means or self._most_trusted is None:
            return
        self._most_trusted = max(self._most_trusted, means["coverage"])
        if step * 3 < total:
            return
        if self._most_trusted < FEW_TRUSTED:
            text = (
                f"after a third of the run the method trusts under {100 * FEW_TRUSTED:.0f} % of its pseudo-labels: the "
                "unlabelled faces teach it next to nothing; use --method supervised, start from other weights, or "
                "label more faces"
            )
            self.event("warning", text=text)
            if self.console is not None:
                self.console.print(f"warning: {text}", highlight=False, soft_wrap=True)
        self._most_trusted = None

    def _view(
        self, step: int, per_epoch: int, total: int, means: dict[str, float], thresholds: Sequence[float], left: float
    ) -> Group:
        head = Text(
            f"epoch {(step - 1) // per_epoch + 1}, step {step} of {total}, {self._rate:.0f} images/s, "
            f"{timedelta(seconds=round(left))} left"
        )
        terms = ", ".join(f"{title} {means[k]:.3f}" for k, title in TERMS.items() if k in means)
        classes = Table("class", *self.labels)
        if thresholds:
            classes.add_row("threshold", *(f"{t:.3f}" for t in thresholds))
        recall = self._last_epoch.get("recall", {})
        if recall:
            classes.add_row("recall", *("-" if recall[c] is None else f"{recall[c]:.3f}" for c in self.labels))
        parts: list[Text | Table] = [head, Text(f"loss {means['loss']:.3f}: {terms}")]
        if "coverage" in means:
            correct = (
                f" ({100 * means['pseudo_accuracy']:.1f} % correct, judged only on faces whose label is known)"
                if "pseudo_accuracy" in means
                else ""
            )
            classes_each = f"; {means['positives']:.2f} classes each" if "positives" in means else ""
            parts.append(Text(f"pseudo-labels: {100 * means['coverage']:.1f} % trusted{correct}{classes_each}"))
        if classes.rows:
            parts.append(classes)
        for level, share in enumerate(self._load):
            parts.append(Text(f"expert load {level + 1}: " + " ".join(f"{v:.2f}" for v in share)))
        return Group(*parts)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first. Incomplete lines are skipped."""
    records = []
    for line in (run / LOG).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue  # the process was killed while it wrote this line
        if isinstance(record, dict) and "event" in record:
            records.append(record)
    return records


def _finite(value: Any) -> Any:
    """A JSON value in which numbers that are not finite are replaced by None."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open_tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None  # optional: the JSON lines hold the same; the extra [train] installs it
    return SummaryWriter(str(out / "tensorboard"))
