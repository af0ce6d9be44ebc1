"""The content of records in every format."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
from sinks import make
from streams import INFO, LABELS, LIVE, estimates, frame

from leaf_rt.errors import DataError
from leaf_rt.results.records import column_names, flatten, record
from leaf_rt.sinks.csv import CsvSink
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.parquet import ParquetSink
from leaf_rt.sinks.reading import read_records
from leaf_rt.types import Frame

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "leaf_rt" / "record.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("info", "one"), [(INFO, frame(3)), (LIVE, frame(3, captured_at=1_700_000_000.0625, generation=2))]
)
def test_records_match_the_schema(info: object, one: Frame) -> None:
    made = record(info, one, estimates(one.timestamp, 2), 1, LABELS, 0.0123)  # type: ignore[arg-type]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(made)), SCHEMA)
    assert made["track_id"] == 2
    assert made["latency_ms"] == 12.3
    assert made["captured_at"] == (None if one.captured_at is None else "2023-11-14T22:13:20.062Z")


def test_the_schema_rejects_other_records() -> None:
    good = record(INFO, frame(0), estimates(0.0), 0, LABELS, 0.0)
    for change in ({"box": [1, 2, 3]}, {"pts_s": -1}, {"schema_version": 1}, {"source": "rtsp://u:p@cam/1"}, {"x": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **change}, SCHEMA)


def test_emotion_minus_one_is_uncertain() -> None:
    unclear = replace(estimates(0.0), emotion=np.array([-1]))
    assert record(INFO, frame(0), unclear, 0, LABELS, 0.0)["emotion"] == "uncertain"


def test_jsonl_writes_a_line_per_face_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with JsonlSink(path, LABELS) as sink:
        for index, faces in enumerate((2, 0, 1)):
            sink.write(INFO, frame(index), estimates(index / 25, faces), 0.01)
            rows = [json.loads(line) for line in path.read_text().splitlines()]  # before the sink is closed
            assert len(rows) == (2, 2, 3)[index]
    assert [(r["frame_index"], r["track_id"]) for r in rows] == [(0, 1), (0, 2), (2, 1)]
    for row in rows:
        jsonschema.validate(row, SCHEMA)


def test_csv_has_the_same_values(tmp_path: Path) -> None:
    with CsvSink(tmp_path / "r.csv", LABELS) as sink:
        sink.write(INFO, frame(7), estimates(0.28, 2), 0.01)
    with (tmp_path / "r.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    want = record(INFO, frame(7), estimates(0.28, 2), 1, LABELS, 0.01)
    assert len(rows) == 2
    assert [float(rows[1][k]) for k in ("x0", "y0", "x1", "y1")] == want["box"]
    assert {label: float(rows[1][f"smoothed_{label}"]) for label in LABELS} == want["smoothed"]
    assert (rows[1]["emotion"], rows[1]["captured_at"], rows[1]["frame_index"]) == ("happiness", "", "7")


def test_runs_without_faces_give_valid_empty_files(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv"):
        with make(kind, tmp_path / f"r.{kind}") as sink:  # type: ignore[attr-defined]
            sink.write(INFO, frame(0), estimates(0.0, 0), 0.0)
    assert (tmp_path / "r.jsonl").read_text() == ""
    assert (tmp_path / "r.csv").read_text().count("\n") == 1


def test_standard_output_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonlSink("-", LABELS) as sink:
        sink.write(INFO, frame(0), estimates(0.0), 0.0)
    os.write(1, b"after\n")
    first, after = capfd.readouterr().out.splitlines()
    assert json.loads(first)["track_id"] == 1
    assert after == "after"


def test_parquet_has_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    with ParquetSink(path, LABELS) as sink:
        for index in range(3000):
            sink.write(INFO, frame(index), estimates(index / 25, 2), 0.01)
        assert not path.exists()  # an incomplete Parquet file cannot be read
    table = pyarrow.parquet.read_table(path)
    assert (table.num_rows, tuple(table.column_names)) == (6000, column_names(LABELS))
    assert tuple(table.slice(5999, 1).to_pylist()[0].values()) == flatten(
        record(INFO, frame(2999), estimates(2999 / 25, 2), 1, LABELS, 0.01)
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["s3:x", "rtsp:", "hdfs:/a"])
def test_parquet_takes_no_name_for_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The library would ask the network for it."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.parquet")
    path.parent.mkdir(exist_ok=True)
    with ParquetSink(path, LABELS):
        pass
    with pytest.raises(DataError, match="no record"):
        read_records(path)


def test_parquet_without_faces_has_its_columns(tmp_path: Path) -> None:
    with ParquetSink(tmp_path / "r.parquet", LABELS):
        pass
    assert pyarrow.parquet.read_table(tmp_path / "r.parquet").num_rows == 0
