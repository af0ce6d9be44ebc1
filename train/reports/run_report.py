"""The report of a finished run: one HTML page with curves, confusion matrix, recall and calibration.

Knows log records and checkpoint descriptions. It must not know tensors or models.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaf_rt.system.files import write_whole
from train.loop.checkpoint import describe, find, load
from train.loop.run_log import read_log

PAGE = "report.html"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{background:#f6f6f6;padding:1rem;overflow:auto}"
)


def write_report(run: Path) -> Path:
    """Write curves.png, confusion.png and report.html into a run's folder, from its log and its checkpoint.

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
    pictures = [("Curves", curves)]
    metrics = meta["metrics"]
    if metrics:
        matrix = confusion_png(metrics["confusion"], meta["labels"])
        write_whole(run / "confusion.png", lambda f: f.write(matrix), parents=True)
        pictures.append(("Confusion matrix", matrix))
    page = _page(run.resolve().name, meta, pictures)
    write_whole(run / PAGE, lambda f: f.write(page.encode()), parents=True)
    return run / PAGE


def curves_png(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> bytes:
    """Draw loss terms, pseudo-labels, thresholds and validation accuracy.

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
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (losses, pseudo), (thresholds, accuracy) = figure.subplots(2, 2)
    x = [r["step"] for r in steps]
    for name in sorted({k for r in steps for k in r if k.startswith("loss")}):
        losses.plot(x, [_number(r, name) for r in steps], label=name)
    losses.set_title("loss terms")
    for name in ("coverage", "pseudo_accuracy"):
        if any(name in r for r in steps):
            pseudo.plot(x, [_number(r, name) for r in steps], label=name)
    pseudo.set_title("pseudo-labels: accepted share, correct share of these")
    pseudo.set_ylim(0, 1)
    for label, line in zip(labels, zip(*(r["thresholds"] for r in steps), strict=True), strict=bool(steps)):
        thresholds.plot(x, line, label=label)
    thresholds.set_title("confidence threshold by class")
    for name in ("accuracy", "balanced_accuracy"):
        accuracy.plot([r["epoch"] for r in epochs], [r["validation"][name] for r in epochs], marker=".", label=name)
    accuracy.set_title("validation accuracy of the EMA model")
    losses.set_xlabel("step")
    accuracy.set_xlabel("epoch")
    for axes in (losses, pseudo, thresholds, accuracy):
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


def _page(name: str, meta: dict[str, Any], pictures: Sequence[tuple[str, bytes]]) -> str:
    metrics, training = meta["metrics"], meta["training"]
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(name)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{html.escape(name)}</h1>")
    facts = {
        "method": f"{training['recipe']['method']['name']} ({training['recipe']['method']['mode']})",
        "backbone": meta["model"]["backbone"],
        **{part: str(training[part]) for part in ("labelled", "unlabelled", "validation")},
        "epochs, steps": f"{training['epochs_done']}, {training['step']}",
    }
    if metrics:
        facts["validation accuracy"] = f"{100 * metrics['accuracy']:.2f} % of {metrics['n']}"
        facts["balanced accuracy"] = f"{100 * metrics['balanced_accuracy']:.2f} %"
        facts["calibration error"] = f"{metrics['calibration_error']:.4f}"
    parts.append(_table(facts))
    if metrics:
        recall = {k: "-" if v is None else f"{100 * v:.1f} %" for k, v in metrics["recall"].items()}
        parts.append("<h2>Recall by class</h2>" + _table(recall))
    for title, png in pictures:
        data = base64.b64encode(png).decode()
        parts.append(
            f"<h2>{html.escape(title)}</h2><img alt='{html.escape(title)}' src='data:image/png;base64,{data}'>"
        )
    parts.append("<h2>Data</h2><ul>" + "".join(f"<li>{html.escape(n)}" for n in training["notes"]) + "</ul>")
    parts.append(f"<h2>Recipe</h2><pre>{html.escape(json.dumps(training['recipe'], indent=1))}</pre>")
    return "\n".join(parts) + "\n"


def _table(rows: dict[str, str]) -> str:
    cells = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(v)}" for k, v in rows.items())
    return f"<table>{cells}</table>"
