"""The measurements of false faces and of resting faces, on real pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import demo_frames

from experiments import false_faces, resting
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.types import Frame

ROWS = [("a/Ann_0001.jpg", "anger"), ("a/Ann_0002.jpg", "neutral"), ("a/Ann_0003.jpg", "neutral")]


def test_faces_and_false_faces_are_counted(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = cv2.imread(str(media / "multi_face.jpg"))
    cv2.imwrite(str(tmp_path / "five.png"), cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    monkeypatch.setattr(sys, "argv", ["false_faces", str(tmp_path), "--parts", "40"])
    assert false_faces.main() == 0
    printed = capsys.readouterr().out
    assert "five.png: 5 faces of 40 px and more, 0 refused" in printed
    parts = re.search(r"false faces: parts (\d+), found \d+, labelled without the score \d+, labelled \d+", printed)
    assert parts is not None
    assert 0 < int(parts[1]) < 40  # the others would have shown a face


def test_parts_show_no_face(media: Path) -> None:
    with ImageFaceDetector() as detector:
        parts = list(false_faces.parts_without_a_face(media / "neutral.jpeg", 20, detector))
        again = list(false_faces.parts_without_a_face(media / "neutral.jpeg", 20, detector))
    assert 0 < len(parts) < 20  # some would have shown her face
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_a_clip_of_one_person_is_one_track_and_its_labels_are_read() -> None:
    backend = open_backend(RecognitionConfig().model, "onnxruntime", 1)
    with ImageFaceDetector() as detector:
        stills = [resting.framed(frame, detector) for frame in demo_frames(130)[::60]]
    smiling = [still for still in stills if still is not None]
    assert len(smiling) == len(stills)
    without, corrected = resting.watch(smiling, 1.0, RecognitionConfig(range="short", cuts=False), backend)
    backend.close()
    assert len(without) == len(corrected) == len(stills) - 1
    assert {track for _, track in [*without, *corrected]} == {1}
    assert all(-1 <= label < len(backend.spec.labels) for label, _ in without)


def test_the_first_neutral_photograph_is_the_rest() -> None:
    assert resting.photographs(ROWS) == [ROWS[1], ROWS[0], ROWS[2]]
    assert not resting.chose_the_settings(ROWS)
    assert resting.chose_the_settings([*ROWS, ("a/Ann_0004.jpg", "neutral")])


def test_people_are_read_by_their_names(tmp_path: Path) -> None:
    rows = [*ROWS, ("b/Bo_0001.jpg", "neutral"), ("c/scene.jpg", "neutral")]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    assert resting.people_of(tmp_path) == {"Ann": ROWS}


@pytest.mark.slow
def test_a_profile_in_the_street_keeps_its_label(media: Path) -> None:
    backend = open_backend(RecognitionConfig().model, "onnxruntime", 1)
    options = PipelineOptions(classify_fps=0.0)
    pipeline = build_pipeline(RecognitionConfig(pipeline=options, max_classify_fps=0.0), backend)
    refused, seen = [], 0
    with av.open(str(media / "street_1080p.mp4")) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number == 29:  # from here on the back of a head is followed
                break
            image = np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)
            faces = pipeline.step(Frame(image, number, number / 25, "street"))
            seen += int(faces.classified.sum())
            refused += faces.track_id[faces.classified & (faces.quality == 0)].tolist()
    pipeline.close()
    backend.close()
    assert seen > 100
    assert refused == []
