"""Pictures that are hard to be honest about: false faces, and faces that fill the picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.media.images import read_picture
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.images import find_faces, recognize_image


def test_something_round_that_is_no_face_gets_no_label(media: Path) -> None:
    capture = cv2.VideoCapture(str(media / "no_face.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 24)
    image = capture.read()[1]
    backend = open_backend(DEFAULT_MODEL, "onnxruntime", 1)
    with ImageFaceDetector(min_confidence=0.5) as detector:  # less than usual: the detector takes an arch for a face
        found = recognize_image(image, detector, backend)
        faces = recognize_image(read_picture(media / "neutral.jpeg"), detector, backend)
    backend.close()
    assert len(found) == 1
    assert found.quality.tolist() == [0.0]
    assert found.emotion.tolist() == [-1]
    np.testing.assert_allclose(found.probs, 1 / 8, atol=1e-6)
    assert faces.quality.min() > 0.5
    assert faces.emotion.min() >= 0


def test_a_face_that_fills_the_picture_is_found_at_the_second_look(media: Path) -> None:
    image = read_picture(media / "angry.jpg")
    with ImageFaceDetector() as detector:
        x0, y0, x1, y1 = (round(float(v)) for v in detector.detect(image).xyxy[0])
        cut = round(0.08 * (x1 - x0))
        part = image[y0 + cut : y1 - cut // 2, x0 + cut : x1 - cut]
        tight = np.asarray(cv2.resize(part, (160, 167), interpolation=cv2.INTER_AREA), np.uint8)
        assert len(detector.detect(tight)) == 0
        found = find_faces(tight, detector)
        assert len(found) == 1
        width = tight.shape[1]
        assert found.xyxy[0, 2] - found.xyxy[0, 0] > width / 2
        eyes = found.keypoints[0, :2, 0] / width
        assert 0 < eyes.min() < eyes.max() < 1
        assert len(find_faces(np.full((200, 200, 3), 90, np.uint8), detector)) == 0
        assert len(find_faces(np.full((20, 900, 3), 90, np.uint8), detector)) == 0


@pytest.mark.parametrize("shape", [(31, 40), (16, 16), (1, 1)])
def test_tiny_pictures_get_no_second_look(shape: tuple[int, int]) -> None:
    with ImageFaceDetector() as detector:
        assert len(find_faces(np.zeros((*shape, 3), np.uint8), detector)) == 0
