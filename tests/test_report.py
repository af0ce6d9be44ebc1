"""The report's numbers, its file formats and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Leaf
from report_data import CLIP, load, recounted, scene, write_jsonl

from leaf_rt.cli.report import report_from_records
from leaf_rt.labels import FERPLUS8
from leaf_rt.render.report import report_html, trust
from leaf_rt.results.numbers import numbers
from leaf_rt.results.summary import Summary
from leaf_rt.sinks.csv import CsvSink
from leaf_rt.sinks.parquet import ParquetSink
from leaf_rt.types import SourceInfo


def collected(seconds: float, people: int = 3) -> Summary:
    summary = Summary(FERPLUS8)
    for frame, estimates in scene(seconds, people):
        summary.add(frame, estimates)
    summary.finish()
    return summary


def test_numbers_equal_those_counted_from_the_records(tmp_path: Path) -> None:
    records = load(write_jsonl(tmp_path / "a.jsonl", scene(60, 3)))
    found = numbers(collected(60), CLIP.name)
    wanted = recounted(records)
    assert {p["track_id"] for p in found["people"]} == set(wanted) == {1, 2, 3}
    for person in found["people"]:
        want = wanted[person["track_id"]]
        assert person["seconds"] == pytest.approx(want["seconds"], abs=2e-3)
        assert person["shares"] == pytest.approx(want["shares"], abs=2e-4)
        assert person["mean_share"] == pytest.approx(want["mean_share"], abs=2e-4)
        assert person["changes"] == want["changes"] > 5
        assert person["longest"]["dwell_s"] == pytest.approx(want["longest"], abs=1e-5)
        pairs = {(a, b): count for a, row in person["transitions"].items() for b, count in row.items()}
        assert pairs == want["transitions"]
    assert found["records"] == len(records)
    assert found["changes"] == sum(want["changes"] for want in wanted.values())
    assert found["events"] == sum(len(want["events"]) for want in wanted.values())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_records_of_every_format_give_the_numbers_of_the_run(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.leaf.{kind}"
    if kind == "jsonl":
        write_jsonl(path, scene(30, 3))
    else:
        with CsvSink(path, FERPLUS8) if kind == "csv" else ParquetSink(path, FERPLUS8) as sink:
            for frame, estimates in scene(30, 3):
                sink.write(CLIP, frame, estimates, 0.0)
    report, numbers_file, notes = report_from_records(path)
    assert (report.name, numbers_file.name, notes) == ("clip.leaf.html", "clip.leaf.summary.json", [])
    of_run = numbers(collected(30), CLIP.name)
    of_records = json.loads(numbers_file.read_text())
    for name in ("people", "transitions", "changes", "events", "records", "labels", "frames_with_faces"):
        assert of_records[name] == of_run[name], name
    assert of_records["frames"] is None


def test_a_second_report_keeps_what_the_run_knew(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "clip.leaf.jsonl", scene(10, 1))
    of_run = numbers(collected(10, 1), CLIP.name, frames=250, run={"version": "9", "created_at": "2026-01-02T03:04:05Z",
                     "model": {"name": "mine", "precision": "fp32", "metrics": {}}})  # fmt: skip
    (tmp_path / "clip.leaf.summary.json").write_text(json.dumps(of_run))
    report, numbers_file, _ = report_from_records(path)
    assert json.loads(numbers_file.read_text()) == of_run
    assert "mine, fp32" in report.read_text()
    write_jsonl(path, scene(9, 1))  # other records: the old numbers do not describe them
    _, numbers_file, _ = report_from_records(path)
    assert json.loads(numbers_file.read_text())["run"] is None


def test_an_incomplete_last_line_is_left_out(leaf: Leaf, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "clip.leaf.jsonl", scene(10, 2))
    whole = path.read_text()
    path.write_text(whole[:-40])
    done = leaf("report", path)
    assert done.code == 0, done.err
    assert "the last line (" in done.err
    assert "is incomplete and was left out" in (tmp_path / "clip.leaf.html").read_text()
    assert json.loads((tmp_path / "clip.leaf.summary.json").read_text())["records"] == whole.count("\n") - 1
    table = tmp_path / "t.csv"
    with CsvSink(table, FERPLUS8) as sink:
        for frame, estimates in scene(2, 2):
            sink.write(CLIP, frame, estimates, 0.0)
    table.write_text(table.read_text()[:-30])
    done = leaf("report", table)
    assert (done.code, "the last line is incomplete" in done.err) == (0, True)


def test_what_is_not_a_file_of_records_gives_one_sentence(leaf: Leaf, tmp_path: Path, clip: Path) -> None:
    good = write_jsonl(tmp_path / "good.jsonl", scene(2, 1)).read_text()
    lines = good.splitlines()
    nan = json.loads(lines[0]) | {"smoothed": dict.fromkeys(FERPLUS8, float("nan"))}
    bad = {
        "empty.jsonl": ("", "holds no record"),
        "text.jsonl": ("hello\n", "is not a file of records"),
        "object.jsonl": ('{"a": 1}\n', "line 1 is not a record of leaf-rt (no field 'source')"),
        "array.json": ("[1]\n", "is not a file of records"),
        "middle.jsonl": ("\n".join([*lines[:3], "{oops", *lines[3:], ""]), "line 4 is not a record"),
        "other.jsonl": (good + good.replace("clip.mp4", "b.mp4"), "several sources (b.mp4, clip.mp4)"),
        "twice.jsonl": (good + good, "several runs"),
        "label.jsonl": (good.replace('"emotion": "', '"emotion": "x'), "unknown label"),
        "nan.jsonl": (json.dumps(nan) + "\n", "field smoothed.neutral: wanted a number from 0 to 1, got nan"),
        "short.csv": ("schema_version,source\n1\n", "line 2 is not a record"),
        "cut.parquet": ("PAR1abcdefghijkl", "not a complete Parquet file"),
    }
    for name, (text, problem) in bad.items():
        (tmp_path / name).write_text(text)
        done = leaf("report", tmp_path / name)
        assert done.code == 15, (name, done.err)
        assert problem in done.sentence(), (name, done.err)
        assert not (tmp_path / name).with_suffix(".html").exists()
    assert leaf("report", clip).code == 15
    assert leaf("report", tmp_path / "none.jsonl").code == 3
    assert leaf("report", tmp_path).code == 3
    assert leaf("report", tmp_path / "good.jsonl", "--video", tmp_path / "none.mp4").code == 3
    assert leaf("report", tmp_path / "good.jsonl", "--out", tmp_path / "a.png").code == 9
    done = leaf("report", tmp_path / "other.jsonl", "--source", "b.mp4", "--out", tmp_path / "b.html")
    assert done.code == 0, done.err
    assert "b.mp4" in leaf("report", tmp_path / "other.jsonl", "--source", "c.mp4").sentence()


def test_the_page_is_safe_whatever_the_names_are() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>.mp4\u202e"
    labels = ("<b>a", "b & c")
    summary = Summary(labels)
    for frame, estimates in scene(3, 1):
        two = estimates.probs[:, :2] / estimates.probs[:, :2].sum(axis=1, keepdims=True)
        summary.add(frame, replace(estimates, probs=two, smoothed=two, emotion=two.argmax(axis=1)))
    summary.finish()
    page = report_html(summary, numbers(summary, evil))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<b>a" not in page
    assert "&lt;b&gt;a" in page
    assert "\\u202e" in page.partition("</title>")[0]


def test_the_page_asks_the_network_for_nothing() -> None:
    summary = collected(5)
    page = report_html(summary, numbers(summary, CLIP.name))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#x27;none&#x27;")
    assert "unsafe" not in policy[1]
    assert not re.findall(r'(?:src|href)="?https?:', page)
    assert " style=" not in page.partition("<body>")[2].partition("<script")[0]


def test_a_source_without_faces_has_a_page_too() -> None:
    summary = Summary(FERPLUS8)
    for frame, estimates in scene(1, 0):
        summary.add(frame, estimates)
    summary.finish()
    found = numbers(summary, "empty.mp4", frames=summary.frames)
    assert (found["people"], found["frames"], found["end"]) == ([], 25, 1.0)
    assert "No face was found" in report_html(summary, found)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (None, "do not name the model"),
        ({"name": "a", "metrics": {}}, "accuracy of this model was not measured"),
        (
            {"metrics": {"FERPlus, test": {"accuracy": 0.8455, "faces": 3546}}},
            "Accuracy of this model: 84.5% on FERPlus, test (3,546 faces)",
        ),
        ({"metrics": {"X": {"accuracy": 0.9}}}, "It was not measured whether a share"),
        ({"metrics": {"X": {"accuracy": 0.9, "calibration_error": 0.031}}}, "by 3.1 points"),
    ],
)
def test_the_text_on_trust_is_from_the_model(model: dict[str, Any] | None, text: str) -> None:
    found = trust(model)
    assert text in found
    assert found.endswith(".")
    assert max(map(len, re.split(r"\. ", found))) < 130


def test_events_and_people_beyond_the_limits_are_counted() -> None:
    summary = collected(300, 5)  # more rows than a report keeps points
    found = numbers(summary, CLIP.name)
    page = report_html(summary, found)
    assert found["events"] > 200
    assert f"200 of {found['events']:,} events" in page
    assert "Each point of the curves stands for" in page


def test_live_sources_with_stalls_give_the_same_numbers_again(tmp_path: Path) -> None:
    live = SourceInfo("cam", "0", "camera", 640, 360, is_live=True)
    frames = [(replace(f, source="cam", timestamp=f.timestamp + (7.0 if f.index > 100 else 0.0),
                       generation=int(f.index > 300), captured_at=1.7e9 + f.timestamp), e)
              for f, e in scene(20, 2)]  # fmt: skip
    summary = Summary(FERPLUS8, max_gap=1.0)
    for frame, estimates in frames:
        summary.add(frame, replace(estimates, timestamp=frame.timestamp))
    summary.finish()
    path = tmp_path / "cam.jsonl"
    write_jsonl(path, frames, live)
    _, numbers_file, _ = report_from_records(path)
    assert json.loads(numbers_file.read_text())["people"] == numbers(summary, "cam")["people"]


def test_a_person_who_comes_back_is_one_person(tmp_path: Path) -> None:
    """One person with two tracks, whom ``person_id`` joins; the time between the tracks does not count."""
    frames = []
    for frame, estimates in scene(20, 1):
        if 6.0 <= frame.timestamp < 9.0:
            continue
        ids = estimates.track_id + (10 if frame.timestamp >= 9.0 else 0)
        frames.append((frame, replace(estimates, track_id=ids, person_id=np.ones_like(ids))))
    summary = Summary(FERPLUS8)
    for frame, estimates in frames:
        summary.add(frame, estimates)
    summary.finish()
    (person,) = numbers(summary, CLIP.name)["people"]
    assert (person["person_id"], person["track_id"]) == (1, 1)
    assert person["seconds"] == pytest.approx(sum(1 for _, e in frames if len(e)) / 25, abs=0.5)
    page, numbers_file, _ = report_from_records(write_jsonl(tmp_path / "a.jsonl", frames))
    assert json.loads(numbers_file.read_text())["people"] == [person]
    assert page.read_text().count("<article") == 1
