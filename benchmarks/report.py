"""Writes a comparison to a folder: a Markdown page, a plot, and one line of JSON. Must not know what is compared."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leaf_rt.system.files import make_folder, write_whole

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes:
        title: Heading above it.
        header: Names of the columns.
        rows: Texts.
        notes: Sentences below it.
    """

    title: str
    header: Row
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"## {self.title}", "", _line(self.header), "|---" * len(self.header) + "|"]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])


@dataclass(frozen=True, slots=True)
class Bars:
    """A panel of the plot: one bar per peer.

    Attributes:
        title: Above the panel.
        values: Peer to value.
        log: Logarithmic axis.
    """

    title: str
    values: Mapping[str, float]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A finished comparison.

    Attributes:
        name: Of the files: "speed" or "accuracy".
        title: Of the page.
        command: What made it.
        tables: Of the page.
        bars: Of the plot.
        data: What the line of JSON says besides machine and date.
        missing: Peer to the reason why it is not compared.
    """

    name: str
    title: str
    command: str
    tables: Sequence[Table]
    bars: Sequence[Bars]
    data: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Write NAME.md, NAME.png and NAME.json to a folder; return the line of JSON."""
        about = {"benchmark": self.name, "date": datetime.now(UTC).date().isoformat(), "machine": machine()}
        line = json.dumps(about | dict(self.data) | {"not_compared": dict(self.missing)}, ensure_ascii=False)
        page = [f"# {self.title}", "", f"{about['date']}, {about['machine']}:", "", f"    {self.command}", ""]
        page += [table.markdown() for table in self.tables]
        if self.missing:
            page += ["## Not compared", "", *(f"- {name}: {why}" for name, why in self.missing.items()), ""]
        make_folder(folder)
        write_whole(folder / f"{self.name}.md", "\n".join(page).encode())
        write_whole(folder / f"{self.name}.png", plot(self.bars))
        write_whole(folder / f"{self.name}.json", (line + "\n").encode())
        return line


def machine() -> str:
    """Processor and number of cores."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else model}, {len(os.sched_getaffinity(0))} cores"


def plot(panels: Sequence[Bars]) -> bytes:
    """Draw the panels side by side. Returns a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max((len(panel.values) for panel in panels), default=1)
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 0.34 * rows + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
        names = sorted(panel.values, key=lambda name: -panel.values[name])
        colors = ["#3b6ea5" if name.startswith("leaf-rt") else "#b8cbe0" for name in names]
        bars = axes.barh(names, [panel.values[name] for name in names], color=colors)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.invert_yaxis()
        axes.set_title(panel.title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if panel.log and panel.values:
            axes.set_xscale("log")
        axes.margins(x=0.15)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    return buffer.getvalue()


def number(value: float | None, digits: int = 1) -> str:
    """A number of a table; "-" for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _line(cells: Row) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
