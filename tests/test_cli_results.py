"""Further outputs and the precision, on real videos."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Leaf

from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, save_spec, sha256_of, variant_path

QUIET = ("--no-save-video", "--no-plot", "--no-jsonl")


@pytest.mark.slow
def test_events_and_parquet(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    events, table = tmp_path / "events.jsonl", tmp_path / "faces.parquet"
    done = leaf("video", clip, *QUIET, "--events", events, "--parquet", table)
    assert done.code == 0, done.err
    shown = [json.loads(line) for line in events.read_text().splitlines()]
    assert shown[0]["start_s"] == 0
    starts = {event["event_id"] for event in shown if event["phase"] == "start"}
    ends = [event for event in shown if event["phase"] == "end"]
    assert starts == {event["event_id"] for event in ends}
    assert all(event["dwell_s"] == pytest.approx(event["end_s"] - event["start_s"], abs=1e-5) for event in ends)
    assert shown[-1]["end_s"] == pytest.approx(29 / 24, abs=0.05)
    rows = pq.read_table(table)
    assert rows.num_rows == 30
    assert set(rows.column("source").to_pylist()) == {"face.mp4"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "faces.parquet"]


def test_stdout_carries_only_events(leaf: Leaf, clip: Path) -> None:
    done = leaf("video", clip, *QUIET, "--events", "-")
    assert done.code == 0, done.err
    assert all("dwell_s" in json.loads(line) for line in done.out.splitlines())
    assert "on screen" in done.err


def test_only_one_output_can_use_stdout(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    assert leaf("video", clip, "--jsonl", "-", "--events", "-").code == 2
    assert leaf("video", clip, "--parquet", "-").code == 2
    done = leaf("video", clip, *QUIET, "--events", tmp_path / "none" / "a.jsonl")
    assert done.code == 9
    assert "folder does not exist" in done.sentence()


def test_parquet_without_its_library_names_the_extra(
    leaf: Leaf, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = leaf("video", clip, *QUIET, "--parquet", tmp_path / "a.parquet")
    assert done.code == 10
    assert 'pip install ".[parquet]"' in done.sentence()


def test_parquet_of_pictures(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    table = tmp_path / "faces.parquet"
    assert leaf("image", face, "--no-save-picture", "--no-jsonl", "--parquet", table).code == 0
    assert pq.read_table(table).num_rows == 1


def test_int8_uses_the_quantized_file_of_the_model(leaf: Leaf, clip: Path, face: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(DEFAULT_MODEL, model)
    spec = load_spec(DEFAULT_MODEL)
    save_spec(spec, model)
    requested = ("--model", model, "--backend", "onnxruntime", "--precision", "int8")
    for command in (("video", clip, *QUIET), ("image", face, "--no-save-picture", "--no-jsonl")):
        done = leaf(*command, *requested)
        assert done.code == 10
        assert "--precision int8" in done.sentence()
    own = variant_path(model, "int8")
    shutil.copy(DEFAULT_MODEL, own)
    save_spec(replace(spec, precision="int8", parent=spec.sha256, sha256=sha256_of(own)), own)
    done = leaf("video", clip, *QUIET, *requested)
    assert done.code == 0, done.err
    assert "int8" in next(line for line in done.err.splitlines() if line.startswith("precision"))
    assert leaf("image", face, "--no-save-picture", "--no-jsonl", *requested).code == 0
    assert leaf("webcam", "--precision", "int4").code == 2
