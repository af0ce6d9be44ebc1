"""The face detector on real pictures and clips, alone and with the tracker."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import DEMO

from leaf_rt.errors import BackendError, ModelError
from leaf_rt.faces import detector as detector_module
from leaf_rt.faces.detector import FaceDetector
from leaf_rt.faces.regions import iou
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.types import Detections, Frame, Tracks

Shown = list[tuple[Frame, Detections, Tracks]]


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as one:
        yield one


def frames(path: Path, count: int | None = None) -> Iterator[Frame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for index, picture in enumerate(container.decode(stream)):
            if index == count:
                return
            yield Frame(picture.to_ndarray(format="bgr24"), index, float(picture.pts * stream.time_base), path.name)


def follow(path: Path, count: int | None = None, stride: int = 1) -> Shown:
    tracker = FaceTracker()
    shown: Shown = []
    with FaceDetector() as one:
        for frame in frames(path, count):
            if frame.index % stride == 0:
                found = one.detect(frame)
                shown.append((frame, found, tracker.update(found, frame.timestamp)))
    return shown


def sightings(shown: Shown) -> dict[int, list[tuple[float, np.ndarray]]]:
    """Time and box of every find, by id."""
    out: dict[int, list[tuple[float, np.ndarray]]] = {}
    for frame, found, tracks in shown:
        for track_id, row in zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True):
            if row >= 0:
                out.setdefault(track_id, []).append((frame.timestamp, found.xyxy[row]))
    return out


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all pictures that a model is asked about from now on."""
    calls: list[tuple[int, ...]] = []
    find = detector_module.DetectorModel.find

    def counted(self: detector_module.DetectorModel, image: np.ndarray) -> Detections:
        calls.append(image.shape)
        return find(self, image)

    monkeypatch.setattr(detector_module.DetectorModel, "find", counted)
    return calls


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("solvay_1927.jpg", 28, 29),
        ("group.jpeg", 5, 5),
        ("multi_face.jpg", 5, 5),
        ("angry.jpg", 1, 1),
        ("neutral.jpeg", 1, 1),
        ("surprised.jpeg", 1, 1),
        ("happy-baby.jpeg", 1, 1),
        ("sad-baby.jpeg", 1, 1),
        ("Image_with_alpha.png", 1, 1),
    ],
)
def test_pictures(media, detector, name, low, high):
    image = cv2.imread(str(media / name))
    found = detector.detect_picture(image)
    assert low <= len(found) <= high
    centre = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
    assert (centre >= 0).all()
    assert (centre < image.shape[1::-1]).all()
    eyes = found.keypoints[:, 1, 0] - found.keypoints[:, 0, 0]  # the person's left is on our right
    assert (eyes > 0).all()


def test_one_man_is_one_track_from_first_to_last_frame(media):
    shown = follow(media / "single_face.mp4")
    assert all(t.track_id.tolist() == [1] and t.detection_index.tolist() == [0] for _, _, t in shown)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    # Looked up by eye: the last frame with the man is at 2.367 s; in the other clip he comes at 3.945 s and stays.
    [("face_noface.mov", 0.0, 2.367), ("noface_face.mov", 3.945, 6.345)],
)
def test_a_face_that_goes_or_comes_is_one_track(media, name, start, end):
    seen = sightings(follow(media / name))
    assert list(seen) == [1]
    assert seen[1][0][0] == pytest.approx(start, abs=0.2)
    assert seen[1][-1][0] == pytest.approx(end, abs=0.2)


def test_nobody_is_found_where_nobody_is(media):
    assert sum(len(found) for _, found, _ in follow(media / "no_face.mp4")) == 0


@pytest.mark.parametrize("stride", [1, 3])
def test_one_woman_is_one_track_through_hands_and_turns(stride):
    shown = follow(DEMO, stride=stride)
    assert {i for _, _, t in shown for i in t.track_id.tolist()} == {1}
    assert np.mean([len(found) == 1 for _, found, _ in shown]) > 0.98


def test_a_street_is_followed_at_the_cost_of_two_calls_per_frame(media, monkeypatch):
    calls = count_calls(monkeypatch)
    shown = follow(media / "street_1080p.mp4")
    assert len(calls) <= 2.5 * len(shown)
    visible = [int((t.time_since_update <= 0.2).sum()) for _, _, t in shown]
    assert np.median(visible) >= 4
    for track_id, seen in sightings(shown).items():
        for (t0, a), (t1, b) in itertools.pairwise(seen):
            width = np.sqrt((a[2] - a[0]) * (b[2] - b[0]))
            way = np.hypot(*((a[:2] + a[2:] - b[:2] - b[2:]) / 2)) / width
            assert way < 0.5 + 8 * (t1 - t0), f"id {track_id} jumps at {t1:.2f} s"  # the fastest one makes 6 widths/s


def test_where_faces_are_hidden_who_comes_in_is_known_after_a_fifth_of_a_second(media, detector):
    clip = list(frames(media / "street_1080p.mp4", 13))
    tracker = FaceTracker()
    with FaceDetector(scan_period=detector_module.HIDE_PERIOD) as one:
        known = [tracker.update(one.detect(frame), frame.timestamp).xyxy for frame in clip]
    for end in (7, 12):  # 0.2 s are five frames
        before, now = (detector.detect_picture(clip[i].image).xyxy for i in (end - 5, end))
        there = now[(iou(now, before) > 0.3).any(axis=1)]
        assert len(there) >= 3
        assert (iou(there, known[end]) > 0.3).any(axis=1).all()


def test_while_nobody_is_known_the_search_is_never_slower(monkeypatch):
    looks = {}
    for period in (0.15, 0.8, 5.0):
        with FaceDetector(scan_period=period) as one:
            calls = []
            monkeypatch.setattr(one, "_propose", lambda *_, calls=calls, **__: calls.append(1) or Detections.empty())
            for i in range(26):
                one.detect(Frame(np.zeros((360, 640, 3), np.uint8), i, i / 25, "x"))
            looks[period] = len(calls)
    assert looks[5.0] == looks[0.8]
    assert looks[0.15] == pytest.approx(2 * looks[0.8], rel=0.3)


def test_many_small_faces_cost_little_more_per_frame_than_one(media, monkeypatch):
    image = cv2.imread(str(media / "solvay_1927.jpg"))
    calls = count_calls(monkeypatch)
    tracker = FaceTracker()
    with FaceDetector() as one:
        for i in range(51):
            if i == 1:
                calls.clear()
            frame = Frame(image, i, i / 25, "still")
            tracks = tracker.update(one.detect(frame), frame.timestamp)
            assert 27 <= len(tracks) <= 30
            assert tracks.time_since_update.max() <= 0.3
            assert one.lag >= tracks.time_since_update.max() - 0.04
    assert len(calls) / 50 <= 2.3  # one close-up call or two, and a share of a search; one face makes 1.7
    assert tracks.track_id.max() <= 31


@pytest.mark.parametrize("fps", [8, 24])
def test_a_second_of_video_costs_about_the_same_searches_at_any_frame_rate(monkeypatch, fps):
    every = 24 // fps
    pictures = [f for f in frames(DEMO, 97) if f.index % every == 0]
    calls = count_calls(monkeypatch)
    with FaceDetector() as one:
        one.detect(pictures[0])
        calls.clear()
        for frame in pictures[1:]:
            assert len(one.detect(frame)) == 1
    searches = [shape for shape in calls if shape != (256, 256, 3)]
    assert len(searches) == pytest.approx(25, abs=4)  # in 4 s


def test_the_cost_of_one_face_is_near_one_call_over_the_whole_frame():
    pictures = list(frames(DEMO, 120))
    ours, whole = [], []
    with FaceDetector() as one, FaceDetector(range="short") as other:
        one.detect(pictures[0])
        model = other._model("short", video=True)
        for frame in pictures[1:]:  # in turns, so that both have the same share of a busy machine
            start = time.perf_counter()
            one.detect(frame)
            middle = time.perf_counter()
            model.find(frame.image)
            ours.append(middle - start)
            whole.append(time.perf_counter() - middle)
    assert np.median(ours) < 2.5 * np.median(whole)


def test_detect_every_skips_frames_and_tracks_coast():
    tracker = FaceTracker()
    with FaceDetector(detect_every=3) as one:
        found, ids = [], set()
        for frame in frames(DEMO, 30):
            detections = one.detect(frame)
            found.append(len(detections))
            ids.update(tracker.update(detections, frame.timestamp).track_id.tolist())
    assert found == [1, 0, 0] * 10
    assert ids == {1}


def test_the_lag_says_how_long_a_face_was_not_looked_for():
    with FaceDetector(detect_every=3) as one:
        lags = []
        for frame in frames(DEMO, 9):
            one.detect(frame)
            lags.append(one.lag)
    assert lags == pytest.approx([0, 1 / 24, 2 / 24] * 3, abs=2e-3)


@pytest.mark.parametrize("wanted", ["short", "full"])
def test_each_range_alone_finds_a_near_face(wanted):
    frame = next(frames(DEMO))
    with FaceDetector(range=wanted) as one:
        assert len(one.detect(frame)) == 1
        assert len(one.detect_picture(frame.image)) == 1


def test_a_face_cut_off_by_a_border_has_its_box_where_it_is():
    with FaceDetector(range="short") as one:
        image = next(frames(DEMO)).image
        find = one._model("short", video=False).find
        whole = find(image)
        width = whole.xyxy[0, 2] - whole.xyxy[0, 0]
        up, left = (int(whole.xyxy[0, k] + 0.25 * width) for k in (1, 0))
        for cut_y, cut_x in ((up, 0), (0, left)):
            part = find(image[cut_y:, cut_x:])
            assert part.xyxy[0, :2].min() < 0
            assert np.abs(part.xyxy[0] + (cut_x, cut_y) * 2 - whole.xyxy[0]).max() < 0.2 * width


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (1, 500), (15, 15), (16, 3000), (3000, 17)])
def test_pictures_too_small_for_a_face_give_none(detector, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    detector.reset()
    assert len(detector.detect_picture(image)) == 0
    assert len(detector.detect(Frame(image, 0, 0.0, "s"))) == 0


def test_the_size_of_a_frame_may_change(detector):
    image = next(frames(DEMO)).image
    detector.reset()
    for i, scale in enumerate([1.0, 1.0, 0.5, 0.5, 2.0, 1.0]):
        picture = cv2.resize(image, None, fx=scale, fy=scale)
        found = detector.detect(Frame(picture, i, i / 25, "s"))
        assert len(found) == 1
        assert found.keypoints[0, 2] / scale == pytest.approx(detector.detect_picture(image).keypoints[0, 2], abs=25)


def test_time_may_repeat_stand_still_jump_and_start_again(detector):
    image = next(frames(DEMO)).image
    detector.reset()
    for i, t in enumerate([0.0, 0.0, 0.0, 5.0, 1e9, 1e9, 2.0, 2.0001, -1.0, 0.0]):
        assert len(detector.detect(Frame(image, i, t, "s"))) == 1
    detector.reset()
    assert len(detector.detect(Frame(image, 0, 0.0, "s"))) == 1


def test_the_same_frames_give_the_same_faces():
    def once() -> list[Detections]:
        with FaceDetector() as one:
            return [one.detect(frame) for frame in frames(DEMO, 20)]

    for a, b in zip(once(), once(), strict=True):
        assert a.xyxy.tolist() == b.xyxy.tolist()
        assert a.keypoints.tolist() == b.keypoints.tolist()


def test_two_sources_do_not_touch_each_other(media):
    there, empty = frames(DEMO, 20), frames(media / "no_face.mp4", 20)
    with FaceDetector() as one, FaceDetector() as two:
        for a, b in zip(there, empty, strict=True):
            assert (len(one.detect(a)), len(two.detect(b))) == (1, 0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"FaceDetector\.range: wanted one of auto, short, full, got 'far'"):
        FaceDetector(range="far")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_confidence"):
        FaceDetector(min_confidence=1.5)
    with pytest.raises(ValueError, match="detect_every"):
        FaceDetector(detect_every=0)
    with pytest.raises(ValueError, match="scan_period"):
        FaceDetector(scan_period=0.0)


def test_a_closed_detector_says_so():
    one = FaceDetector()
    one.close()
    one.close()
    with pytest.raises(ValueError, match="closed"):
        one.detect_picture(np.zeros((64, 64, 3), np.uint8))


def test_a_damaged_or_missing_model_is_refused(monkeypatch):
    name = "face_detection_short_range.tflite"
    monkeypatch.setitem(detector_module.DETECTORS, "short", (name, "0" * 64))
    with pytest.raises(ModelError, match=r"short_range\.tflite is damaged .* install leaf-rt again"):
        FaceDetector()
    monkeypatch.setitem(detector_module.DETECTORS, "short", ("gone.tflite", "0" * 64))
    with pytest.raises(ModelError, match=r"gone\.tflite cannot be read"):
        FaceDetector()


def test_a_mediapipe_that_cannot_be_loaded_is_told_plainly(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(BackendError, match="MediaPipe, which finds the faces, cannot be loaded"):
        FaceDetector()


def test_native_log_lines_stay_off_the_terminal():
    code = (
        "import sys, numpy as np\n"
        "from leaf_rt.faces.detector import FaceDetector\n"
        "from leaf_rt.types import Frame\n"
        "print('before', file=sys.stderr)\n"
        "with FaceDetector() as one:\n"
        "    one.detect(Frame(np.zeros((240, 320, 3), np.uint8), 0, 0.0, 's'))\n"
        "    one.detect_picture(np.zeros((240, 320, 3), np.uint8))\n"
        "print('after', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "before\nafter\n"
    assert done.stdout == ""
