"""Draws the timeline: for each person, the probabilities over time and the shown emotion as a band.

Uses matplotlib's object interface, never the global state of pyplot. Does not know sources.
"""

from __future__ import annotations

import io
import math
import warnings
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaf_rt.errors import BackendError
from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.results.summary import Person, Summary

if TYPE_CHECKING:  # loaded where something is drawn, after the run: it would delay the first record by half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "the timeline needs Matplotlib; install it with: pip install matplotlib"
_INK, _PALE, _GROUND = "#20242a", "#7c838d", "#f4f5f7"
_DPI = 150
_WIDTH, _LANE, _HEAD, _FOOT = 10.0, 1.5, 0.98, 0.3  # inches: image, one person, title and legend, time axis
_LEFT, _RIGHT = 1.45, 0.3  # inches left and right of the lanes
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400)  # s
_BAND = 0.2  # height of the band of emotions / height of the probabilities


def can_draw() -> bool:
    """Whether Matplotlib is installed. Imports nothing: an installation that must stay small goes without it."""
    return find_spec("matplotlib") is not None


def timeline_png(summary: Summary, title: str, max_people: int = 8) -> bytes:
    """Draw the timeline of a finished summary.

    Args:
        summary: What to draw. If it has no people, the image says so.
        title: Title of the image, usually the name of the source.
        max_people: Maximum number of lanes. The people on screen longest get one; a note counts the others.

    Returns:
        The bytes of a PNG file.

    Raises:
        BackendError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as e:
        raise BackendError(MISSING) from e
    people = summary.people()
    lanes = people[:max_people]
    height = _HEAD + _LANE * max(1, len(lanes)) + _FOOT
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    start, end = summary.start, max(summary.end, summary.start + 1e-3)
    for number in range(max(1, len(lanes))):
        bottom = height - _HEAD - _LANE * (number + 1) + 0.16
        axes = figure.add_axes(
            (_LEFT / _WIDTH, bottom / height, 1 - (_LEFT + _RIGHT) / _WIDTH, (_LANE - 0.3) / height),
            xlim=(start, end),
            ylim=(-_BAND - 0.1, 1.0),
        )
        last = number == max(1, len(lanes)) - 1
        _frame(axes, last)
        if lanes:
            _lane(axes, lanes[number], summary, end - start)
    for axes in figure.axes:
        axes.vlines(summary.cuts, 0.0, 1.0, colors=_INK, linewidth=0.6, alpha=0.6, zorder=3)
    if not lanes:
        figure.axes[0].text(0.5, 0.5, "no face found", transform=figure.axes[0].transAxes, ha="center", va="center",
                            color=_PALE, fontsize=13)  # fmt: skip
    _head(figure, height, title, summary, len(people) - len(lanes))
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # such a letter is drawn as a box
        figure.savefig(out, format="png", metadata={"Title": title, "Software": "leaf-rt"})
    return out.getvalue()


def _color(label: str) -> tuple[float, float, float]:
    red, green, blue = rgb(label)
    return red / 255, green / 255, blue / 255


def _style(label: str) -> dict[str, Any]:
    """Return the style of a label's patch. Only "uncertain" is hatched."""
    hatch = {"hatch": "/////", "edgecolor": "white"} if label == UNCERTAIN else {"edgecolor": "none"}
    return {"facecolor": _color(label), "linewidth": 0, **hatch}


def _head(figure: Figure, height: float, title: str, summary: Summary, left_out: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    more = left_out + summary.people_forgotten
    seconds = summary.end - summary.start
    facts = [clock(seconds), f"{summary.frames:,} frames"]
    if more:
        facts.append(f"{more} more {'person' if more == 1 else 'people'}, on screen for a shorter time, not shown")
    x = 0.3 / _WIDTH
    figure.text(x, 1 - 0.34 / height, _short(title, 50), fontsize=13, fontweight="bold", color=_INK, va="center",
                parse_math=False)  # fmt: skip
    figure.text(1 - _RIGHT / _WIDTH, 1 - 0.34 / height, "  ·  ".join(facts), fontsize=8.5, color=_PALE, va="center",
                ha="right")  # fmt: skip
    names = [*summary.labels, UNCERTAIN]
    handles: list[Patch | Line2D] = [Patch(**_style(name)) for name in names]
    if summary.cuts:
        names.append("cut")
        handles.append(Line2D([], [], marker="|", linestyle="none", color=_INK, markersize=9, alpha=0.6))
    figure.legend(
        handles, names, loc="center left", bbox_to_anchor=(x - 0.008, 1 - 0.72 / height), ncol=len(names),
        frameon=False, fontsize=8.5, labelcolor=_INK, handlelength=0.9, handleheight=0.9, handletextpad=0.45,
        columnspacing=1.3,
    )  # fmt: skip


def _frame(axes: Axes, last: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set_facecolor(_GROUND)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([0, 0.5, 1], labels=["0", "50", "100%"])
    axes.tick_params(length=0, labelsize=7.5, labelcolor=_PALE, pad=3)
    low, high = axes.get_xlim()
    step = next((s for s in _STEPS if (high - low) / s <= 12), (high - low) / 10)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, step)))
    axes.grid(axis="x", color="white", linewidth=1.2)
    axes.set_axisbelow(True)
    if not last:
        axes.tick_params(labelbottom=False)
    axes.axhline(-0.05, color="white", linewidth=3)


def _lane(axes: Axes, person: Person, summary: Summary, span: float) -> None:
    """Draw one person: stacked probabilities, and below them the band of shown emotions. Nothing reaches over a cut."""
    from matplotlib.patches import Rectangle

    labels = summary.labels
    bounds = np.array([-np.inf, *summary.cuts, np.inf])
    # The middle of an interval may lie before a cut whose first frame is in it.
    shots = np.searchsorted(bounds, person.times + summary.resolution / 2 - 1e-6)
    pixels = (_WIDTH - _LEFT - _RIGHT) * _DPI
    for part in _segments(person.times, shots):
        low, high = bounds[shots[part][0] - 1], bounds[shots[part][0]]
        times, curve = np.clip(person.times[part], low, high), person.curve[part]
        step = float(np.median(np.diff(person.times))) if len(person.times) > 1 else span
        half = max(min(step, span) / 2, span / pixels)
        times = np.concatenate([[max(times[0] - half, low)], times, [min(times[-1] + half, high)]])
        curve = np.concatenate([curve[:1], curve, curve[-1:]])
        axes.stackplot(times, curve.T, colors=[_color(name) for name in labels], linewidth=0)
        for first, stop in _runs(person.emotion[part]):
            label = labels[person.emotion[part][first]] if person.emotion[part][first] >= 0 else UNCERTAIN
            t = times[1:-1]
            x0 = times[0] if first == 0 else (t[first - 1] + t[first]) / 2
            x1 = times[-1] if stop == len(t) else (t[stop - 1] + t[stop]) / 2
            axes.add_patch(Rectangle((x0, -_BAND - 0.1), x1 - x0, _BAND, **_style(label)))
            if (x1 - x0) / span * (_WIDTH - _LEFT - _RIGHT) > 0.07 * len(label):
                dark = np.dot(_color(label), (0.299, 0.587, 0.114)) > 0.47
                axes.text((x0 + x1) / 2, -_BAND / 2 - 0.105, label, ha="center", va="center", fontsize=7.5,
                          color=_INK if dark else "white", clip_on=True)  # fmt: skip
    where = axes.transAxes
    x = -(_LEFT - 0.3) / (_WIDTH - _LEFT - _RIGHT)
    axes.text(x, 0.93, f"Person {person.person_id}", transform=where, fontsize=10, fontweight="bold", color=_INK,
              va="top")  # fmt: skip
    lines = [clock(person.seconds), *(f"{name} {share:.0%}" for name, share in person.shares(labels).items())]
    axes.text(x, 0.74, "\n".join(lines[:4]), transform=where, fontsize=7.5, color=_PALE, va="top", linespacing=1.45)


def _segments(times: NDArray[np.float64], shots: NDArray[np.int64]) -> list[slice]:
    """Split ascending times (T,) at cuts, and where a step is much longer than usual: the person was absent."""
    if len(times) < 2:
        return [slice(0, len(times))]
    steps = np.diff(times)
    starts = np.flatnonzero((steps > max(0.25, 3.0 * float(np.median(steps)))) | (np.diff(shots) > 0)) + 1
    return [slice(a, b) for a, b in pairwise([0, *starts.tolist(), len(times)])]


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return start and end of every run of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    return list(pairwise([0, *cuts.tolist(), len(values)]))


def _tick(seconds: float, step: float) -> str:
    return f"{seconds:g} s" if step < 10 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def clock(seconds: float) -> str:
    """Format a duration: 4.2 s, 12:07 min, 3:04:59 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[1 - limit :]
