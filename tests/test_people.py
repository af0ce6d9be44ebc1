"""People who come back: the memory on made-up descriptions, and the whole pipeline on real faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import demo_frames
from identity_metrics import changes, follow, numbers, owners, shared
from tracking_clips import heads, moving, street_truth, video

from leaf_rt.errors import ModelError, NotFound
from leaf_rt.faces.appearance import SIZE, describe, difference
from leaf_rt.faces.encoder import FaceEncoder
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.people import MAX_DIFFERENCE, PATIENCE, PeopleMemory
from leaf_rt.types import Frame

NONE = np.zeros(0, np.float32)
CONFIG = RecognitionConfig(backend="onnxruntime")


def head(seed: int, noise: float = 0.0) -> np.ndarray:
    """A head of a person; noise makes another view of it."""
    rng = np.random.default_rng(seed)
    look = rng.normal(0, 40, SIZE)
    return (look + np.random.default_rng(999).normal(0, noise, SIZE)).astype(np.float32)[None]


def leave_and_return(memory: PeopleMemory, away: float, noise: float = 5.0, vectors: tuple = (NONE, NONE)) -> int:
    memory.keep_only({1}, 0.0)
    memory.observe([1], head(1), [vectors[0]], 0.0)
    memory.keep_only(set(), away)
    memory.keep_only({2}, away)
    memory.observe([2], head(1, noise), [vectors[1]], away)
    return memory.person_id(2)


def test_a_person_who_returns_gets_the_number_again():
    assert leave_and_return(PeopleMemory(30.0), 20.0) == 1


def test_after_the_time_the_person_is_forgotten():
    memory = PeopleMemory(30.0)
    assert leave_and_return(memory, 31.0) == 2
    assert len(memory) == 1


def test_another_person_gets_a_new_number():
    assert leave_and_return(PeopleMemory(30.0), 5.0, noise=25.0) == 2


def test_whoever_is_visible_is_nobody_else():
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.observe([1, 2], np.concatenate([head(1), head(1, 1.0)]), [NONE, NONE], 1.0)
    memory.keep_only({2}, 1.1)  # track 1 ends; track 2 began while it was visible
    memory.observe([2], head(1, 1.0), [NONE], 1.1)
    assert memory.person_id(2) == 2


def test_two_faces_do_not_take_the_same_number():
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.keep_only({2, 3}, 2.0)
    memory.observe([2, 3], np.concatenate([head(1, 8.0), head(1, 2.0)]), [NONE, NONE], 2.0)
    assert (memory.person_id(2), memory.person_id(3)) == (2, 1)


def test_two_people_who_look_alike_are_not_guessed():
    memory = PeopleMemory(30.0)
    memory.observe([1, 2], np.concatenate([head(1), head(1, 0.5)]), [NONE, NONE], 0.0)
    memory.keep_only({3}, 2.0)
    memory.observe([3], head(1, 6.0), [NONE], 2.0)
    assert memory.person_id(3) == 3


def test_a_face_recognition_vector_decides_over_the_head():
    same, other = np.eye(32, dtype=np.float32)[0], np.eye(32, dtype=np.float32)[1]
    assert leave_and_return(PeopleMemory(30.0), 5.0, noise=40.0, vectors=(same, same)) == 1
    assert leave_and_return(PeopleMemory(30.0), 5.0, noise=2.0, vectors=(same, other)) == 2


@pytest.mark.parametrize(("later", "person"), [(0.1, 1), (0.5, 1), (0.6, 2)])
def test_the_number_of_a_track_is_final_after_half_a_second(later: float, person: int):
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.keep_only({2}, 2.0)
    assert memory.is_open(2, 2.0)
    memory.observe([2], head(1, 25.0), [NONE], 2.0)  # too unlike: at the edge of the picture, or somebody else
    assert memory.person_id(2) == 2
    assert memory.is_open(2, 2.0 + later) == (person == 1)
    memory.observe([2], head(1, 1.0), [NONE], 2.0 + later)
    memory.observe([2], head(7), [NONE], 2.01 + later)  # a recognized person stays that person
    assert memory.person_id(2) == person
    assert not memory.is_open(2, 2.02 + later)


def test_a_track_is_not_taken_late_for_somebody_who_was_visible_beside_it():
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.observe([1, 2], np.concatenate([head(1), head(2)]), [NONE, NONE], 1.0)
    memory.keep_only({2}, 1.1)
    memory.observe([2], head(1, 1.0), [NONE], 1.2)
    assert memory.person_id(2) == 2


def test_nothing_is_open_while_nobody_is_gone():
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    assert not memory.is_open(1, 0.1)


def test_two_open_tracks_do_not_take_the_same_number():
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.keep_only({2, 3}, 2.0)
    memory.observe([2, 3], np.concatenate([head(5), head(6)]), [NONE, NONE], 2.0)
    memory.observe([2, 3], np.concatenate([head(1, 8.0), head(1, 2.0)]), [NONE, NONE], 2.2)
    assert (memory.person_id(2), memory.person_id(3)) == (2, 1)


@pytest.mark.parametrize(("columns", "person"), [(2, 1), (4, 2)])
def test_a_head_that_is_partly_outside_the_frame_is_compared_by_the_rest(columns: int, person: int):
    memory = PeopleMemory(30.0)
    memory.observe([1], head(1), [NONE], 0.0)
    memory.keep_only({2}, 2.0)
    partly = head(1, 2.0)
    left = 40 - 22.5 * columns
    beyond = np.isnan(describe(np.zeros((400, 400, 3), np.uint8), np.array([[left, 100, left + 100, 200]], np.float32)))
    assert beyond.sum() == columns * 8 * 3
    partly[beyond] = np.nan
    memory.observe([2], partly, [NONE], 2.0)
    assert memory.person_id(2) == person


def test_the_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch):
    limit = 20
    monkeypatch.setattr("leaf_rt.recognition.people.MAX_PEOPLE", limit)
    memory = PeopleMemory(1e9)
    for k in range(2 * limit):
        memory.keep_only({k + 1}, float(k))
        memory.observe([k + 1], head(k), [NONE], float(k))
    assert limit <= len(memory) <= limit + 1


def test_a_picture_without_colors_is_compared_by_its_light_alone(media: Path):
    grey = []
    for image, box in heads(media)[:4]:
        plain = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        grey.append(describe(plain, box.astype(np.float32)[None])[0])
    apart = difference(np.array(grey), np.array(grey))
    assert np.sort(apart[~np.eye(4, dtype=bool)])[0] > 20


@pytest.mark.parametrize("light", [0.25, 0.1])
def test_a_head_looks_the_same_in_the_dark(media: Path, light: float):
    def looks(alpha: float) -> np.ndarray:
        dimmed = [(cv2.convertScaleAbs(image, alpha=alpha), box.astype(np.float32)) for image, box in heads(media)]
        return np.array([describe(image, box[None])[0] for image, box in dimmed])

    apart = difference(looks(1.0), looks(light))
    assert np.diag(apart).max() < 6
    assert apart[~np.eye(len(apart), dtype=bool)].min() > MAX_DIFFERENCE


@pytest.mark.parametrize("light", [0.03, 0.02, 0.01, 0.005])
def test_where_hardly_anything_is_seen_nobody_is_taken_for_somebody_else(media: Path, light: float):
    dimmed = [(cv2.convertScaleAbs(image, alpha=light), box.astype(np.float32)) for image, box in heads(media)]
    looks = np.array([describe(image, box[None])[0] for image, box in dimmed])
    assert difference(looks, looks)[~np.eye(len(looks), dtype=bool)].min() > MAX_DIFFERENCE


@pytest.mark.slow
@pytest.mark.parametrize("light", [1.0, 0.25, 0.1])
def test_people_one_after_the_other_have_numbers_of_their_own_in_any_light(media: Path, light: float):
    """Each is there for 0.8 s, then nobody for 1.2 s; the first person returns at the end."""
    rng = np.random.default_rng(3)
    room = cv2.resize(rng.integers(60, 200, (6, 8, 3)).astype(np.uint8), (480, 360), interpolation=cv2.INTER_CUBIC)
    frames, shown = [], []
    for person in (1, 2, 3, 6, 14, 1):
        for k in range(20):
            image = room.copy()
            if k < 8:
                image[70:290, 130 + k : 350 + k] = heads(media)[person][0]
            frames.append(Frame(cv2.convertScaleAbs(image, alpha=light), len(frames), len(frames) / 10, "room"))
            shown.append(person if k < 8 else 0)
    results = follow(((frame, []) for frame in frames), CONFIG)
    newest = {row[0]: row[1] for _, rows in results for row in rows}
    owners_of: dict[int, set[int]] = {}
    for person, (_, rows) in zip(shown, results, strict=True):
        for row in rows:
            owners_of.setdefault(newest[row[0]], set()).update({person} - {0})
    assert sorted(map(sorted, owners_of.values())) == [[1], [2], [3], [6], [14]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21, 22, 23])
def test_real_faces_that_cross_hide_and_return(media: Path, seed: int):
    results = follow(moving(media, seed), CONFIG)
    wrong = {n: people for n, people in owners(results, 1).items() if sum(c >= 6 for c in people.values()) > 1}
    assert wrong == {}
    late = changes(results)
    assert late  # faces that come in at the edge of the picture
    assert all(before == track and age <= PATIENCE + 0.05 for track, before, age in late)
    assert len({track for track, *_ in late}) == len(late)  # once per track
    assert numbers(results, 1, 6) < numbers(results, 0, 6)


@pytest.mark.slow
def test_the_nine_people_of_a_street(media: Path):
    truth = street_truth()
    frames = ((frame, truth.get(frame.index, [])) for frame in video(media / "street_1080p.mp4"))
    results = follow(frames, CONFIG)
    assert shared(results, 0) == shared(results, 1) == 0
    last = {r[1] for _, rows in results[-10:] for r in rows}
    assert 2 in last  # a hidden person is known again; the other hidden person, 4, gets a new number


def test_without_reid_the_person_is_the_track(media: Path):
    results = follow(moving(media, 20, people=2, seconds=6.0), RecognitionConfig(backend="onnxruntime", reid=0.0))
    assert all(r[0] == r[1] for _, rows in results for r in rows)


def test_a_wrong_face_recognition_network_is_refused(tmp_path: Path):
    with pytest.raises(NotFound, match="--reid-model"):
        FaceEncoder(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_text("no network")
    with pytest.raises(ModelError, match="--reid-model"):
        FaceEncoder(tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match="112"):
        FaceEncoder(CONFIG.model)


def test_a_network_of_the_user_runs_in_the_pipeline(tmp_path: Path):
    """Its vector is the picture in 4 x 4 cells, so that a face is like itself."""
    onnx = pytest.importorskip("onnx")
    nodes = [
        onnx.helper.make_node("AveragePool", ["faces"], ["cells"], kernel_shape=[28, 28], strides=[28, 28]),
        onnx.helper.make_node("Flatten", ["cells"], ["vectors"]),
    ]
    entry = onnx.helper.make_tensor_value_info("faces", onnx.TensorProto.FLOAT, [1, 3, 112, 112])
    result = onnx.helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, [1, 48])
    graph = onnx.helper.make_graph(nodes, "cells", [entry], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "face.onnx")
    empty = FaceEncoder(tmp_path / "face.onnx").encode(np.zeros((90, 90, 3), np.uint8), np.zeros((0, 6, 2), np.float32))
    assert empty.shape == (0, 48)
    images = demo_frames(10)
    blank = [np.zeros_like(images[0])] * 40
    frames = [Frame(image, k, k / 25, "clip") for k, image in enumerate(images + blank + images)]
    config = RecognitionConfig(backend="onnxruntime", reid_model=tmp_path / "face.onnx")
    results = follow(((frame, []) for frame in frames), config)
    assert {row[:2] for _, rows in results for row in rows} == {(1, 1), (2, 1)}
