"""Recognizer: pictures, crops and whole videos, with real faces."""

from __future__ import annotations

import collections
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import DEMO, demo_frames, empty_frames, write_clip
from commands import Leaf, records
from PIL import Image

import leaf_rt
from leaf_rt import errors
from leaf_rt.models.calibration import Calibration
from leaf_rt.recognizer import tables
from leaf_rt.results.records import column_names, flatten


@pytest.fixture(scope="module")
def recognizer() -> Iterator[leaf_rt.Recognizer]:
    with leaf_rt.Recognizer(backend="onnxruntime") as found:
        yield found


@pytest.fixture(scope="module")
def result(recognizer: leaf_rt.Recognizer) -> leaf_rt.VideoResult:
    return recognizer.video(DEMO, end=1.0)


def equal(a: leaf_rt.Faces, b: leaf_rt.Faces) -> bool:
    return bool((a.xyxy == b.xyxy).all() and (a.probs == b.probs).all())


def test_a_face_of_a_picture(recognizer: leaf_rt.Recognizer, face: Path) -> None:
    faces = recognizer.image(face)
    assert len(faces) == 1
    one = faces[0]
    assert isinstance(one, leaf_rt.Face)
    assert list(one.probs) == list(recognizer.labels) == list(faces.labels)
    assert sum(one.probs.values()) == pytest.approx(1, abs=1e-5)
    assert one.emotion == max(one.probs, key=lambda label: one.probs[label]) == faces.emotion[0]
    assert one.xyxy == tuple(faces.xyxy[0].tolist())
    assert one.confidence > 0.6
    assert (one.track_id, one.detected, one.low_quality, one.smoothed) == (1, True, False, one.probs)
    assert list(faces) == [one]
    assert faces[-1] == one
    assert len(faces[:0]) == 0
    with pytest.raises(IndexError):
        faces[1]


def test_every_form_of_a_picture_gives_the_same(recognizer: leaf_rt.Recognizer, face: Path) -> None:
    expected = recognizer.image(str(face))
    forms: list[Any] = [face, face.read_bytes(), cv2.imread(str(face)), Image.open(face)]
    assert [equal(recognizer.image(form), expected) for form in forms] == [True] * 4


@pytest.mark.slow
def test_pil_pictures_are_turned_and_laid_on_white(recognizer: leaf_rt.Recognizer, media: Path, tmp_path: Path) -> None:
    clear = media / "Image_with_alpha.png"
    from_file, from_pil = recognizer.image(clear), recognizer.image(Image.open(clear))
    assert from_file.image is not None
    assert from_pil.image is not None
    assert np.abs(from_file.image.astype(int) - from_pil.image.astype(int)).max() <= 1
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(media / "angry.jpg").save(turned, exif=exif)
    with Image.open(turned) as pil:
        assert equal(recognizer.image(turned), recognizer.image(pil))


def test_grey_pictures(recognizer: leaf_rt.Recognizer, face: Path) -> None:
    grey = cv2.imread(str(face), cv2.IMREAD_GRAYSCALE)
    assert len(recognizer.image(grey)) == 1
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert equal(recognizer.image(deep), recognizer.image(grey))


def test_many_faces(recognizer: leaf_rt.Recognizer, media: Path) -> None:
    faces = recognizer.image(media / "multi_face.jpg")
    assert len(faces) >= 4
    assert (np.diff(faces.xyxy[:, 0]) >= 0).all()
    table = faces.to_pandas()
    assert table.shape == (len(faces), 4 + 4 + 2 * len(faces.labels) + 3)
    assert faces.to_polars().shape == table.shape
    assert table["prob_happiness"].tolist() == pytest.approx([f.probs["happiness"] for f in faces])
    page = faces._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 1 + len(faces)
    assert page.count("happiness") >= len(faces)
    assert faces.plot()._repr_png_().startswith(b"\x89PNG")


def test_supervision(recognizer: leaf_rt.Recognizer, face: Path) -> None:
    supervision = pytest.importorskip("supervision")
    faces = recognizer.image(face)
    detections = faces.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert (detections.xyxy == faces.xyxy).all()
    assert detections.tracker_id.tolist() == [1]
    assert [faces.labels[k] for k in detections.class_id] == faces.emotion == list(detections["class_name"])
    unsure = leaf_rt.Recognizer(backend="onnxruntime", uncertain_below=1.0)
    with unsure:
        assert unsure.image(face).to_supervision().class_id.tolist() == [len(faces.labels)]
        assert unsure.image(face)[0].emotion == "uncertain"


def test_a_picture_without_faces(recognizer: leaf_rt.Recognizer) -> None:
    faces = recognizer.image(np.zeros((120, 160, 3), np.uint8))
    assert len(faces) == 0
    assert faces.probs.shape == (0, len(faces.labels))
    assert "no face found" in faces._repr_html_()
    assert len(faces.to_pandas()) == 0
    assert len(recognizer.crops([])) == 0


def test_crops_are_found_aligned_or_taken_whole(recognizer: leaf_rt.Recognizer, media: Path) -> None:
    whole = recognizer.image(media / "multi_face.jpg")
    assert whole.image is not None
    boxes = whole.xyxy.round().astype(int).tolist()
    cut = [whole.image[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
    blank = np.full((40, 30), 128, np.uint8)
    faces = recognizer.crops([*cut, blank])
    assert faces.detected.tolist() == [True] * len(cut) + [False]
    assert faces.emotion[:-1] == whole.emotion
    assert faces[-1].xyxy == (0, 0, 30, 40)
    assert faces[-1].low_quality
    assert faces[-1].confidence == 0
    assert faces._repr_html_().count("<img") == len(faces)
    with pytest.raises(ValueError, match="crops"):
        faces.annotated()


@pytest.mark.slow
def test_aligned_crops_are_only_resized(recognizer: leaf_rt.Recognizer) -> None:
    from leaf_rt.backends.parity import golden_faces

    crops = golden_faces(64)[:40]
    faces = recognizer.crops(crops, aligned=True)
    assert len(faces) == 40
    assert not faces.detected.any()
    answers = recognizer._parts.backend.infer(crops).probs
    assert (faces.probs.argmax(1) == answers.argmax(1)).all()  # the shares are calibrated
    expected = Calibration.of(recognizer._parts.backend.spec).shares(answers, faces.quality)
    np.testing.assert_allclose(faces.probs, expected, atol=1e-5)
    larger = [crop.repeat(2, 0).repeat(3, 1) for crop in crops]
    assert np.allclose(recognizer.crops(larger, aligned=True).probs, faces.probs, atol=1e-5)


def test_a_video_gives_the_records_of_the_command(recognizer: leaf_rt.Recognizer, clip: Path, leaf: Leaf) -> None:
    done = leaf("video", clip, "--backend", "onnxruntime", "--jsonl", "-", "--no-save-video", "--no-plot")
    assert done.code == 0
    commands, ours = records(done.out), list(recognizer.video(clip).records())
    assert len(ours) == 30
    assert [{k: v for k, v in r.items() if k != "latency_ms"} for r in ours] == [
        {k: v for k, v in r.items() if k != "latency_ms"} for r in commands
    ]


def test_columns_of_a_video(result: leaf_rt.VideoResult) -> None:
    rows = result.columns
    assert len(rows) == len(result) == 24
    assert rows.time.tolist() == pytest.approx([n / 24 for n in range(24)], abs=2e-3)
    assert rows.probs.shape == (24, len(result.labels))
    assert np.isnan(rows.captured_at).all()
    assert set(rows.track_id.tolist()) == {1}
    assert (rows.latency > 0).all()


def test_summary_and_timeline(result: leaf_rt.VideoResult) -> None:
    found = json.loads(json.dumps(result.summary))
    assert (found["source"], found["frames"], found["frames_with_faces"]) == ("demo.mp4", 24, 24)
    shown = collections.Counter(record["emotion"] for record in result.records())
    shares = {name: count / shown.total() for name, count in shown.items()}
    # A share of the time, not of the frames.
    assert found["people"][0]["shares"] == pytest.approx(shares, abs=0.5 / 24)
    assert result.plot()._repr_png_() == result._repr_png_()
    assert "24 frames" in repr(result)


def test_data_frames(result: leaf_rt.VideoResult) -> None:
    text = io.StringIO(newline="")
    names = column_names(result.labels)
    csv.writer(text).writerows([names, *(flatten(record) for record in result.records())])
    table = result.to_pandas()
    assert tuple(table.columns) == names == tuple(result.to_polars().columns)
    read = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert table["smoothed_sadness"].tolist() == pytest.approx([float(r["smoothed_sadness"]) for r in read], abs=1e-5)
    assert table["emotion"].tolist() == [r["emotion"] for r in read]


def test_saved_files(recognizer: leaf_rt.Recognizer, clip: Path, leaf: Leaf, tmp_path: Path) -> None:
    found = recognizer.video(clip, save_video=tmp_path / "marked.mp4")
    files = found.save(tmp_path / "out")
    assert {kind: path.name for kind, path in files.items()} == {
        "records": "face.leaf.jsonl",
        "csv": "face.leaf.csv",
        "timeline": "face.leaf.png",
        "video": "marked.mp4",
    }
    assert all(path.stat().st_size > 1000 for path in files.values())
    assert records(files["records"].read_text()) == list(found.records())
    assert len(files["csv"].read_text().splitlines()) == 31
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"face.leaf.jsonl", "face.leaf.csv", "face.leaf.png"}
    with pytest.raises(errors.OutputError):
        recognizer.video(clip, save_video=clip)


def test_a_video_without_faces(recognizer: leaf_rt.Recognizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "empty.mp4", empty_frames(5))
    found = recognizer.video(clip, progress=True)
    assert (len(found), found.summary["frames"], found.summary["people"]) == (0, 5, [])
    assert list(found.records()) == []
    assert found.to_pandas().empty
    assert found.save(tmp_path)["records"].read_text() == ""


def test_a_damaged_video_gives_a_warning(recognizer: leaf_rt.Recognizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "cut.mp4", demo_frames(30), movflags="faststart")
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 2 // 3])
    assert "fresh copy" in recognizer.video(clip).warnings[0]


def test_the_progress_bar(recognizer: leaf_rt.Recognizer, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recognizer.video(clip, progress=True)
    assert "30/30" in capsys.readouterr().err
    recognizer.video(clip)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("picture", "error", "text"),
    [
        ("nowhere.jpg", errors.NotFound, "nowhere.jpg"),
        (b"this is no picture", errors.NotAVideo, "18 bytes"),
        (b"", errors.NotAVideo, "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), errors.CodecError, "damaged"),
        (np.zeros((10, 10, 3), np.float32), ValueError, r"uint8 \(H, W, 3\).*got float32 \(10, 10, 3\)"),
        (np.zeros((10, 10, 4), np.uint8), ValueError, r"got uint8 \(10, 10, 4\)"),
        (np.zeros((0, 10, 3), np.uint8), ValueError, r"got uint8 \(0, 10, 3\)"),
        (None, TypeError, "got NoneType"),
        (Image.new("F", (20, 20)), errors.CodecError, "mode F"),
    ],
)
def test_bad_pictures(recognizer: leaf_rt.Recognizer, picture: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        recognizer.image(picture)


def test_bad_options(recognizer: leaf_rt.Recognizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="face_range: wanted 'auto', 'short' or 'full', got 'far'"):
        leaf_rt.Recognizer(face_range="far")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classify_fps: wanted a finite number >= 0, got nan"):
        leaf_rt.Recognizer(classify_fps=float("nan"))
    with pytest.raises(ValueError, match="threads: wanted a number from 0 to 1024, got 100000"):
        leaf_rt.Recognizer(threads=100_000)
    with pytest.raises(TypeError, match=r"max_faces: wanted an integer, got 1\.5"):
        leaf_rt.Recognizer(max_faces=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uncertain_below: wanted a number from 0 to 1, got 2"):
        leaf_rt.Recognizer(uncertain_below=2)
    with pytest.raises(TypeError, match="smooth: wanted a number, got 'x'"):
        leaf_rt.Recognizer(smooth="x")  # type: ignore[arg-type]
    for name in ("cuts", "pose"):
        with pytest.raises(TypeError, match=f"{name}: wanted True or False, got 'yes'"):
            leaf_rt.Recognizer(**{name: "yes"})
    for name in ("landmarks", "reid_model"):
        with pytest.raises(TypeError, match=f"{name}: wanted a path or None, got 5"):
            leaf_rt.Recognizer(**{name: 5})
    (tmp_path / "bad.task").write_text("no network")
    with pytest.raises(errors.ModelError, match=r"^landmarks: .*bad\.task is not"):
        leaf_rt.Recognizer(landmarks=tmp_path / "bad.task")
    with (
        leaf_rt.Recognizer(reid_model=tmp_path / "bad.task") as late,  # opened with the first video
        pytest.raises(errors.ModelError, match=r"^reid_model: .*bad\.task is no"),
    ):
        next(iter(late.stream([np.zeros((64, 64, 3), np.uint8)], fps=10)))
    with pytest.raises(errors.BackendError, match=r"^backend abacus: unknown"):
        leaf_rt.Recognizer(backend="abacus")
    with pytest.raises(errors.NotFound):
        leaf_rt.Recognizer(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="list of pictures"):
        recognizer.crops("a.jpg")
    with pytest.raises(TypeError, match="list of pictures"):
        recognizer.crops(np.zeros((9, 9, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"stream\(\), or give duration"):
        recognizer.video("rtsp://camera/1")
    with pytest.raises(ValueError, match="stride"):
        recognizer.video("clip.mp4", stride=0)
    with pytest.raises(errors.OutputError, match="folder"):
        recognizer.video(DEMO, save_video=tmp_path / "none" / "a.mp4", end=0.2)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, result: leaf_rt.VideoResult) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(errors.BackendError, match=r"to_pandas\(\) needs pandas; install it with: pip install pandas"):
        result.to_pandas()
    with pytest.raises(errors.BackendError, match="needs nothing_like_it"):
        tables.optional("nothing_like_it", "to_x()")


def test_a_closed_recognizer_refuses(model: Path) -> None:
    recognizer = leaf_rt.Recognizer(model, backend="onnxruntime")
    assert "ONNX Runtime" in repr(recognizer)
    recognizer.close()
    recognizer.close()
    assert "closed" in repr(recognizer)
    for call in (recognizer.image, recognizer.stream, recognizer.video, recognizer.crops):
        with pytest.raises(ValueError, match="it is closed"):
            call(DEMO)  # type: ignore[operator]


def test_faces_are_hidden_in_the_written_video(recognizer: leaf_rt.Recognizer, clip: Path, tmp_path: Path) -> None:
    recognizer.video(clip, save_video=tmp_path / "hidden.mp4", blur=True)
    hidden = cv2.VideoCapture(str(tmp_path / "hidden.mp4")).read()[1]
    assert len(recognizer.image(hidden)) == 0


def test_a_truncated_pil_image_is_damaged(recognizer: leaf_rt.Recognizer, face: Path) -> None:
    from PIL import Image

    jpeg = io.BytesIO()
    Image.open(face).convert("RGB").save(jpeg, "JPEG")
    half = Image.open(io.BytesIO(jpeg.getvalue()[: len(jpeg.getvalue()) // 2]))
    with pytest.raises(errors.CodecError, match="damaged"):
        recognizer.image(half)


def test_a_very_thin_crop_costs_no_memory(recognizer: leaf_rt.Recognizer) -> None:
    faces = recognizer.crops([np.zeros((40_000, 2, 3), np.uint8)])
    assert [face.detected for face in faces] == [False]
