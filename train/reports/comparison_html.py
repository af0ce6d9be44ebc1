"""The comparison of a run with other models, and its wrong answers, as parts of the report's page.

Knows the result of a comparison. It must not know how it was measured.
"""

from __future__ import annotations

import base64
import html

import cv2

from train.reports.comparison import Comparison


def comparison_html(comparison: Comparison) -> str:
    """The accuracy of the run and of the other models as a table, and the verdicts as sentences."""
    heads = ("model", "accuracy", "balanced over the classes", "gained", "lost", "p")
    rows = [("this run", comparison.accuracy, comparison.balanced_accuracy, "", "", "")]
    rows += [
        (r.name, r.accuracy, r.balanced_accuracy, str(r.gained), str(r.lost), f"{r.p:.2g}") for r in comparison.rivals
    ]
    lines = ["<tr>" + "".join(f"<th>{head}" for head in heads)]
    for name, accuracy, balanced, *others in rows:
        cells = (name, f"{100 * accuracy:.1f} %", f"{100 * balanced:.1f} %", *others)
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells))
    verdicts = "".join(f"<li>{html.escape(line)}" for line in comparison.sentences())
    return (
        f"<h2>On {comparison.n} {comparison.pictures}</h2><table>{''.join(lines)}</table><ul>{verdicts}</ul>"
        "<p>Gained: pictures that only this run gets right. Lost: pictures that only the other model gets right. "
        "p: how likely so uneven a difference is if both are equally good (exact McNemar test).</p>"
    )


def wrong_html(comparison: Comparison) -> str:
    """The wrong answers with the largest shares, with their pictures."""
    figures = []
    for picture in comparison.wrong:
        answer = f"answer {picture.answer} {100 * picture.share:.0f} %"
        png = cv2.imencode(".png", picture.crop)[1].tobytes()
        caption = f"{html.escape(picture.label)}<br>{html.escape(answer)}"
        image = image_html(png, f"{picture.name}: {picture.label}, {answer}")
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    total = comparison.n - round(comparison.n * comparison.accuracy)
    return (
        f"<h2>Wrong answers</h2><p>{len(comparison.wrong)} of {total}, the most certain ones first. Some of the labels "
        "may be wrong: hold the mouse over a picture to see the name of its file.</p>" + "".join(figures)
    )


def image_html(png: bytes, title: str) -> str:
    """A PNG file as an image that the page contains.

    Args:
        png: The file.
        title: What it shows.
    """
    text, data = html.escape(title, quote=True), base64.b64encode(png).decode()
    return f'<img alt="{text}" title="{text}" src="data:image/png;base64,{data}">'
