"""The files of one source: by default, by option, and under which name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leaf_rt.errors import OutputError
from leaf_rt.sinks.config import STDOUT, OutputConfig, SourceOutputs, prepare_paths
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.types import SourceInfo

FILE = SourceInfo("a.mp4", "films/a.mp4", "file", 640, 360, path=Path("films/a.mp4"))
LOOP = replace(FILE, endless=True)
CAMERA = SourceInfo("front door", "0", "camera", 640, 360, is_live=True)


@pytest.mark.parametrize(
    ("info", "options", "files"),
    [
        (FILE, {}, ("films/a.leaf.mp4", "films/a.leaf.jsonl", "films/a.leaf.png")),
        (FILE, {"out": Path("out")}, ("out/a.leaf.mp4", "out/a.leaf.jsonl", "out/a.leaf.png")),
        (FILE, {"annotated": False, "records": False, "timeline": False}, (None, None, None)),
        (FILE, {"timeline_file": Path("t.png")}, ("films/a.leaf.mp4", "films/a.leaf.jsonl", "t.png")),
        (LOOP, {}, (None, None, None)),
        (LOOP, {"out": Path("out")}, (None, "out/a.leaf.jsonl", "out/a.leaf.png")),
        (LOOP, {"annotated": True}, ("films/a.leaf.mp4", None, None)),
        (CAMERA, {"annotated": True}, ("front-door.leaf.mp4", None, None)),
        (CAMERA, {"out": Path("out")}, (None, "out/front-door.leaf.jsonl", "out/front-door.leaf.png")),
        (CAMERA, {"timeline_file": Path("t.png")}, (None, None, "t.png")),
        (
            replace(FILE, name="hall"),
            {},
            ("films/hall.leaf.mp4", "films/hall.leaf.jsonl", "films/hall.leaf.png"),
        ),
    ],
)
def test_the_files_of_a_source(info: SourceInfo, options: dict[str, Any], files: tuple[str | None, ...]) -> None:
    annotated, records, timeline = (None if name is None else Path(name) for name in files)
    found = OutputConfig(**options, report=False).for_source(info, OutputPaths())
    assert found == SourceOutputs(annotated, records, timeline)


@pytest.mark.parametrize(
    ("info", "options", "report", "subtitles"),
    [
        (FILE, {}, "films/a.leaf.html", None),
        (FILE, {"out": Path("out"), "subtitles": True}, "out/a.leaf.html", "out/a.leaf.vtt"),
        (FILE, {"report": False, "subtitles": True}, None, "films/a.leaf.vtt"),
        (CAMERA, {}, None, None),
        (CAMERA, {"subtitles": True}, None, "front-door.leaf.vtt"),
        (CAMERA, {"out": Path("out")}, "out/front-door.leaf.html", None),
    ],
)
def test_the_report_and_the_subtitles_of_a_source(
    info: SourceInfo, options: dict[str, Any], report: str | None, subtitles: str | None
) -> None:
    found = OutputConfig(**options).for_source(info, OutputPaths())
    assert found.report == (None if report is None else Path(report))
    assert found.numbers == (None if report is None else Path(report).with_suffix(".summary.json"))
    assert found.subtitles == (None if subtitles is None else Path(subtitles))


def test_a_picture_has_another_suffix() -> None:
    found = OutputConfig(timeline=False, report=False).for_source(replace(FILE, kind="picture"), OutputPaths(), ".jpg")
    assert found == SourceOutputs(Path("films/a.leaf.jpg"), Path("films/a.leaf.jsonl"))


def test_paths_are_checked_before_anything_is_created(tmp_path: Path) -> None:
    outputs = OutputConfig(out=tmp_path / "new", csv=tmp_path / "new" / "a-2.leaf.jsonl")
    with pytest.raises(OutputError, match="--csv"):
        prepare_paths(outputs, [], [FILE, FILE])
    assert list(tmp_path.iterdir()) == []
    paths = prepare_paths(outputs, [], [FILE])
    assert (tmp_path / "new").is_dir()
    assert outputs.for_source(FILE, paths).records == tmp_path / "new" / "a.leaf.jsonl"  # not reserved by the check


def test_standard_output_is_no_file() -> None:
    outputs = OutputConfig(jsonl=STDOUT, csv=Path("a.csv"), parquet=Path("a.parquet"))
    assert outputs.on_stdout
    assert outputs.files == [
        ("--csv", Path("a.csv")),
        ("--parquet", Path("a.parquet")),
    ]
