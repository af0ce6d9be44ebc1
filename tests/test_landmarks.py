"""Blendshapes and head pose by MediaPipe's face_landmarker.task, which is not part of this repository.

The tests that need the file skip without it. The environment variable LEAF_RT_FACE_LANDMARKER names it; else it is
``shared/weights/face_landmarker.task`` beside the checkout.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Leaf, records
from landmark_measure import differences, first_faces, mediapipe_finds, pictures

import leaf_rt
from leaf_rt.errors import ModelError
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.landmarks import POINTS, FaceLandmarker
from leaf_rt.faces.pose import FIELD_OF_VIEW, landmark_pose
from leaf_rt.labels import BLENDSHAPES
from leaf_rt.models.landmarks import read_landmark_files
from leaf_rt.results.records import column_names, extra_columns, flatten, frame_records
from leaf_rt.sinks.csv import CsvSink
from leaf_rt.sinks.reading import read_records
from leaf_rt.types import Estimates, Frame, SourceInfo

SCHEMA = json.loads(Path(leaf_rt.__file__).with_name("record.schema.json").read_text())


@pytest.fixture(scope="module")
def task(request: pytest.FixtureRequest) -> Path:
    default = Path(__file__).parents[2] / "shared" / "weights" / "face_landmarker.task"
    path = Path(os.environ.get("LEAF_RT_FACE_LANDMARKER") or default)
    if not path.is_file():
        pytest.skip(f"needs MediaPipe's face_landmarker.task as {path}, or LEAF_RT_FACE_LANDMARKER")
    return path


@pytest.fixture(scope="module")
def landmarker(task: Path) -> FaceLandmarker:
    return FaceLandmarker(task)


@pytest.mark.slow
def test_landmarks_blendshapes_and_pose_are_those_of_mediapipe(
    task: Path, landmarker: FaceLandmarker, media: Path
) -> None:
    images = pictures(media)
    wanted = mediapipe_finds(task, images)
    detector = choose_detector("onnxruntime").open("short", 0.5)
    found = differences(landmarker, images, first_faces(detector.find(images)), wanted)
    assert len(found) == 9
    assert (found.max(axis=0) < [0.5, 0.02, 0.5]).all()  # px, blendshapes, degrees


def test_mirrored_face(landmarker: FaceLandmarker, face: Path) -> None:
    """Left becomes right, in landmarks, blendshapes and pose."""
    image = cv2.imread(str(face))
    detector = choose_detector("onnxruntime").open("short", 0.5)
    found = []
    for picture in (image, np.ascontiguousarray(image[:, ::-1])):
        (faces,) = detector.find([picture])
        found.append(landmarker.measure(picture, faces.xyxy[:1], faces.keypoints[:1]))
    (yaw, pitch, roll), turned = found[0].pose[0], found[1].pose[0]
    assert turned == pytest.approx([-yaw, pitch, -roll], abs=3)
    smile = [BLENDSHAPES.index(f"mouthSmile{side}") for side in ("Left", "Right")]
    assert found[1].blendshapes[0, smile[::-1]] == pytest.approx(found[0].blendshapes[0, smile], abs=0.2)
    eye = found[0].points[0, [33, 263], 0]  # outer corners of the right and the left eye
    assert sorted(image.shape[1] - found[1].points[0, [33, 263], 0]) == pytest.approx(sorted(eye), abs=3)


def test_where_no_face_is_nothing_is_measured(landmarker: FaceLandmarker) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    points = np.array([[[40, 50], [80, 50], [60, 70], [60, 85], [30, 60], [90, 60]]], np.float32)
    box = np.array([[20, 20, 100, 100]], np.float32)
    for keypoints in (points, points * np.float32(np.nan)):
        found = landmarker.measure(noise, box, keypoints)
        assert all(np.isnan(values).all() for values in (found.points, found.blendshapes, found.pose))
    assert landmarker.measure(noise, box[:0], points[:0]).points.shape == (0, POINTS, 3)


def test_records_and_tables_of_a_video(leaf: Leaf, clip: Path, task: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"faces.{kind}" for kind in ("jsonl", "csv", "parquet")}
    outputs = [argument for kind, path in files.items() for argument in (f"--{kind}", path)]
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--no-report", "--landmarks", task, *outputs)
    assert done.code == 0, done.err
    lines = records(files["jsonl"].read_text())
    for line in lines:
        jsonschema.validate(line, SCHEMA)
        assert tuple(line["blendshapes"]) == BLENDSHAPES
        assert abs(line["yaw"]) < 45
    with files["csv"].open() as text:
        rows = list(csv.DictReader(text))
    table = pq.read_table(files["parquet"]).to_pylist()
    for name in BLENDSHAPES:
        values = [line["blendshapes"][name] for line in lines]
        assert [float(row[f"blendshape_{name}"]) for row in rows] == values
        assert [row[f"blendshape_{name}"] for row in table] == values
    for path in files.values():  # leaf-rt report reads them again
        (_, first), *_ = read_records(path).frames()
        assert first.blendshapes[0] == pytest.approx(list(lines[0]["blendshapes"].values()))


def test_picture_and_python(leaf: Leaf, clip: Path, face: Path, task: Path, tmp_path: Path) -> None:
    done = leaf("image", face, "--no-save-picture", "--jsonl", "-", "--landmarks", task)
    (line,) = records(done.out)
    assert set(line) == {*SCHEMA["required"], "yaw", "pitch", "roll", "blendshapes"}
    with leaf_rt.Recognizer(backend="onnxruntime", landmarks=task) as recognizer:
        (found,) = recognizer.image(face)
        assert found.blendshapes == pytest.approx(line["blendshapes"], abs=1e-3)
        assert found.yaw == pytest.approx(line["yaw"], abs=0.1)
        assert "blendshape_jawOpen" in recognizer.image(face).to_pandas()
        result = recognizer.video(clip)
        table = result.to_pandas()
        columns = [f"blendshape_{name}" for name in BLENDSHAPES]
        with result.save(tmp_path)["csv"].open() as text:
            rows = list(csv.DictReader(text))
        assert [[float(row[name]) for name in columns] for row in rows] == [
            pytest.approx(row, abs=1e-4) for row in table[columns].to_numpy().tolist()
        ]


@pytest.mark.slow
def test_mediapipe_is_not_imported(face: Path, task: Path) -> None:
    program = (
        "import sys, leaf_rt\n"
        f"with leaf_rt.Recognizer(backend='onnxruntime', landmarks={str(task)!r}) as r:\n"
        f"    (found,) = r.image({str(face)!r})\n"
        "assert found.blendshapes\n"
        "assert not [name for name in sys.modules if name.startswith('mediapipe')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def estimates(shapes: np.ndarray) -> Estimates:
    """One face with these blendshapes."""
    share = np.array([[0.75, 0.25]], np.float32)
    return Estimates(
        0.0, np.array([1]), np.zeros((1, 4), np.float32), np.ones(1, np.float32), share, share, np.zeros(1, np.int64),
        np.ones(1, np.bool_), np.zeros(1, np.bool_), np.zeros((0, 4), np.float32), blendshapes=shapes,
    )  # fmt: skip


def test_what_could_not_be_measured_is_null_and_an_empty_cell(tmp_path: Path) -> None:
    info, frame, labels = SourceInfo("a", "a", "picture", 8, 8), Frame(np.zeros((8, 8, 3), np.uint8), 0, 0.0, "a"), "xy"
    unknown = estimates(np.full((1, len(BLENDSHAPES)), np.nan, np.float32))
    (record,) = frame_records(info, frame, unknown, labels, 0.0)
    assert record["blendshapes"] is None
    jsonschema.validate(record, SCHEMA)
    extra = extra_columns(pose=False, blendshapes=True)
    assert flatten(record)[-len(extra) :] == (None,) * len(BLENDSHAPES)
    assert len(flatten(record)) == len(column_names(labels, extra))
    with CsvSink(tmp_path / "a.csv", labels, extra) as sink:
        sink.write(info, frame, unknown, 0.0)
    ((_, read),) = read_records(tmp_path / "a.csv").frames()
    assert read.blendshapes.shape == (1, len(BLENDSHAPES))
    assert np.isnan(read.blendshapes).all()


@pytest.mark.parametrize("wrong", [{"jawOpen": 0.5}, 3, {**dict.fromkeys(BLENDSHAPES, 0.1), "jawOpen": 2}])
def test_records_with_wrong_blendshapes_are_refused(tmp_path: Path, leaf: Leaf, wrong: object) -> None:
    info, frame = SourceInfo("a", "a", "picture", 8, 8), Frame(np.zeros((8, 8, 3), np.uint8), 0, 0.0, "a")
    (record,) = frame_records(info, frame, estimates(np.full((1, len(BLENDSHAPES)), 0.5, np.float32)), "xy", 0.0)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**record, "blendshapes": wrong}) + "\n")
    done = leaf("report", path)
    assert done.code == 15
    assert "blendshapes" in done.err


def bad_files(folder: Path, task: Path | None) -> dict[str, Path]:
    """Files that are no face_landmarker.task, and what the message must say of each."""
    text, empty, zipped, other = (folder / f"{name}.task" for name in ("text", "empty", "zipped", "other"))
    text.write_text("not a model")
    empty.write_bytes(b"")
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"x")
    with zipfile.ZipFile(other, "w") as archive:
        for name in ("face_landmarks_detector.tflite", "face_blendshapes.tflite"):
            archive.writestr(name, b"TFL3" * 20)
        archive.writestr("geometry_pipeline_metadata_landmarks.binarypb", b"\x0a\xff\xff")
    found = {
        "there is no file": folder / "missing.task", "is a folder": folder, "another file": text, "or damaged": empty,
        "face_blendshapes.tflite": zipped, "it is another file": other,
    }  # fmt: skip
    if task is not None:
        whole = task.read_bytes()
        cut, flipped = folder / "cut.task", folder / "flipped.task"
        cut.write_bytes(whole[:-1000])
        middle = len(whole) // 3
        flipped.write_bytes(whole[:middle] + bytes(255 - b for b in whole[middle : middle + 50]) + whole[middle + 50 :])
        found |= {"--landmarks: " + str(cut): cut, "--landmarks: " + str(flipped): flipped}
    return found


def check_messages(leaf: Leaf, face: Path, files: dict[str, Path]) -> None:
    for text, path in files.items():
        done = leaf("image", face, "--no-save-picture", "--no-jsonl", "--landmarks", path)
        assert done.code in (3, 8), (path, done.err)
        assert text in " ".join(done.err.split()), (path, done.err)
        assert "Traceback" not in done.err


def test_bad_files_get_one_clear_sentence(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    check_messages(leaf, face, bad_files(tmp_path, None))


def test_damaged_files_get_one_clear_sentence(leaf: Leaf, face: Path, task: Path, tmp_path: Path) -> None:
    check_messages(leaf, face, bad_files(tmp_path, task))


def test_a_network_of_another_size_is_refused(task: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.task"
    with zipfile.ZipFile(task) as archive, zipfile.ZipFile(wrong, "w") as copy:
        for name in archive.namelist():
            other = "face_landmarks_detector.tflite" if name == "face_blendshapes.tflite" else name
            copy.writestr(name, archive.read(other))
    with pytest.raises(ModelError, match=r"--landmarks: .*wrong\.task is not"):
        FaceLandmarker(wrong)


def projected(face: np.ndarray, angles: tuple[float, float, float], width: int, height: int) -> np.ndarray:
    """Landmarks, (P, 3) px, of a face 50 cm in front of the camera that MediaPipe assumes. y up, z to the camera."""
    yaw, pitch, roll = np.radians(angles)
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn_z = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    x, y, z = (face @ (turn_y @ turn_x @ turn_z).T + (4.0, -3.0, -50.0)).T
    focal = height / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    return np.stack([width / 2 - x / z * focal, height / 2 + y / z * focal, -(z - z.mean()) / 50 * focal], axis=1)


def field(number: int, content: bytes) -> bytes:
    """A field of a message of Protocol Buffers; its content has less than 16 kB."""
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def face_file(folder: Path, *, method: int = zipfile.ZIP_STORED, flat: float = 1.0, weight: float = 1.0) -> Path:
    """A file whose networks are empty, with an average face of eight points."""
    points = np.zeros((8, 5), "<f4")
    points[:, :3] = [(x, y, flat * z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    mesh = b"".join(b"\x1d" + value.tobytes() for value in points.ravel())
    weights = [field(2, b"\x08" + bytes([n]) + b"\x15" + np.array(weight, "<f4").tobytes()) for n in range(8)]
    path = folder / "face.task"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("face_landmarks_detector.tflite", b"network" * 99)
        archive.writestr("face_blendshapes.tflite", b"network")
        archive.writestr("geometry_pipeline_metadata_landmarks.binarypb", field(1, mesh) + b"".join(weights))
    return path


@pytest.mark.slow
def test_a_network_that_ends_opencv_ends_nothing_else(leaf: Leaf, task: Path, face: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(task) as whole, zipfile.ZipFile(tmp_path / "bad.task", "w") as bad:
        for name in whole.namelist():
            content = whole.read(name)
            # Zeros in the tables of the network; a zip archive whose own sums are right.
            bad.writestr(
                name,
                content if name != "face_blendshapes.tflite" else content[:915_784] + bytes(200) + content[915_984:],
            )
    done = leaf("image", face, "--out", tmp_path / "out", "--landmarks", tmp_path / "bad.task")
    assert (done.code, "end OpenCV by signal" in done.sentence()) == (8, True)


def test_an_average_face_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    assert read_landmark_files(face_file(tmp_path)).weights.tolist() == [1.0] * 8
    for damage in ({"flat": 0.0}, {"weight": math.inf}, {"weight": math.nan}):
        with pytest.raises(ModelError, match="it is another file, or damaged"):
            read_landmark_files(face_file(tmp_path, **damage))


def test_damage_inside_a_part_and_a_number_without_an_end_are_one_sentence(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        path = face_file(tmp_path, method=method)
        content = bytearray(path.read_bytes())
        content[75:85] = b"\xff" * 10
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"not MediaPipe's face_landmarker\.task"):
            read_landmark_files(path)
    with zipfile.ZipFile(tmp_path / "long.task", "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"")
        archive.writestr("face_blendshapes.tflite", b"")
        archive.writestr("geometry_pipeline_metadata_landmarks.binarypb", b"\xff" * 300_000)
    begin = time.process_time()
    with pytest.raises(ModelError, match="it is another file, or damaged"):
        read_landmark_files(tmp_path / "long.task")
    assert time.process_time() - begin < 1  # s; 10 if the whole number were read


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 25), (-25, 10, -15)])
def test_a_projected_face_gives_its_pose_back(angles: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(200, 3))
    face = directions / np.linalg.norm(directions, axis=1, keepdims=True) * (7, 9, 6)
    face = face[face[:, 2] > 0]  # the front of an ellipsoid
    points = projected(face, angles, 640, 360)
    assert landmark_pose(points, face, np.ones(len(face)), 640, 360) == pytest.approx(angles, abs=1.5)
    assert np.isnan(landmark_pose(points * 0, face, np.ones(len(face)), 640, 360)).all()


def test_the_average_face_of_the_file(task: Path) -> None:
    files = read_landmark_files(task)
    assert files.face.shape == (POINTS - 10, 3)
    assert files.face[33, 0] < 0 < files.face[263, 0]  # outer corners of the right and the left eye
    assert files.weights.sum() > 0
