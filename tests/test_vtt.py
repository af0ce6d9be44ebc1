"""Subtitles of the shown expressions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_data import CLIP, load, recounted, scene, write_jsonl
from streams import INFO, LABELS, estimates, frame

from leaf_rt.labels import FERPLUS8
from leaf_rt.sinks.vtt import VttSink, clock


def cues(path: Path) -> list[tuple[float, float, str]]:
    """Start, end and text of every cue; the file must have exactly this form."""
    head, *blocks = path.read_text(encoding="utf-8").strip("\n").split("\n\n")
    assert head == "WEBVTT"
    found = []
    for block in blocks:
        times, text = block.split("\n")
        start, end = re.fullmatch(r"(\d\d:\d\d:\d\d\.\d{3}) --> (\d\d:\d\d:\d\d\.\d{3})", times).groups()  # type: ignore[union-attr]
        seconds = [sum(float(p) * f for p, f in zip(t.split(":"), (3600, 60, 1), strict=True)) for t in (start, end)]
        found.append((*seconds, text))
    return found  # type: ignore[return-value]


def test_one_cue_per_stretch_and_person(tmp_path: Path) -> None:
    records = recounted(load(write_jsonl(tmp_path / "r.jsonl", scene(60, 3))))
    path = tmp_path / "a.vtt"
    with VttSink(path, FERPLUS8) as sink:
        for one, faces in scene(60, 3):
            sink.write(CLIP, one, faces, 0.0)
    found = cues(path)
    wanted = sorted(
        (round(start, 3), round(max(end, start + 0.04), 3), f"Person {person}: {label}")
        for person, want in records.items()
        for label, start, end, _ in want["events"]
    )
    assert sorted(found) == wanted
    assert [start for start, _, _ in found] == sorted(start for start, _, _ in found)
    assert all(end > start for start, end, _ in found)


def test_a_single_person_has_no_number_and_cues_appear_as_they_end(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    with VttSink(path, LABELS) as sink:
        for index, emotion in enumerate([1, 1, -1, 3]):
            sink.write(INFO, frame(index, index / 10), replace(estimates(index / 10), emotion=np.array([emotion])), 0.0)
        assert cues(path) == [(0.0, 0.2, "happiness"), (0.2, 0.3, "uncertain")]
    assert cues(path)[2:] == [(0.3, 0.34, "sadness")]


def test_a_person_recognized_late_is_no_second_person(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    with VttSink(path, LABELS) as sink:
        for k in range(60):
            track, person = np.array([1 if k < 20 else 2]), np.array([1 if k < 20 or k > 30 else 2])
            sink.write(INFO, frame(k), replace(estimates(k / 25), track_id=track, person_id=person), 0.0)
    assert not any("Person" in text for _, _, text in cues(path))


def test_labels_are_escaped_and_an_empty_run_is_valid(tmp_path: Path) -> None:
    with VttSink(tmp_path / "a.vtt", ("a", "<i>b-->")) as sink:
        one = estimates(0.0)
        two = np.array([[0.1, 0.9]], np.float32)
        sink.write(INFO, frame(0), replace(one, probs=two, smoothed=two, emotion=np.array([1])), 0.0)
    assert cues(tmp_path / "a.vtt") == [(0.0, 0.04, "&lt;i&gt;b--&gt;")]
    VttSink(tmp_path / "b.vtt", LABELS).close()
    assert cues(tmp_path / "b.vtt") == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00.000"), (59.9996, "00:01:00.000"), (3725.5, "01:02:05.500")]
)
def test_times(seconds: float, text: str) -> None:
    assert clock(seconds) == text
