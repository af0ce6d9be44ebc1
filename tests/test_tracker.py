"""The tracker, on scripted boxes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fakes import face_at, join

from leaf_rt.faces.appearance import SIZE, change, likeness
from leaf_rt.faces.tracker import NOTICEABLE, FaceTracker, TrackOptions, cheapest_pairs
from leaf_rt.types import Detections, Tracks

NONE = Detections.empty()


def ids(tracks: Tracks) -> list[int]:
    return tracks.track_id.tolist()


def owner(tracks: Tracks, row: int) -> int:
    """Return the id of a row of the detections."""
    return int(tracks.track_id[tracks.detection_index.tolist().index(row)])


def looking(detections: Detections, value: float) -> Detections:
    return replace(detections, appearance=np.full((len(detections), 12), value, np.float32))


def test_a_confident_face_gets_its_id_at_once_and_keeps_it():
    tracker = FaceTracker()
    for i in range(100):
        tracks = tracker.update(face_at(50 + 2 * i, 40), i / 30)
        assert ids(tracks) == [1]
        assert tracks.detection_index.tolist() == [0]
        assert tracks.time_since_update.tolist() == [0]


def test_an_unconfident_face_needs_a_second_detection():
    tracker = FaceTracker()
    assert ids(tracker.update(face_at(50, 40, confidence=0.6), 0.0)) == []
    assert ids(tracker.update(NONE, 0.7)) == []
    assert ids(tracker.update(face_at(200, 40, confidence=0.6), 0.8)) == []
    assert ids(tracker.update(face_at(201, 40, confidence=0.6), 0.9)) == [1]


@pytest.mark.parametrize("fps", [10, 25, 60])
def test_two_faces_that_cross_keep_their_ids(fps):
    # Two faces cross within 2 s at different heights. While they overlap, only the front one is detected.
    tracker = FaceTracker()
    for i in range(2 * fps + 1):
        t = i / fps
        a, b = face_at(20 + 150 * t, 60), face_at(320 - 150 * t, 75, 66)
        hidden = abs((20 + 150 * t) - (320 - 150 * t)) < 40
        tracks = tracker.update(a if hidden else join(a, b), t)
        assert owner(tracks, 0) == 1
        if not hidden:
            assert owner(tracks, 1) == 2
    assert ids(tracks) == [1, 2]


@pytest.mark.parametrize("gap", [0.2, 0.5, 0.9])
def test_an_id_survives_a_short_loss(gap):
    tracker = FaceTracker()
    for i in range(30):
        tracker.update(face_at(50 + 2 * i, 40), i / 30)
    lost = tracker.update(NONE, 29 / 30 + gap / 2)
    assert ids(lost) == [1]
    assert lost.detection_index.tolist() == [-1]
    assert lost.time_since_update[0] == pytest.approx(gap / 2)
    assert lost.xyxy[0, 0] > 108  # predicted further
    assert ids(tracker.update(face_at(108 + 30 * gap, 40), 29 / 30 + gap)) == [1]


@pytest.mark.parametrize(("step", "difference", "same"), [(60, 10, True), (0, 26, True), (60, 26, False)])
def test_whoever_comes_back_far_away_and_looks_different_is_somebody_else(step, difference, same):
    tracker = FaceTracker()
    for i in range(10):
        tracker.update(looking(face_at(100, 40), 0), i / 10)
    tracks = tracker.update(looking(face_at(100 + step, 40), difference), 1.8)
    assert owner(tracks, 0) == (1 if same else 2)


def test_the_appearance_of_a_face_at_the_edge_keeps_what_was_seen_before():
    """The part that is outside the frame is unknown; it does not erase the rest."""
    tracker = FaceTracker()
    whole = looking(face_at(100, 40), 0)
    half = whole.appearance.copy()
    half[:, :6] = np.nan
    tracker.update(whole, 0.0)
    tracker.update(replace(whole, appearance=half), 0.1)
    other = replace(whole, appearance=np.full_like(half, 60))
    assert owner(tracker.update(other, 0.2), 0) == 2
    assert owner(tracker.update(whole, 0.3), 0) == 1


def test_a_long_loss_ends_the_id():
    tracker = FaceTracker(TrackOptions(max_lost=0.5))
    tracker.update(face_at(50, 40), 0.0)
    assert ids(tracker.update(NONE, 0.5)) == [1]
    assert ids(tracker.update(NONE, 0.51)) == []
    assert ids(tracker.update(face_at(50, 40), 0.6)) == [2]


def test_a_lost_track_does_not_take_over_another_face():
    # B is hidden while A passes the place where B was.
    tracker = FaceTracker()
    for i in range(10):
        tracker.update(join(face_at(0 + 5 * i, 40), face_at(150, 40)), i / 30)
    for i in range(10, 60):
        tracks = tracker.update(face_at(5 * i, 40), i / 30)
        assert owner(tracks, 0) == 1


def test_another_person_in_the_same_place_gets_a_new_id():
    tracker = FaceTracker()
    for i in range(10):
        tracker.update(looking(face_at(50, 40), 100.0), i / 30)
    assert owner(tracker.update(looking(face_at(52, 40), 160.0), 0.5), 0) == 2
    assert owner(tracker.update(looking(face_at(52, 40), 110.0), 0.6), 0) == 1


@pytest.mark.parametrize(("lost_for", "number"), [(0.3, 1), (0.9, 2)])
def test_the_longer_a_face_was_lost_the_more_alike_it_must_be(lost_for: float, number: int) -> None:
    rng = np.random.default_rng(0)
    light, other = rng.normal(0, 25, (2, SIZE // 3))
    first, later = (np.full(SIZE, 128, np.float32) for _ in range(2))
    first[::3] += light
    later[::3] += 0.5 * light + 0.75 * other
    assert 0.4 < likeness(first[None], later[None]).item() < 0.6
    assert NOTICEABLE < change(first[None], later[None]).item() < 20
    tracker = FaceTracker()
    tracker.update(replace(face_at(50, 40), appearance=first[None]), 0.0)
    found = tracker.update(replace(face_at(52, 40), appearance=later[None]), lost_for)
    assert owner(found, 0) == number


def test_jitter_and_one_outlier_do_not_break_a_track():
    rng = np.random.default_rng(0)
    tracker = FaceTracker()
    for i in range(60):
        x, y = rng.normal(0, 2, 2)
        wild = 35 if i == 40 else 0
        tracks = tracker.update(face_at(100 + x + wild, 80 + y), i / 30)
        assert ids(tracks) == [1]
        if i > 5:
            assert np.abs(tracks.xyxy[0, :2] - (100, 80)).max() < 6
    assert np.abs(tracker.update(NONE, 2.2).xyxy[0, :2] - (100, 80)).max() < 6


def test_the_same_motion_at_10_and_60_fps_gives_the_same_boxes_and_ids():
    def boxes(fps: int) -> np.ndarray:
        tracker = FaceTracker()
        out = []
        for i in range(3 * fps + 1):
            t = i / fps
            tracks = tracker.update(face_at(100 + 60 * np.sin(2 * t), 80), t)
            assert ids(tracks) == [1]
            if i % (fps // 10) == 0:
                out.append(tracks.xyxy[0])
        return np.array(out)

    assert np.abs(boxes(10) - boxes(60)).max() < 4  # px; the face has 60 px


def test_dropped_frames_and_irregular_steps_keep_the_ids():
    rng = np.random.default_rng(1)
    tracker = FaceTracker()
    for i in range(300):
        if rng.random() < 0.6:
            continue
        t = i / 30
        tracks = tracker.update(join(face_at(40 + 40 * t, 30), face_at(40 + 20 * t, 150)), t)
        if i > 10:
            assert ids(tracks) == [1, 2]
            assert (owner(tracks, 0), owner(tracks, 1)) == (1, 2)


def test_repeated_and_decreasing_timestamps_are_accepted():
    tracker = FaceTracker()
    for t in (0.0, 0.0, 1.0, 0.5, 1.0, 1.1):
        tracks = tracker.update(face_at(50, 40), t)
        assert ids(tracks) == [1]
        assert np.isfinite(tracks.xyxy).all()


def test_ids_are_per_tracker_and_not_reused_after_a_reset():
    first, second = FaceTracker(), FaceTracker()
    first.update(face_at(50, 40), 0.0)
    assert ids(second.update(face_at(50, 40), 0.0)) == [1]
    first.reset()
    assert ids(first.update(NONE, 0.1)) == []
    assert ids(first.update(face_at(50, 40), 0.0)) == [2]


def test_rows_are_sorted_by_id_and_no_detection_has_two_tracks():
    rng = np.random.default_rng(2)
    tracker = FaceTracker()
    places = rng.uniform(0, 1500, (20, 2))
    for i in range(200):
        places += rng.normal(0, 4, places.shape)
        seen = rng.permutation(20)[: rng.integers(0, 21)]
        parts = [face_at(*places[k].tolist(), confidence=float(rng.uniform(0.5, 1))) for k in seen]
        tracks = tracker.update(join(*parts) if parts else NONE, i / 30)
        assert (np.diff(tracks.track_id) > 0).all()
        rows = tracks.detection_index[tracks.detection_index >= 0]
        assert len(set(rows.tolist())) == len(rows)
        assert ((tracks.time_since_update == 0) == (tracks.detection_index >= 0)).all()


def test_errors_name_the_wrong_option():
    with pytest.raises(ValueError, match=r"TrackOptions\.max_lost"):
        TrackOptions(max_lost=-1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (5, 3), (3, 5), (6, 6)])
def test_pairs_cost_as_little_as_the_best_of_all_permutations(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(50):
        cost = np.where(rng.random(shape) < 0.6, rng.random(shape) * 4, 1e3)  # forbidden pairs cost 1,000
        columns = cheapest_pairs(cost)
        chosen = [(row, column) for row, column in enumerate(columns.tolist()) if column >= 0]
        assert len(chosen) == min(shape) == len({column for _, column in chosen})
        wide = cost if shape[0] <= shape[1] else cost.T
        every = itertools.permutations(range(wide.shape[1]), wide.shape[0])
        best = min(sum(wide[row, column] for row, column in enumerate(columns)) for columns in every)
        assert sum(cost[pair] for pair in chosen) == pytest.approx(best)


def test_without_rows_or_columns_there_are_no_pairs():
    assert cheapest_pairs(np.zeros((0, 3))).tolist() == []
    assert cheapest_pairs(np.zeros((2, 0))).tolist() == [-1, -1]


def test_a_face_has_one_box():
    """Somebody else in the place of a track is shown at the second look, and the box of the track no more."""
    tracker = FaceTracker()
    for i in range(10):
        tracker.update(looking(face_at(50, 40), 0), i / 25)
    assert ids(tracker.update(looking(face_at(52, 40), 90), 10 / 25)) == [1]  # it may be a flash
    tracks = tracker.update(looking(face_at(52, 40), 90), 11 / 25)
    assert ids(tracks) == [1, 2]
    assert tracks.time_since_update.tolist() == [np.inf, 0]
    back = tracker.update(looking(face_at(52, 40), 0), 12 / 25)
    assert (owner(back, 0), back.time_since_update.tolist()) == (1, [0, np.inf])
