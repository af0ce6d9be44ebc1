"""The report of a finished run: one HTML page with curves, confusion matrix, recall and calibration.

Knows log records and checkpoint descriptions. It must not know tensors or how models are measured.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.system.files import write_whole
from train.loop.checkpoint import describe, find, load
from train.loop.run_log import read_log
from train.reports.comparison import Comparison
from train.reports.comparison_html import comparison_html, image_html, wrong_html

PAGE = "report.html"
CURVES = "Curves"  # title of the plot
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{background:#f6f6f6;padding:1rem;overflow:auto}"
    "figure{display:inline-block;width:7.5rem;margin:.3rem;vertical-align:top}figure img{width:6rem}"
    "figcaption{font-size:.75rem;line-height:1.3;overflow-wrap:anywhere}"
)


def write_report(run: Path, comparison: Comparison | None = None) -> Path:
    """Write curves.png, confusion.png and report.html into a run's folder, from its log and its checkpoint.

    Args:
        run: Folder of the run.
        comparison: The run on test or held-out pictures, beside other models.

    Returns:
        Path of the page. It contains its images, so it can be sent alone.

    Raises:
        NotFound, ModelError: The checkpoint is missing or damaged.
        NoPermission, OutputError: See ``write_whole``.
    """
    records = read_log(run)
    path = find(run)
    meta = describe(load(path), path).payload()
    curves = curves_png(records, meta["labels"])
    write_whole(run / "curves.png", lambda f: f.write(curves), parents=True)
    pictures = [(CURVES, curves)]
    metrics = meta["metrics"]
    if comparison is not None or metrics:
        counts = comparison.confusion if comparison is not None else metrics["confusion"]
        where = comparison.pictures if comparison is not None else "validation pictures"
        matrix = confusion_png(counts, meta["labels"])
        write_whole(run / "confusion.png", lambda f: f.write(matrix), parents=True)
        pictures.append((f"Confusion matrix of the {where}", matrix))
    page = _page(run.resolve().name, meta, pictures, comparison, records)
    write_whole(run / PAGE, lambda f: f.write(page.encode()), parents=True)
    return run / PAGE


def curves_png(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> bytes:
    """Draw loss terms, validation accuracy and, if the method has them, pseudo-labels and thresholds.

    Args:
        records: Of the run's log.
        labels: C class names, in the order of the thresholds.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [r for r in records if r["event"] == "step"]
    epochs = [r for r in records if r["event"] == "epoch" and r["validation"]]
    semi_supervised = any(r["thresholds"] for r in steps)  # other runs have no pseudo-labels
    figure = Figure(figsize=(11, 7 if semi_supervised else 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    if semi_supervised:
        (losses, pseudo), (thresholds, accuracy) = figure.subplots(2, 2)
    else:
        losses, accuracy = figure.subplots(1, 2)
    x = [r["step"] for r in steps]
    shares = {"coverage": "trusted (coverage)", "pseudo_accuracy": "correct, of the trusted with a known label"}
    for name in sorted({k for r in steps for k in r if k.startswith("loss")}):
        losses.plot(x, [_number(r, name) for r in steps], label=name)
    losses.set_title("loss terms")
    if semi_supervised:
        for name, title in shares.items():
            if any(name in r for r in steps):
                pseudo.plot(x, [_number(r, name) for r in steps], label=title)
        pseudo.set_title("pseudo-labels of the unlabelled faces")
        pseudo.set_ylim(0, 1)
        for label, line in zip(labels, zip(*(r["thresholds"] for r in steps), strict=True), strict=True):
            thresholds.plot(x, line, label=label)
        thresholds.set_title("confidence threshold by class")
    for name in ("accuracy", "balanced_accuracy"):
        accuracy.plot([r["epoch"] for r in epochs], [r["validation"][name] for r in epochs], marker=".", label=name)
    accuracy.set_title("validation accuracy of the EMA model")
    losses.set_xlabel("step")
    accuracy.set_xlabel("epoch")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return _png(figure)


def confusion_png(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """Draw a confusion matrix with counts and the share of each label.

    Args:
        matrix: C rows of C counts; row: label, column: answer.
        labels: C class names.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 2.5 + 0.65 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [[n / max(sum(row), 1) for n in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, n in enumerate(row):
            color = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{100 * shares[i][j]:.0f} %\n{n}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    return _png(figure)


def _number(record: dict[str, Any], name: str) -> float:
    value = record.get(name)  # the log holds null for NaN and infinity
    return float("nan") if value is None else float(value)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _page(
    name: str,
    meta: dict[str, Any],
    pictures: Sequence[tuple[str, bytes]],
    comparison: Comparison | None,
    records: Sequence[dict[str, Any]],
) -> str:
    metrics, training = meta["metrics"], meta["training"]
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(name)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{html.escape(name)}</h1>")
    if comparison is not None:
        parts.append(comparison_html(comparison))
    warnings = dict.fromkeys(r["text"] for r in records if r["event"] == "warning")
    parts += [f"<p><b>Warning:</b> {html.escape(text)}</p>" for text in warnings]
    method = training["recipe"]["method"]
    facts = {
        "method": f"leaf ({method['mode']})" if method["name"] == "leaf" else method["name"],
        "backbone": meta["model"]["backbone"],
        **{part: str(training[part]) for part in ("labelled", "unlabelled", "validation")},
        "epochs, steps": f"{training['epochs_done']}, {training['step']}",
    }
    if metrics:
        facts["validation accuracy"] = f"{100 * metrics['accuracy']:.2f} % of {metrics['n']}"
        facts["balanced accuracy"] = f"{100 * metrics['balanced_accuracy']:.2f} %"
        facts["calibration error"] = f"{metrics['calibration_error']:.4f}"
    parts.append("<h2>The run</h2>" + _table(facts))
    if metrics:
        recall = {k: "-" if v is None else f"{100 * v:.1f} %" for k, v in metrics["recall"].items()}
        parts.append("<h2>Recall by class on the validation pictures</h2>" + _table(recall))
    for title, png in pictures:
        parts.append(f"<h2>{html.escape(title)}</h2>{image_html(png, title)}")
        if title == CURVES and (about := _about_pseudo_labels(records)):
            parts.append(f"<p>{html.escape(about)}</p>")
    if comparison is not None and comparison.wrong:
        parts.append(wrong_html(comparison))
    parts.append("<h2>Data</h2><ul>" + "".join(f"<li>{html.escape(n)}" for n in training["notes"]) + "</ul>")
    parts.append(f"<h2>Recipe</h2><pre>{html.escape(json.dumps(training['recipe'], indent=1))}</pre>")
    return "\n".join(parts) + "\n"


def _about_pseudo_labels(records: Sequence[dict[str, Any]]) -> str:
    """What coverage means, with its last value, in one paragraph; empty for a method without pseudo-labels."""
    steps = [r for r in records if r["event"] == "step" and "coverage" in r]
    if not steps:
        return ""
    judged = (
        "How many of the trusted ones are correct is judged only on unlabelled faces whose label is known"
        if any("pseudo_accuracy" in r for r in steps)
        else "How many of the trusted ones are correct is not known: none of them has a known label"
    )
    return (
        "Coverage is the share of the unlabelled faces whose pseudo-label the method trusts. At the end it was "
        f"{100 * _number(steps[-1], 'coverage'):.1f} %. {judged}."
    )


def _table(rows: dict[str, str]) -> str:
    cells = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(v)}" for k, v in rows.items())
    return f"<table>{cells}</table>"
