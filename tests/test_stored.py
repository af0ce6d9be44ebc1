"""Records and numbers from files: every field is checked once, and the error names it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_data import CLIP, load, scene, write_jsonl

from leaf_rt.cli.report import report_from_records
from leaf_rt.errors import DataError, ModelError
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import check_metrics
from leaf_rt.sinks.csv import CsvSink
from leaf_rt.sinks.reading import read_records
from leaf_rt.sinks.stored import checked_numbers, checked_record
from leaf_rt.text import from_table_cell, table_cell
from leaf_rt.types import Estimates, Frame, SourceInfo

SHARES = dict.fromkeys(FERPLUS8, 0.125)
GOOD = {
    "schema_version": 2, "source": "a.mp4", "frame_index": 3, "pts_s": 0.12, "captured_at": "2026-01-02T03:04:05.678Z",
    "generation": 0, "shot": 0, "track_id": 1, "person_id": 1, "box": [1, 2.5, 3, 4], "confidence": 0.9,
    "emotion": "fear", "probs": SHARES, "smoothed": SHARES, "classified": True, "poor": False, "yaw": 1.5,
    "pitch": None, "roll": -3.0, "latency_ms": 4.0,
}  # fmt: skip
WHOLE = (None, "1", 1.0, -1, True, 2**60, [], float("nan"))
NUMBER = (None, "1", -0.5, True, 1e300, float("nan"), float("inf"), [], {}, 10**400)
NAME = (None, 1, "", "\ud800", "a" * 5000, [])
BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("frame_index", "generation", "shot", "track_id", "person_id"), WHOLE),
    **dict.fromkeys(("pts_s", "confidence"), NUMBER),
    **dict.fromkeys(("source", "emotion"), NAME),
    "captured_at": (1, "", "now", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00Z", []),
    "box": (None, [], [1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("inf")], "1234", {"a": 1}),
    **dict.fromkeys(("probs", "smoothed"), (None, [], {}, {"a": 1.0}, SHARES | {"fear": 2}, SHARES | {"fear": None},
                                            SHARES | {"uncertain": 0.0}, SHARES | {"": 0.0},
                                            {str(n): 0.0 for n in range(300)})),
    **dict.fromkeys(("classified", "poor"), (None, 0, "True", [])),
    **dict.fromkeys(("yaw", "pitch", "roll"), ("1", 400, float("nan"), [], True)),
}  # fmt: skip
OPTIONAL = ("shot", "person_id", "yaw", "pitch", "roll")  # not in records of version 1


def test_a_good_record_passes() -> None:
    found = checked_record(GOOD)
    assert found["captured_at"] == pytest.approx(1767323045.678)
    assert {n: found[n] for n in GOOD if n in found and n != "captured_at"} == {
        n: v for n, v in GOOD.items() if n not in ("schema_version", "latency_ms", "captured_at")
    }
    old = checked_record({name: value for name, value in GOOD.items() if name not in OPTIONAL} | {"track_id": 7})
    assert (old["shot"], old["person_id"], "yaw" in old) == (0, 7, False)


@pytest.mark.parametrize("name", sorted(BAD))
def test_every_field_is_checked(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(ValueError, match=f"field .*{name}") as caught:
            checked_record(GOOD | {name: value})
        assert len(str(caught.value)) < 250
    if name not in OPTIONAL:
        with pytest.raises(ValueError, match=f"no field '{name}'"):
            checked_record({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("row", [None, [], "x", 1, [[]] * 3])
def test_what_is_no_object_is_no_record(row: object) -> None:
    with pytest.raises(ValueError, match="no object"):
        checked_record(row)


def test_the_error_names_file_line_and_field(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", scene(1, 1))
    records = load(path)
    del records[9]["frame_index"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=r"a\.jsonl: line 10 is not a record of leaf-rt \(no field 'frame_index'\)"):
        report_from_records(path)
    path.write_text("x" * (1 << 20))
    with pytest.raises(DataError):
        list(read_records(path).frames())
    path.write_text(json.dumps(GOOD) + "\n" + " " * (2 << 20) + "\n")
    with pytest.raises(DataError, match=r"line 2 .*over 1 MiB long"):
        list(read_records(path).frames())


def test_a_csv_file_names_the_field_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvSink(path, FERPLUS8) as sink:
        for frame, estimates in scene(1, 1):
            sink.write(CLIP, frame, estimates, 0.0)
    rows = list(csv.reader(path.read_text().splitlines()))
    for column, value, field in (("pts_s", "x", "pts_s"), ("x0", "nan", "box"), ("track_id", "", "track_id"),
                                 ("poor", "maybe", "poor"), ("prob_fear", "-1", "probs.fear")):  # fmt: skip
        bad = [list(row) for row in rows]
        bad[3][rows[0].index(column)] = value
        with path.open("w", newline="") as f:
            csv.writer(f, lineterminator="\n").writerows(bad)
        with pytest.raises(DataError, match=f"line 4 is not a record of leaf-rt .field {field}:"):
            list(read_records(path).frames())


@pytest.mark.parametrize("name", ["=1+2.mp4", "+x", "-x", "@x", "'=x", "''-x", "'x", "plain", "\t=x"])
def test_no_name_is_a_formula_in_a_table(name: str, tmp_path: Path) -> None:
    cell = table_cell(name)
    assert cell[0] not in "=+-@\t"
    assert from_table_cell(cell) == name
    source = SourceInfo(name, name, "file", 640, 360)
    with CsvSink(tmp_path / "a.csv", ("a", "b")) as sink:
        shares = np.array([[0.25, 0.75]], np.float32)
        ids, yes = np.array([1], np.int64), np.ones(1, np.bool_)
        boxes = np.array([[-5.0, 0.0, 9.0, 9.0]], np.float32)
        sink.write(source, Frame(np.zeros((0, 0, 3), np.uint8), 0, 0.0, name), Estimates(
            0.0, ids, boxes, shares[:, 0], shares, shares, ids, yes, yes, boxes), 0.0)  # fmt: skip
    row = next(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert (row["source"], row["x0"]) == (cell, "-5.0")  # a number stays a number
    assert read_records(tmp_path / "a.csv").source == name


def test_numbers_of_a_run_are_taken_over_only_if_they_are_right(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "clip.leaf.jsonl", scene(2, 1))
    model = {"name": "m", "precision": "fp32", "metrics": {"A": {"accuracy": 0.5, "faces": 10}}}
    run = {"version": "1", "created_at": "2026-01-02T03:04:05Z", "model": model}
    report_from_records(path)
    numbers = tmp_path / "clip.leaf.summary.json"
    good = json.loads(numbers.read_text()) | {"frames": 50, "run": run}
    assert checked_numbers(good)["run"] == run
    for bad in (
        {"frames": -1}, {"start": None}, {"end": float("nan")}, {"start": 9.0}, {"run": None}, {"run": {}},
        {"run": run | {"version": 3}}, {"run": run | {"x": "\ud800"}}, {"run": run | {"x": float("inf")}},
        {"run": run | {"model": model | {"metrics": {"A": {"accuracy": "high"}}}}},
        {"run": run | {"model": model | {"metrics": [1]}}}, {"run": run | {"model": model | {"name": ""}}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            checked_numbers(good | bad)
        numbers.write_text(json.dumps(good | bad))
        report_from_records(path)
        assert json.loads(numbers.read_text())["run"] is None
    numbers.write_text(json.dumps(good))
    page, _, _ = report_from_records(path)
    assert "Accuracy of this model: 50.0%" in page.read_text()


def test_records_name_only_clips_beside_them(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").touch()
    folder = tmp_path / "records"
    folder.mkdir()
    for source, shown in (("clip.mp4", True), ("../secret.mp4", False), (str(tmp_path / "secret.mp4"), False),
                          ("x" * 3000, False), ("a\0b", False)):  # fmt: skip
        (folder / "clip.mp4").touch()
        records = [record | {"source": source} for record in load(write_jsonl(folder / "a.jsonl", scene(1, 1)))]
        (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        page, _, _ = report_from_records(folder / "a.jsonl")
        assert ("<video" in page.read_text()) == shown, source


@pytest.mark.parametrize(
    "bad", [{"accuracy": "x"}, {"accuracy": 2}, {"faces": -1}, {"calibration_error": float("nan")}]
)
def test_metrics_of_a_model_are_numbers(bad: dict[str, Any], tmp_path: Path) -> None:
    from engines_fakes import tiny_onnx

    with pytest.raises(ValueError, match=f"metrics, A: {next(iter(bad))} must be"):
        check_metrics({"A": bad})
    check_metrics({"A": {"accuracy": None, "other": "x"}, "B": "words"})
    with pytest.raises(ModelError, match=r"ModelSpec\.metrics"):
        tiny_onnx(tmp_path / "m.onnx", metrics={"A": bad})
