"""Tiles, windows, mosaics, box geometry, and the schedule of known faces."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import face_at, join

from leaf_rt.faces.appearance import change, describe
from leaf_rt.faces.regions import MIN_TILE, OVERLAP, Mosaic, Window, non_max_suppression, tiles, transform
from leaf_rt.faces.revisit import FORGET_AFTER, PER_CALL, REVISIT_PERIOD, RevisitScheduler
from leaf_rt.geometry import iou, same_face
from leaf_rt.types import Detections


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (540, 960), (360, 640), (806, 1600), (1920, 1080)])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_small_face_is_completely_inside_some_tile(height, width, levels):
    regions = np.array(tiles(height, width, levels))
    assert (regions[:, :2] >= 0).all()
    assert (regions[:, 2:] <= (width, height)).all()
    side = (regions[:, 2:] - regions[:, :2]).max(axis=1).min()
    assert side >= min(MIN_TILE, height)
    face = int(OVERLAP * side) - 2
    for x in range(0, width - face, 13):
        for y in range(0, height - face, 13):
            inside = (regions[:, :2] <= (x, y)).all(1) & (regions[:, 2:] >= (x + face, y + face)).all(1)
            assert inside.any(), (x, y)


def test_small_images_have_no_tiles():
    assert tiles(300, 384) == []


def test_a_window_moves_only_when_the_face_has_moved_enough():
    box = np.array([100, 100, 160, 160], np.float32)
    window = Window.around(box.tolist())
    assert (window.x, window.y, window.side) == (70, 70, 120)
    assert Window.around((box + 5).tolist(), window) is window
    assert Window.around((box + 15).tolist(), window) == Window(85, 85, 120)
    assert Window.around((box * 1.3).tolist(), window) != window


@pytest.mark.parametrize("count", [1, 2, 4])
def test_detections_in_a_mosaic_are_mapped_back_to_the_frame(count):
    # One white dot in the center of each window. One window is at the corner of the frame.
    frame = np.zeros((240, 320, 3), np.uint8)
    boxes = np.array([[0, 0, 40, 40], [200, 30, 280, 110], [100, 150, 130, 180], [20, 120, 80, 180]], np.float32)[
        :count
    ]
    for x0, y0, x1, y1 in boxes.astype(int).tolist():
        frame[(y0 + y1) // 2 - 1 : (y0 + y1) // 2 + 1, (x0 + x1) // 2 - 1 : (x0 + x1) // 2 + 1] = 255
    mosaic = Mosaic.of(frame, [Window.around(box.tolist()) for box in boxes], 256)
    assert mosaic.image.shape == (256, 256, 3)
    cell = 256 // mosaic.grid
    found_faces = []
    for k in range(count):
        y, x = (cell * c for c in divmod(k, mosaic.grid))
        bright = np.argwhere(mosaic.image[y : y + cell, x : x + cell, 0] > 100)
        center = bright.mean(axis=0)[::-1] + 0.5 + (x, y)
        found_faces.append(face_at(*(center - cell / 4).tolist(), size=cell / 2))
    parts = mosaic.split(join(*found_faces[::-1]))
    assert [len(p) for p in parts] == [1] * count
    for part, box in zip(parts, boxes, strict=True):
        assert part.xyxy[0] == pytest.approx(box, abs=2.0)


def test_a_window_beyond_the_frame_repeats_the_border_or_is_black():
    frame = np.full((50, 50, 3), 7, np.uint8)
    assert (Window(-20, -20, 40).cut(frame) == 7).all()
    assert (Window(500, 500, 40).cut(frame) == 0).all()
    assert Window(-900, 0, 40).cut(frame).shape == (40, 40, 3)


def test_transform_scales_and_shifts_boxes_and_points():
    moved = transform(face_at(10, 20, 60), 2.0, np.array([5, 7], np.float32))
    assert moved.xyxy.tolist() == face_at(25, 47, 120).xyxy.tolist()
    assert moved.keypoints == pytest.approx(face_at(25, 47, 120).keypoints)


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert iou(a, b)[0] == pytest.approx([1, 1 / 3, 0])


def test_non_max_suppression_keeps_the_best_detection_and_drops_a_chin():
    found = join(face_at(0, 0, 60, 0.8), face_at(4, 4, 60, 0.9), face_at(15, 35, 20, 0.5), face_at(200, 0, 60, 0.6))
    assert non_max_suppression(found) == [1, 3]
    assert same_face(found.xyxy[:1], found.xyxy[3:]).tolist() == [[False]]
    assert non_max_suppression(Detections.empty()) == []


def test_known_faces_are_revisited_in_time_with_few_calls():
    crowd = join(*(face_at(100 * (i % 6), 100 * (i // 6)) for i in range(29)))
    for fps in (10, 25, 60):
        scheduler = RevisitScheduler()
        scheduler.add(crowd.xyxy, 0.0)
        looked = dict.fromkeys(range(29), 0.0)
        calls = 0
        for i in range(1, 2 * fps):
            now = i / fps
            due = scheduler.next_faces(now)
            calls += -(-len(due) // PER_CALL)
            parts = []
            for known in due:
                row = int(np.abs(crowd.xyxy - known.box).sum(axis=1).argmin())
                assert now - looked[row] <= REVISIT_PERIOD + 2.0 / fps
                looked[row] = now
                parts.append(crowd[[row]])
            found, lost = scheduler.update(due, parts, now)
            assert len(found) == len(due)
            assert not lost
        assert calls / 2 <= 29 / PER_CALL / REVISIT_PERIOD + fps  # per second


def test_a_lost_face_is_reported_once_searched_wider_and_then_forgotten():
    scheduler = RevisitScheduler()
    scheduler.add(face_at(100, 100).xyxy, 0.0)
    first = scheduler.next_faces(0.1)
    scheduler.update(first, [face_at(100, 100)], 0.1)
    narrow = scheduler.next_faces(0.2)[0].next_window(0.2)
    _, lost = scheduler.update(scheduler.next_faces(0.2), [Detections.empty()], 0.2)
    assert lost
    assert scheduler.next_faces(0.3)[0].next_window(0.3).side > narrow.side
    _, lost = scheduler.update(scheduler.next_faces(0.3), [Detections.empty()], 0.3)
    assert not lost
    assert len(scheduler.next_faces(0.1 + FORGET_AFTER + 0.01)) == 0
    assert len(scheduler) == 0


def test_a_moving_face_is_searched_at_its_predicted_position():
    scheduler = RevisitScheduler()
    scheduler.add(face_at(100, 100).xyxy, 0.0)
    for i in range(1, 10):
        scheduler.update(scheduler.next_faces(i / 10), [face_at(100 + 40 * i, 100)], i / 10)
    window = scheduler.next_faces(1.0)[0].next_window(1.0)
    assert window.x + window.side / 2 == pytest.approx(530, abs=10)


def test_two_windows_on_one_face_give_one_detection():
    scheduler = RevisitScheduler()
    scheduler.add(join(face_at(100, 100), face_at(170, 100)).xyxy, 0.0)
    due = scheduler.next_faces(0.1)
    found, lost = scheduler.update(due, [face_at(102, 100)] * 2, 0.1)
    assert found.xyxy.tolist() == face_at(102, 100).xyxy.tolist()
    assert lost


def test_appearance_distinguishes_heads_and_tolerates_exposure():
    rng = np.random.default_rng(0)
    frame = np.zeros((200, 400, 3), np.uint8)
    frame[:, :200] = rng.integers(0, 60, (200, 200, 3)) + np.array([90, 110, 160])  # skin
    frame[:60, :200] = 20  # dark hair
    frame[:, 200:] = rng.integers(0, 60, (200, 200, 3)) + np.array([60, 100, 150])
    frame[:90, 200:] = 230  # white hair
    boxes = np.array([[60, 60, 140, 140], [62, 61, 142, 141], [260, 60, 340, 140]], np.float32)
    described = describe(frame, boxes)
    distance = change(described, described)
    assert distance[0, 1] < 8
    assert distance[0, 2] > 30
    brighter = describe((frame.astype(int) + 20).clip(0, 255).astype(np.uint8), boxes[:1])
    assert change(described[:1], brighter)[0, 0] < 8
    assert change(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32)).tolist() == [[0] * 3] * 2


def test_what_is_outside_the_frame_makes_nobody_alike():
    """Half of the head is outside: the difference of two people is that of the halves that are inside."""
    frame = np.zeros((200, 400, 3), np.uint8)
    frame[::2] = 90
    other = frame.copy()
    other[:, :40] = (60, 100, 200)
    inside, at_edge = np.array([[60, 60, 140, 140]], np.float32), np.array([[-40, 60, 40, 140]], np.float32)
    assert not np.isnan(describe(frame, inside)).any()
    here, there = describe(frame, at_edge), describe(other, at_edge)
    assert np.isnan(here).mean() == 0.5
    apart = here[~np.isnan(here)] - there[~np.isnan(there)]
    assert change(here, there)[0, 0] == pytest.approx(np.sqrt((apart**2).mean()), rel=1e-5)
    assert change(here, here)[0, 0] == 0
    assert change(here, np.full_like(here, np.nan))[0, 0] == 0
