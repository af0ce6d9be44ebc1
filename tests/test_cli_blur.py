"""`--blur`: no detected face is written or shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import write_clip
from commands import Leaf, records
from fakes import FakeDetector, face_at, join

from leaf_rt.faces.video_detector import HIDE_PERIOD
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.types import Detections


def test_blur_hides_faces_in_the_annotated_video(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    for name, option in (("plain", ()), ("hidden", ("--blur",))):
        leaf("video", clip, "--out", tmp_path / name, "--no-plot", *option)
    box = records((tmp_path / "plain" / "face.leaf.jsonl").read_text())[15]["box"]
    x0, y0, x1, y1 = np.array(box).clip(0).astype(int).tolist()
    inner = slice((y0 * 3 + y1) // 4, (y0 + 3 * y1) // 4), slice((x0 * 3 + x1) // 4, (x0 + 3 * x1) // 4)

    def detail(folder: str) -> float:
        reader = cv2.VideoCapture(str(tmp_path / folder / "face.leaf.mp4"))
        for _ in range(16):
            _, image = reader.read()
        return float(np.abs(cv2.Laplacian(image[inner], cv2.CV_32F)).mean())

    assert detail("hidden") < detail("plain") / 2


def chessboard() -> np.ndarray:
    """A picture (240, 320, 3) with high contrast everywhere."""
    y, x = np.mgrid[0:240, 0:320] // 4
    return np.dstack([(x + y) % 2 * 255] * 3).astype(np.uint8)


def test_blur_hides_faces_found_only_once_and_searches_every_frame(
    leaf: Leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsure(FakeDetector):
        """Finds a face of medium confidence at a different place in every frame."""

        def warm_up(self) -> None:
            pass

    places = [(20 + 100 * (i % 3), 20 + 90 * (i // 3)) for i in range(6)]
    costs = []

    class Watched(Pipeline):
        def __init__(self, *parts: Any, **options: Any) -> None:
            super().__init__(*parts, **options)
            costs.append(self.options)

    finds = [face_at(x, y, confidence=0.7) for x, y in places]
    periods = []

    def detector(*, scan_period: float, **_: Any) -> Unsure:
        periods.append(scan_period)
        return Unsure(finds)

    monkeypatch.setattr("leaf_rt.recognition.factory.VideoFaceDetector", detector)
    monkeypatch.setattr("leaf_rt.recognition.factory.Pipeline", Watched)
    film = write_clip(tmp_path / "hall.mp4", [chessboard()] * 6)
    assert leaf("video", film, "--blur", "--no-plot", "--backend", "onnxruntime").code == 0
    reader = cv2.VideoCapture(str(tmp_path / "hall.leaf.mp4"))
    for x0, y0 in places:
        _, image = reader.read()
        assert image[y0 : y0 + 60, x0 : x0 + 60].std() < 40  # of the chessboard's 127
    assert [cost.may_skip for cost in costs] == [False]
    assert periods == [HIDE_PERIOD]


def test_blur_hides_faces_that_max_faces_excludes(leaf: Leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(FakeDetector):
        def __enter__(self) -> Two:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def detect(self, image: np.ndarray) -> Detections:  # type: ignore[override]
            return join(face_at(20, 40), face_at(150, 40, 120))

    monkeypatch.setattr("leaf_rt.cli.images.ImageFaceDetector", lambda **_: Two([]))
    cv2.imwrite(str(tmp_path / "two.png"), chessboard())
    done = leaf("image", tmp_path / "two.png", "--blur", "--max-faces", 1, "--backend", "onnxruntime")
    assert done.code == 0, done.err
    assert len(records((tmp_path / "two.leaf.jsonl").read_text())) == 1
    assert cv2.imread(str(tmp_path / "two.leaf.jpg"))[40:100, 20:80].std() < 40
