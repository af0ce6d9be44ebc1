"""Draws how far the shares of a model can be trusted: a reliability diagram and a risk-coverage curve.

Knows results of evaluations and matplotlib; must not know models or data.
"""

from __future__ import annotations

import io
from typing import Literal

from train.reports.evaluation import EvaluationResult

_BLUE, _GREY = "#3b6ea5", "#888888"


def plot_honesty(
    result: EvaluationResult, others: dict[str, EvaluationResult] | None = None, kind: Literal["png", "svg"] = "png"
) -> bytes:
    """Draw both diagrams side by side.

    Args:
        result: The evaluation.
        others: More curves by name, for the right diagram.
        kind: Format of the file.

    Returns:
        The content of the file.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "leaf-rt"}):  # the same picture for the same numbers
        figure = Figure(figsize=(9, 4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        shares, accuracies, counts = zip(*result.reliability, strict=True)
        left.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="honest")
        left.scatter(shares, accuracies, s=[8 + 400 * n / result.n for n in counts], color=_BLUE, alpha=0.7)
        left.plot(shares, accuracies, color=_BLUE, linewidth=1, label=f"error {100 * result.calibration_error:.1f} %")
        left.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of the leading class", ylabel="answers that are right")
        left.set_title(f"Reliability, {result.n:,} pictures", fontsize=10)
        left.legend(frameon=False, fontsize=8, loc="upper left")
        for name, one in {"these pictures": result, **(others or {})}.items():
            covered, risk = zip(*one.risk_coverage, strict=True)
            right.plot([100 * c for c in covered], [100 * r for r in risk], linewidth=1.5, label=name)
        kept = _kept(result)
        right.axvline(
            100 * kept, color=_GREY, linewidth=1, linestyle="--", label=f"default: {100 * kept:.0f} % answered"
        )
        right.set(xlim=(0, 100), ylim=(0, None), xlabel="% answered, surest first", ylabel="% of them wrong")
        right.set_title("Risk and coverage", fontsize=10)
        right.legend(frameon=False, fontsize=8, loc="upper left")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _kept(result: EvaluationResult) -> float:
    """The share of the answers that are not "uncertain"."""
    wrong = (1.0 - result.accuracy) * (1.0 - (result.flagged_wrong or 0.0))
    return wrong + result.accuracy * (1.0 - (result.flagged_right or 0.0))
