"""Labels and bars of crowds. ``tests/data/crowds.json`` holds the faces of four real pictures, and where labels go.

The pictures: the first frame of the demo clip, a street, the left part of a group of scientists, and all of it.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import label_places
import numpy as np
import pytest

from leaf_rt.labels import FERPLUS8
from leaf_rt.render.overlay import FrameAnnotator, draw_estimates
from leaf_rt.render.placement import Box, Face, Layout, Place, Sizes, overlap, shortened
from leaf_rt.types import Estimates

CROWDS = json.loads(Path(__file__).with_name("data").joinpath("crowds.json").read_text())
PLACES = json.loads(label_places.PLACES.read_text())
HAPPY = FERPLUS8.index("happiness")


class Recorder(Layout):
    """A layout that keeps what it answered last."""

    places: list[Place]

    def arrange(self, faces, sizes, timestamp):  # type: ignore[no-untyped-def]
        self.places = super().arrange(faces, sizes, timestamp)
        return self.places


def crowd(name: str, emotion: int | None = None) -> tuple[np.ndarray, Estimates]:
    """Return an empty picture of the right size, and its faces."""
    stored = CROWDS[name]
    boxes = np.array(stored["boxes"], np.float32)
    n = len(boxes)
    shown = np.array(stored["emotions"] if emotion is None else [emotion] * n, np.int64)
    probs = np.full((n, 8), 0.2 / 7, np.float32)
    probs[np.arange(n), shown] = 0.8
    estimates = Estimates(
        timestamp=0.0, track_id=np.arange(1, n + 1), xyxy=boxes, confidence=np.ones(n, np.float32), probs=probs,
        smoothed=probs, emotion=shown, classified=np.ones(n, np.bool_), low_quality=np.zeros(n, np.bool_), seen=boxes,
    )  # fmt: skip
    return np.zeros((stored["height"], stored["width"], 3), np.uint8), estimates


def places_of(name: str, emotion: int | None = None) -> tuple[list[Place], list[Box]]:
    canvas, estimates = crowd(name, emotion)
    layout = Recorder()
    draw_estimates(canvas, estimates, FERPLUS8, layout=layout)
    return layout.places, [tuple(round(v) for v in box) for box in estimates.xyxy.tolist()]


@pytest.mark.parametrize("name", CROWDS)
def test_labels_are_where_they_were_in_the_pictures_that_were_looked_at(name: str) -> None:
    places, _ = places_of(name)
    assert [place.text for place in places] == [text for text, *_ in CROWDS[name]["labels"]]
    stored = np.array([box for _, *box in CROWDS[name]["labels"]])
    assert np.abs(np.array([place.tag for place in places]) - stored).max() <= 3  # a font may differ a little
    assert sum(place.bars is not None for place in places) == CROWDS[name]["bars"]


@pytest.mark.parametrize("emotion", [None, HAPPY])
@pytest.mark.parametrize("name", CROWDS)
def test_labels_and_bars_cover_neither_each_other_nor_a_face(name: str, emotion: int | None) -> None:
    places, boxes = places_of(name, emotion)
    drawn = [place.tag for place in places] + [place.bars for place in places if place.bars is not None]
    for i, one in enumerate(drawn):
        assert not any(overlap(one, box) for box in boxes)
        assert not any(overlap(one, other) for other in drawn[:i])


@pytest.mark.parametrize("clip", PLACES["clips"], ids=lambda clip: str(clip["name"]))
def test_labels_are_where_the_live_page_puts_them_too(clip: dict[str, Any]) -> None:
    """``test_web_page.py`` asks the page for the same list."""
    constants = (label_places.TEXTS, label_places.LETTER, label_places.HEIGHT)
    assert (PLACES["texts"], PLACES["letter"], PLACES["height"]) == constants
    assert label_places.labels(clip) == [frame["labels"] for frame in clip["frames"]]


def test_a_long_name_is_shortened_before_it_covers_something() -> None:
    canvas, estimates = crowd("29 faces", HAPPY)
    boxes = np.array([[60 * i, 60 * j, 60 * i + 36, 60 * j + 36] for j in range(4) for i in range(7)], np.float32)
    n, layout = len(boxes), Recorder()
    rows = {
        name: getattr(estimates, name)[:n]
        for name in (
            "track_id",
            "confidence",
            "probs",
            "smoothed",
            "emotion",
            "classified",
            "low_quality",
            "person_id",
            "pose",
            "quality",
            "blendshapes",
        )
    }
    draw_estimates(
        canvas[:240, :420].copy(), replace(estimates, xyxy=boxes, seen=boxes, **rows), FERPLUS8, layout=layout
    )
    texts = {place.text.split("  ")[-1] for place in layout.places}
    assert "hap." in texts
    assert shortened("fear") == "fear"


def test_the_label_of_a_single_face_is_never_short_when_its_emotion_changes() -> None:
    canvas, estimates = crowd("1 face")
    layout, texts = Recorder(), []
    for k, name in enumerate(("uncertain", "neutral", "fear", "happiness", "uncertain", "surprise")):
        shown = FERPLUS8.index(name) if name in FERPLUS8 else -1
        now = replace(estimates, emotion=np.array([shown]), timestamp=k / 10)
        draw_estimates(canvas, now, FERPLUS8, layout=layout)
        texts.append(layout.places[0].text)
    assert texts == [
        "1  uncertain",
        "1  neutral 80%",
        "1  fear 3%",
        "1  happiness 3%",
        "1  uncertain",
        "1  surprise 3%",
    ]


def test_only_the_three_largest_faces_have_bars() -> None:
    boxes = [(100 + 400 * i, 100, 200 + 400 * i, 200 + 10 * i) for i in range(5)]
    places = Layout().arrange(faces(boxes), Sizes(2200, 800, 2, 4, (150, 120), 10), 0.0)
    assert [place.bars is not None for place in places] == [False, False, True, True, True]


def test_bars_stay_with_a_face_that_is_hardly_smaller() -> None:
    layout, sizes = Layout(), Sizes(2200, 800, 2, 4, (150, 120), 10)
    owners = []
    for frame in range(20):  # five faces of nearly the same size, each a little larger in turn
        boxes = [(100 + 400 * i, 100, 200 + 400 * i, 200 + 4 * ((frame + i) % 5)) for i in range(5)]
        owners.append([place.bars is not None for place in layout.arrange(faces(boxes), sizes, frame / 30)])
    assert owners == [owners[0]] * 20


def faces(boxes: list[Box]) -> list[Face]:
    return [
        Face(i + 1, box, (f"{i + 1}  happiness", f"{i + 1}"), lambda t: 8 * len(t), 18) for i, box in enumerate(boxes)
    ]


def test_a_label_does_not_jump_while_faces_tremble() -> None:
    rng = np.random.default_rng(0)
    layout, sizes = Layout(), Sizes(800, 600, 2, 4, (150, 120), 10)
    sides = []
    for frame in range(300):
        y = 200 + int(rng.integers(-2, 3))  # the gap between the two faces is now large enough for a label, now not
        boxes = [(300, y - 84, 360, y - 24), (300, 200, 360, 260)]
        places = layout.arrange(faces(boxes), sizes, frame / 30)
        sides.append(places[1].tag[1] < 200)
    changes = sum(a != b for a, b in itertools.pairwise(sides))
    assert changes <= 1


def test_a_label_moves_back_when_the_better_place_was_free_for_a_second() -> None:
    layout, sizes = Layout(), Sizes(800, 600, 2, 4, (150, 120), 10)

    def is_above(timestamp: float, other: bool) -> bool:
        boxes = [(300, 200, 360, 260), *([(300, 130, 360, 190)] if other else [])]
        return layout.arrange(faces(boxes), sizes, timestamp)[0].tag[1] < 200

    assert not is_above(0.0, other=True)
    assert not is_above(0.1, other=False)
    assert not is_above(0.9, other=False)
    assert is_above(1.2, other=False)


def test_a_new_face_does_not_push_away_the_label_of_an_old_one() -> None:
    layout, sizes = Layout(), Sizes(800, 600, 2, 4, (150, 120), 10)
    old = faces([(300, 200, 360, 260)])
    before = layout.arrange(old, sizes, 0.0)[0]
    new = replace(faces([(340, 200, 400, 260)])[0], track_id=2)
    assert layout.arrange([new, *old], sizes, 0.1)[1].tag == before.tag


def test_a_face_that_fills_the_picture_has_its_label_inside() -> None:
    place = Layout().arrange(faces([(0, 0, 199, 149)]), Sizes(200, 150, 1, 3, (100, 90), 5), 0.0)[0]
    assert place.text == "1  happiness"
    assert place.tag[0] >= 0
    assert place.tag[3] <= 150


def test_a_time_that_starts_again_is_no_error() -> None:
    layout, sizes = Layout(), Sizes(800, 600, 2, 4, (150, 120), 10)
    places = [layout.arrange(faces([(300, 200, 360, 260)]), sizes, t) for t in (5.0, 0.0, 0.1)]
    assert places[0] == places[1] == places[2]


def test_the_annotator_of_a_video_remembers_places() -> None:
    """The label of the lower face stays below it for a second after the upper face has gone."""
    annotator, drawn = FrameAnnotator(blur=False), []
    canvas, estimates = crowd("1 face")
    lower, upper = [250.0, 200.0, 310.0, 260.0], [250.0, 128.0, 310.0, 188.0]
    for t, boxes in ((0.0, [lower, upper]), (0.1, [lower]), (1.3, [lower])):
        n = len(boxes)
        now = Estimates(
            timestamp=t, track_id=np.arange(1, n + 1), xyxy=np.array(boxes, np.float32),
            confidence=np.ones(n, np.float32), probs=np.repeat(estimates.probs, n, 0),
            smoothed=np.repeat(estimates.probs, n, 0), emotion=np.full(n, HAPPY), classified=np.ones(n, np.bool_),
            low_quality=np.zeros(n, np.bool_), seen=np.array(boxes, np.float32),
        )  # fmt: skip
        picture = annotator.draw(np.zeros_like(canvas), now, FERPLUS8)
        drawn.append(bool(picture[184:194, 255:300].any()))
    assert drawn[1:] == [False, True]


def test_a_label_is_shortened_before_it_moves() -> None:
    """A second face comes close to the label of the first, so that only a shorter text has room above it."""
    layout, sizes = Layout(), Sizes(800, 600, 2, 4, (150, 120), 10)
    texts = ("1  happiness 85%", "1  happiness", "1  hap.", "1")
    first = replace(faces([(300, 200, 360, 260)])[0], texts=texts)
    second = replace(faces([(410, 150, 450, 190)])[0], track_id=2)
    before = layout.arrange([first], sizes, 0.0)[0]
    after = layout.arrange([first, second], sizes, 0.1)[0]
    assert (before.text, after.text) == (texts[0], texts[1])
    assert after.tag[:2] == before.tag[:2]
