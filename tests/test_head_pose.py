"""The head pose, and its way into records and tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Leaf, records
from head_pose import of_pictures, of_projections, projected

import leaf_rt
from leaf_rt.faces.pose import head_pose
from leaf_rt.sinks.reading import read_records

SCHEMA = json.loads(Path(leaf_rt.__file__).with_name("record.schema.json").read_text())


@pytest.mark.parametrize(
    "angles", [[0, 0, 0], [40, 0, 0], [-40, 0, 0], [0, 25, 0], [0, -25, 0], [0, 0, 30], [20, -15, 25]]
)
def test_a_projection_gives_the_pose_back(angles: list[float]) -> None:
    assert head_pose(projected(np.array([angles])))[0] == pytest.approx(angles, abs=0.1)


def test_signs() -> None:
    right, up, clockwise = projected(np.array([[30, 0, 0], [0, 20, 0], [0, 0, 20]]))
    eyes, ears = slice(0, 2), slice(4, 6)
    assert right[2, 0] > right[eyes, 0].mean() + 100  # the tip of the nose
    assert up[2, 1] < up[ears, 1].mean()
    assert clockwise[1, 1] > clockwise[0, 1]  # the left eye of the person is right in the picture


def test_errors_stay_those_that_the_documentation_states() -> None:
    assert (of_projections(60, 0.02) < [3.2, 1.3, 1.1]).all()


def test_place_and_size_do_not_matter() -> None:
    points = projected(np.array([[20.0, 10.0, -5.0]]))
    assert head_pose(points * 0.01 + 500) == pytest.approx(head_pose(points), abs=0.1)


def test_no_faces_and_impossible_keypoints() -> None:
    assert head_pose(np.zeros((0, 6, 2), np.float32)).shape == (0, 3)
    bad = np.zeros((2, 6, 2), np.float32)
    bad[1] = np.nan
    assert np.isnan(head_pose(bad)).all()


def test_real_faces_mirrored_and_turned(media: Path) -> None:
    mirrored, turned = of_pictures(media)
    assert len(mirrored) >= 10
    assert (np.abs(mirrored).mean(axis=0) < 5).all()
    assert (np.abs(turned).mean(axis=0) < 5).all()


def test_records_and_tables_of_a_video_hold_the_pose_if_asked(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"faces.{kind}" for kind in ("jsonl", "csv", "parquet")}
    outputs = [argument for kind, path in files.items() for argument in (f"--{kind}", path)]
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--no-report", "--pose", *outputs)
    assert done.code == 0, done.err
    lines = records(files["jsonl"].read_text())
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    with files["csv"].open() as text:
        rows = list(csv.DictReader(text))
    table = pq.read_table(files["parquet"]).to_pylist()
    for name, limit in (("yaw", 45), ("pitch", 25), ("roll", 25)):
        values = [line[name] for line in lines]
        assert max(map(abs, values)) < limit  # a woman who looks down a little, and not into the camera
        assert [float(row[name]) for row in rows] == [row[name] for row in table] == values
    assert len(set(lines[0]) - set(SCHEMA["required"])) == 3
    for path in files.values():  # leaf-rt report reads them again
        (_, first), *_ = read_records(path).frames()
        assert first.pose.tolist() == [pytest.approx([lines[0][name] for name in ("yaw", "pitch", "roll")])]


def test_records_without_the_option_have_no_pose(leaf: Leaf, face: Path) -> None:
    done = leaf("image", face, "--no-save-picture", "--jsonl", "-")
    assert set(records(done.out)[0]) == set(SCHEMA["required"])
    done = leaf("image", face, "--no-save-picture", "--jsonl", "-", "--pose")
    assert set(records(done.out)[0]) == {*SCHEMA["required"], "yaw", "pitch", "roll"}


def test_python(clip: Path, face: Path, tmp_path: Path) -> None:
    with leaf_rt.Recognizer(backend="onnxruntime", pose=True) as recognizer:
        (found,) = recognizer.image(face)
        assert found.yaw is not None
        assert abs(found.roll or 99) < 25
        result = recognizer.video(clip)
        table = result.to_pandas()
        assert np.isfinite(table[["yaw", "pitch", "roll"]].to_numpy()).all()
        with result.save(tmp_path)["csv"].open() as text:
            assert [float(row["yaw"]) for row in csv.DictReader(text)] == pytest.approx(table["yaw"], abs=0.06)
