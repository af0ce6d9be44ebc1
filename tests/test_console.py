"""Output on narrow terminals, without colors, and in ASCII."""

from __future__ import annotations

import errno
import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from leaf_rt.cli import console
from leaf_rt.cli.progress import ProgressBars
from leaf_rt.diagnostics.doctor import LIMITED, MISSING, OK, Finding
from leaf_rt.stream.stats import RunStats, SourceStats
from leaf_rt.types import Estimates, SourceInfo

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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files", "font.ttf"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        cv2.error("OpenCV(5.1.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
)
def test_what_has_run_out_is_no_bug(error: Exception) -> None:
    found = console.system_error(error)
    assert found is not None
    assert found.exit_code == 17
    assert console.system_error(RuntimeError("another")) is None


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


def test_the_table_of_faces_says_which_answer_is_uncertain() -> None:
    out = Console(file=io.StringIO(), width=100, color_system=None)
    probs = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    estimates = Estimates(
        timestamp=0.0,
        seen=np.zeros((0, 4), np.float32),
        track_id=np.array([1, 2], np.int64),
        xyxy=np.tile(np.array([[0, 0, 9, 9]], np.float32), (2, 1)),
        confidence=np.ones(2, np.float32),
        probs=probs,
        smoothed=probs,
        emotion=np.array([-1, 0], np.int64),
        classified=np.ones(2, np.bool_),
        low_quality=np.zeros(2, np.bool_),
    )
    console.faces(out, estimates, ("neutral", "sadness"))
    assert isinstance(out.file, io.StringIO)
    first, second = out.file.getvalue().splitlines()[-2:]
    assert "uncertain: neutral 60%  sadness 40%" in first
    assert "uncertain" not in second
