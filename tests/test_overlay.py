"""The overlay and hidden faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leaf_rt.labels import COLORS, FERPLUS8, UNCERTAIN
from leaf_rt.render.anonymize import Anonymizer, blur_faces
from leaf_rt.render.overlay import annotate, color_of
from leaf_rt.types import Estimates

HAPPY = FERPLUS8.index("happiness")


def people(boxes: list[list[float]], emotion: int = HAPPY, low_quality: bool = False, labels: int = 8) -> Estimates:
    n = len(boxes)
    probs = np.full((n, labels), 0.2 / (labels - 1), np.float32)
    probs[:, emotion] = 0.8
    return Estimates(
        timestamp=0.0,
        track_id=np.arange(1, n + 1),
        xyxy=np.array(boxes, np.float32).reshape(n, 4),
        confidence=np.ones(n, np.float32),
        probs=probs,
        smoothed=probs,
        emotion=np.full(n, emotion),
        classified=np.ones(n, np.bool_),
        low_quality=np.full(n, low_quality),
        seen=np.array(boxes, np.float32).reshape(n, 4),
    )


def random_image(height: int = 240, width: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def count_pixels(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == np.array(color, np.uint8)).all(axis=2).sum())


def test_annotate_draws_on_a_copy() -> None:
    image = random_image()
    before = image.copy()
    drawn = annotate(image, people([[100, 60, 180, 160]]), FERPLUS8)
    assert (image == before).all()
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_an_image_without_faces_is_not_changed() -> None:
    image = random_image()
    assert (annotate(image, people([]), FERPLUS8) == image).all()


@pytest.mark.parametrize("label", FERPLUS8)
def test_the_box_has_the_color_of_the_emotion(label: str) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, people([[100, 60, 180, 160]], FERPLUS8.index(label)), FERPLUS8)
    assert color_of(label) == COLORS[label][::-1]
    counts = {name: count_pixels(drawn, color_of(name)) for name in FERPLUS8}
    assert max(counts, key=lambda name: counts[name]) == label


def test_uncertain_has_its_own_color() -> None:
    drawn = annotate(np.zeros((240, 320, 3), np.uint8), people([[100, 60, 180, 160]], emotion=-1), FERPLUS8)
    assert count_pixels(drawn, color_of(UNCERTAIN)) > 100


def test_a_face_of_low_quality_has_a_hollow_label() -> None:
    image, boxes = np.zeros((240, 320, 3), np.uint8), [[100.0, 60.0, 180.0, 160.0]]
    full = count_pixels(annotate(image, people(boxes), FERPLUS8), color_of("happiness"))
    hollow = count_pixels(annotate(image, people(boxes, low_quality=True), FERPLUS8), color_of("happiness"))
    assert hollow < full / 2


def test_probabilities_are_bars_if_there_is_room_else_a_stripe() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    for boxes in ([[100.0, 60.0, 180.0, 160.0]], [[20.0 + 90 * i, 90.0, 60.0 + 90 * i, 130.0] for i in range(3)]):
        drawn = annotate(image, people(boxes), FERPLUS8)
        lacking = [name for name in FERPLUS8 if count_pixels(drawn, color_of(name)) == 0]
        assert lacking == []


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 60, 60],
        [300, 200, 400, 300],
        [-100, -100, 1000, 1000],
        [500, 500, 600, 600],
        [-90, -90, -10, -10],
        [100, 100, 100, 100],
        [180, 160, 100, 60],
        [np.nan, 0, 10, 10],
        [0, 0, np.inf, 10],
        [0, 0, 319.6, 239.6],
    ],
)
@pytest.mark.parametrize("blur", [False, True])
def test_boxes_outside_or_not_finite_are_ignored(box: list[float], blur: bool) -> None:
    drawn = annotate(random_image(), people([box, [100, 60, 180, 160]]), FERPLUS8, blur=blur)
    assert count_pixels(drawn, color_of("happiness")) > 50


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (17, 400), (400, 9), (1080, 1920)])
def test_any_image_size(height: int, width: int) -> None:
    drawn = annotate(random_image(height, width), people([[0, 0, width, height], [1, 1, 5, 5]]), FERPLUS8, blur=True)
    assert drawn.shape == (height, width, 3)


def test_labels_of_another_model() -> None:
    drawn = annotate(random_image(), people([[100, 60, 180, 160]], emotion=0, labels=2), ("calm", "tense"))
    assert drawn.shape == (240, 320, 3)
    with pytest.raises(ValueError, match="wanted 8 names, got 2"):
        annotate(random_image(), people([[100, 60, 180, 160]]), ("calm", "tense"))


def test_blur_changes_the_face_only() -> None:
    image = random_image()
    hidden = image.copy()
    blur_faces(hidden, np.array([[100, 60, 180, 160]], np.float32))
    inside = hidden[60:160, 100:180].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= 36  # a few flat cells
    assert inside.astype(float).std() < image[60:160, 100:180].astype(float).std() / 3
    untouched = np.ones(image.shape[:2], bool)
    untouched[40:181, 84:197] = False  # the box with a margin of 20 %
    assert (hidden[untouched] == image[untouched]).all()


def test_blur_hides_every_face_of_a_crowd() -> None:
    image = random_image(400, 600)
    boxes = np.array([[30 + 90 * i, 100, 80 + 90 * i, 160] for i in range(6)], np.float32)
    drawn = annotate(image, people(boxes.tolist()), FERPLUS8, blur=True)
    for x0, y0, x1, y1 in boxes.astype(int).tolist():
        part = slice(y0 + 15, y1 - 5), slice(x0 + 12, x1 - 12)
        assert (drawn[part] == image[part]).all(axis=2).mean() < 0.01


def test_the_place_of_a_lost_face_stays_hidden() -> None:
    image, anonymizer = random_image(), Anonymizer(linger=0.5)
    box = slice(60, 160), slice(100, 180)

    def hidden(estimates: Estimates, timestamp: float) -> bool:
        canvas = image.copy()
        anonymizer.hide(canvas, replace(estimates, timestamp=timestamp))
        return len(np.unique(canvas[box].reshape(-1, 3), axis=0)) < 50

    there, gone = people([[100, 60, 180, 160]]), people([])
    assert hidden(there, 0.0)
    assert hidden(gone, 0.3)
    assert not hidden(gone, 0.6)
    assert hidden(there, 0.7)
    assert not hidden(gone, 0.1)  # time started again


@pytest.mark.parametrize("with_anonymizer", [False, True])
def test_faces_without_a_row_are_hidden_too(with_anonymizer: bool) -> None:
    """Faces that are unconfirmed, beyond --max-faces, or not classified yet."""
    estimates = replace(people([]), seen=np.array([[100, 60, 180, 160]], np.float32))
    canvas = random_image()
    if with_anonymizer:
        Anonymizer().hide(canvas, estimates)
    else:
        canvas = annotate(canvas, estimates, FERPLUS8, blur=True)
    assert len(np.unique(canvas[60:160, 100:180].reshape(-1, 3), axis=0)) < 50


def test_the_place_of_a_face_without_a_row_stays_hidden_until_it_is_seen_nearby() -> None:
    image, anonymizer = random_image(), Anonymizer(linger=0.5)

    def hidden(timestamp: float, *boxes: list[float]) -> list[bool]:
        """Return for two places whether they are hidden."""
        canvas = image.copy()
        seen = np.array(boxes, np.float32).reshape(-1, 4)
        anonymizer.hide(canvas, replace(people([]), timestamp=timestamp, seen=seen))
        return [bool((canvas[80:140, x : x + 2] != image[80:140, x : x + 2]).any()) for x in (85, 200)]

    assert hidden(0.0, [100, 60, 180, 160]) == [True, False]
    assert hidden(0.2) == [True, False]
    assert hidden(0.3, [120, 60, 200, 160]) == [False, True]  # it moved and leaves no trail
    assert hidden(0.7) == [False, True]
    assert hidden(0.9) == [False, False]
