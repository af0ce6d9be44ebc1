"""Gradual changes to another scene: dissolves and fades end the tracks, and hand nobody's number on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from fade_clips import KINDS, blend

from leaf_rt.faces.appearance import SIZE
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.recognition.people import PeopleMemory
from leaf_rt.recognition.shots import Change, ShotDetector
from leaf_rt.types import Frame

FPS = 25


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (12, 20, 3)).astype(np.uint8), (640, 360), interpolation=cv2.INTER_CUBIC)


def moved(image: np.ndarray, k: int) -> np.ndarray:
    """As if a hand held the camera."""
    return np.roll(image, (round(3 * np.sin(k / 8)), round(5 * np.sin(k / 11))), (0, 1))


def changes(frames: list[np.ndarray]) -> list[tuple[int, Change, float]]:
    shots = ShotDetector()
    answers = [(k, shots.compare(image, k / FPS), shots.fading_since) for k, image in enumerate(frames)]
    return [(k, change, since) for k, change, since in answers if change in (Change.CUT, Change.FADE)]


def fade(kind: str, old: np.ndarray, new: np.ndarray, seconds: float) -> list[np.ndarray]:
    length = round(seconds * FPS)
    shares = [0.0] * 50 + [k / length for k in range(length)] + [1.0] * 50
    return [blend(kind, moved(old, k), moved(new, k), share) for k, share in enumerate(shares)]


@pytest.mark.parametrize("seconds", [0.32, 0.6, 1.0, 1.6])
@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_a_gradual_change_is_one_new_shot_and_its_beginning_is_known(kind: str, seconds: float):
    ((k, change, since),) = changes(fade(kind, scene(1), scene(2), seconds))
    assert change in (Change.FADE, Change.CUT)  # a plain picture between two scenes is a cut at once
    assert 50 <= k <= 50 + (seconds + 0.7) * FPS
    if change is Change.FADE:
        assert 2.0 <= since <= 2.0 + 0.6 * seconds


@pytest.mark.parametrize("kind", ["white", "black", "long white", "long black"])
def test_a_fade_within_a_scene_is_none(kind: str):
    assert changes(fade(kind, scene(1), scene(1), 0.8)) == []


def test_motion_is_no_gradual_change():
    wide = np.hstack([scene(seed) for seed in range(1, 5)])
    pan = [wide[:, x : x + 640] for x in [*range(0, 900, 20), *[900] * 40]]
    assert all(change is not Change.FADE for _, change, _ in changes(pan))
    large = cv2.resize(scene(1), None, fx=4, fy=4)
    zoom = [cv2.resize(large[m : 1440 - m, m * 16 // 9 : 2560 - m * 16 // 9], (640, 360)) for m in range(0, 500, 15)]
    assert all(change is not Change.FADE for _, change, _ in changes([*[zoom[0]] * 30, *zoom, *[zoom[-1]] * 40]))


def test_a_long_pause_between_two_frames_is_no_gradual_change():
    frames = fade("dissolve", scene(1), scene(2), 0.6)
    shots = ShotDetector()
    slow = [shots.compare(image, k * 0.6) for k, image in enumerate(frames)]
    assert Change.FADE not in slow


def test_what_was_seen_in_a_change_is_forgotten():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 50, (2, 1, SIZE)).astype(np.float32)
    nothing = [np.zeros(0, np.float32)]
    for forget, number in ((True, 2), (False, 1)):
        memory = PeopleMemory(30.0)
        memory.observe([1], first, nothing, 0.0)
        memory.observe([1], second, nothing, 2.0)  # the track went on while the face changed
        if forget:
            memory.forget_since(1.5)
        memory.keep_only({2}, 2.5)
        memory.observe([2], second, nothing, 2.5)
        assert memory.person_id(2) == number
        memory.keep_only({3}, 4.0)
        memory.observe([3], first, nothing, 4.0)
        assert memory.person_id(3) == 1  # the first person is still known


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_a_gradual_change_hands_no_number_to_another_person(kind: str, media: Path):
    names = ("neutral.jpeg", "surprised.jpeg", "angry.jpg")
    people = [cv2.imread(str(media / name)) for name in names]
    people = [cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA) for image in people]
    config = RecognitionConfig()
    backend = config.open_backend()
    try:
        for old, new in pairwise(people):
            steps = build_pipeline(config, backend)
            rows = [
                (k, estimates.shot, number)
                for k, image in enumerate(fade(kind, old, new, 0.6))
                for estimates in [steps.step(Frame(image, k, k / FPS, "clip"))]
                for number in estimates.person_id.tolist()
            ]
            steps.close()
            before = {number for k, _, number in rows if k < 50}
            after = {number for k, _, number in rows if k >= 65 + 18}
            assert before
            assert after
            assert not before & after
            assert {shot for k, shot, _ in rows if k >= 65 + 18} == {1}
    finally:
        backend.close()
