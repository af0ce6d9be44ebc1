"""Output on narrow terminals, without colors, and in ASCII."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from leaf_rt.cli import console
from leaf_rt.cli.progress import ProgressBars
from leaf_rt.diagnostics.doctor import LIMITED, MISSING, OK, Finding
from leaf_rt.stream.stats import RunStats, SourceStats
from leaf_rt.types import SourceInfo

FOUND = [
    Finding("model leaf-mobilefacenet.onnx", OK, "8 classes"),
    Finding("window", LIMITED, "no display", "nothing to do"),
    Finding("mediapipe", MISSING, "gone", "pip install mediapipe"),
]


def words(text: str) -> str:
    return "".join(text.split())


def test_brackets_in_names_are_not_markup() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    stats = RunStats([SourceStats(SourceInfo("[bold] clip [/x].mp4", "clip", "file", 640, 360, frame_count=3))])
    with ProgressBars(out) as bars:
        bars.update(stats)
    assert isinstance(out.file, io.StringIO)
    assert "[bold] clip [/x].mp4" in out.file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 80])
def test_the_doctor_shows_all_findings_on_a_narrow_terminal(width: int) -> None:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    console.findings(out, FOUND)
    assert isinstance(out.file, io.StringIO)
    printed = words(out.file.getvalue())
    for finding in FOUND:
        assert words(finding.found) in printed


def test_an_ascii_terminal_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    out = console.console(stderr=False)
    console.findings(out, FOUND)
    console.facts(out, {"video": "Bäche.mp4"})
    out.file.flush()
    text = raw.getvalue().decode("ascii")
    assert "-> pip install mediapipe" in text
    assert "B\\xe4che.mp4" in text
