"""The face detectors on real images and clips, alone and with the tracker."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import DEMO

from leaf_rt.errors import ModelError
from leaf_rt.faces.blazeface import BlazeFace
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import HIDE_PERIOD, VideoFaceDetector
from leaf_rt.geometry import iou
from leaf_rt.models.detectors import DETECTORS, DetectorFiles
from leaf_rt.types import Detections, Frame, Tracks

Shown = list[tuple[Frame, Detections, Tracks]]


@pytest.fixture(scope="module")
def image_detector() -> Iterator[ImageFaceDetector]:
    with ImageFaceDetector() as detector:
        yield detector


@pytest.fixture
def detector() -> Iterator[VideoFaceDetector]:
    with VideoFaceDetector() as detector:
        yield detector


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
    with VideoFaceDetector() as detector:
        for frame in frames(path, count):
            if frame.index % stride == 0:
                found = detector.detect(frame)
                shown.append((frame, found, tracker.update(found, frame.timestamp)))
    return shown


def sightings(shown: Shown) -> dict[int, list[tuple[float, np.ndarray]]]:
    """Return time and box of every detection, by track id."""
    out: dict[int, list[tuple[float, np.ndarray]]] = {}
    for frame, found, tracks in shown:
        for track_id, row in zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True):
            if row >= 0:
                out.setdefault(track_id, []).append((frame.timestamp, found.xyxy[row]))
    return out


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the shape of every image that a model sees from now on."""
    calls: list[tuple[int, ...]] = []
    find = BlazeFace.find

    def counted(self: BlazeFace, images: Sequence[np.ndarray]) -> list[Detections]:
        calls.extend(image.shape for image in images)
        return find(self, images)

    monkeypatch.setattr(BlazeFace, "find", counted)
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
def test_images(media, image_detector, name, low, high):
    image = cv2.imread(str(media / name))
    found = image_detector.detect(image)
    assert low <= len(found) <= high
    centre = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
    assert (centre >= 0).all()
    assert (centre < image.shape[1::-1]).all()
    eyes = found.keypoints[:, 1, 0] - found.keypoints[:, 0, 0]  # the person's left is on our right
    assert (eyes > 0).all()


def test_one_person_is_one_track_from_the_first_to_the_last_frame(media):
    shown = follow(media / "single_face.mp4")
    assert all(t.track_id.tolist() == [1] and t.detection_index.tolist() == [0] for _, _, t in shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "end"),
    # Checked by eye: the man is visible until 2.367 s in the first clip, and from 3.945 s on in the second.
    [("face_noface.mov", 0.0, 2.367), ("noface_face.mov", 3.945, 6.345)],
)
def test_a_face_that_leaves_or_enters_is_one_track(media, name, start, end):
    seen = sightings(follow(media / name))
    assert list(seen) == [1]
    assert seen[1][0][0] == pytest.approx(start, abs=0.2)
    assert seen[1][-1][0] == pytest.approx(end, abs=0.2)


def test_a_clip_without_faces_gives_no_detections(media):
    assert sum(len(found) for _, found, _ in follow(media / "no_face.mp4")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 3])
def test_one_person_stays_one_track_behind_hands_and_in_turns(stride):
    shown = follow(DEMO, stride=stride)
    assert {i for _, _, t in shown for i in t.track_id.tolist()} == {1}
    assert np.mean([len(found) == 1 for _, found, _ in shown]) > 0.98


@pytest.mark.slow
def test_a_street_scene_costs_about_two_calls_per_frame(media, monkeypatch):
    calls = count_calls(monkeypatch)
    shown = follow(media / "street_1080p.mp4")
    assert len(calls) <= 2.5 * len(shown)
    visible = [int((t.time_since_update <= 0.2).sum()) for _, _, t in shown]
    assert np.median(visible) >= 4
    for track_id, seen in sightings(shown).items():
        for (t0, a), (t1, b) in itertools.pairwise(seen):
            width = np.sqrt((a[2] - a[0]) * (b[2] - b[0]))
            distance = np.hypot(*((a[:2] + a[2:] - b[:2] - b[2:]) / 2)) / width
            assert distance < 0.5 + 8 * (t1 - t0), f"id {track_id} jumps at {t1:.2f} s"  # the fastest moves 6 widths/s


def test_with_hide_period_new_faces_are_found_within_200_ms(media, image_detector):
    clip = list(frames(media / "street_1080p.mp4", 13))
    tracker = FaceTracker()
    with VideoFaceDetector(scan_period=HIDE_PERIOD) as detector:
        known = [tracker.update(detector.detect(frame), frame.timestamp).xyxy for frame in clip]
    for end in (7, 12):  # 0.2 s are five frames
        before, now = (image_detector.detect(clip[i].image).xyxy for i in (end - 5, end))
        there = now[(iou(now, before) > 0.3).any(axis=1)]
        assert len(there) >= 3
        assert (iou(there, known[end]) > 0.3).any(axis=1).all()


def test_the_search_is_fast_while_no_face_is_known(monkeypatch):
    looks = {}
    for period in (0.15, 0.8, 5.0):
        with VideoFaceDetector(scan_period=period) as detector:
            calls = []
            monkeypatch.setattr(
                detector._search, "_propose", lambda _image, _kind, regions, calls=calls: calls.extend(regions) or []
            )
            for i in range(26):
                detector.detect(Frame(np.zeros((360, 640, 3), np.uint8), i, i / 25, "x"))
            looks[period] = len(calls)
    assert looks[5.0] == looks[0.8]
    assert looks[0.15] == pytest.approx(2 * looks[0.8], rel=0.3)


def test_many_small_faces_cost_little_more_per_frame_than_one_face(media, monkeypatch):
    image = cv2.imread(str(media / "solvay_1927.jpg"))
    calls = count_calls(monkeypatch)
    tracker = FaceTracker()
    with VideoFaceDetector() as detector:
        for i in range(51):
            if i == 1:
                calls.clear()
            frame = Frame(image, i, i / 25, "still")
            tracks = tracker.update(detector.detect(frame), frame.timestamp)
            assert 27 <= len(tracks) <= 30
            assert tracks.time_since_update.max() <= 0.3
            assert detector.lag >= tracks.time_since_update.max() - 0.04
    assert len(calls) / 50 <= 2.3  # one or two close-up calls and a share of a search; one face needs 1.7
    assert tracks.track_id.max() <= 31


@pytest.mark.parametrize("fps", [8, 24])
def test_the_number_of_searches_per_second_does_not_depend_on_the_frame_rate(monkeypatch, fps):
    every = 24 // fps
    pictures = [f for f in frames(DEMO, 97) if f.index % every == 0]
    calls = count_calls(monkeypatch)
    with VideoFaceDetector() as detector:
        detector.detect(pictures[0])
        calls.clear()
        for frame in pictures[1:]:
            assert len(detector.detect(frame)) == 1
    searches = [shape for shape in calls if shape != (128, 128, 3)]
    assert len(searches) == pytest.approx(25, abs=4)  # in 4 s


def test_one_face_costs_about_as_much_as_one_call_on_the_whole_frame():
    pictures = list(frames(DEMO, 120))
    ours, whole = [], []
    model = choose_detector().open("short")
    with VideoFaceDetector() as detector:
        detector.detect(pictures[0])
        for frame in pictures[1:]:  # alternate, and count CPU time: others use the machine too
            start = time.thread_time()
            detector.detect(frame)
            middle = time.thread_time()
            model.find([frame.image])
            ours.append(middle - start)
            whole.append(time.thread_time() - middle)
    assert np.median(ours) < 2.0 * np.median(whole)


def test_detect_every_skips_frames_and_tracks_coast():
    tracker = FaceTracker()
    with VideoFaceDetector(detect_every=3) as detector:
        found, ids = [], set()
        for frame in frames(DEMO, 30):
            detections = detector.detect(frame)
            found.append(len(detections))
            ids.update(tracker.update(detections, frame.timestamp).track_id.tolist())
    assert found == [1, 0, 0] * 10
    assert ids == {1}


def test_at_reduced_effort_frames_that_come_rarely_cost_no_whole_search(monkeypatch):
    """Where a machine can process a frame per second of each source, it must not become slower for that."""
    for level, interval, looks, most in (
        (0, 1.5, 6, 99),
        (3, 1.5, 6, 1),
        (3, 0.35, 3, 1),
        (1, 1.5, 6, 4),
        (3, 0.05, 2, 1),
    ):
        with VideoFaceDetector() as detector:
            steps: list[int] = []
            propose = detector._search.propose

            def note(image, plan, propose=propose, steps=steps):
                steps.append(len(plan))
                return propose(image, plan)

            monkeypatch.setattr(detector._search, "propose", note)
            detector.reduce_effort(level)
            for i in range(6):
                detector.detect(Frame(np.full((360, 640, 3), 90, np.uint8), i, i * interval, "a"))
        assert len(steps) == looks
        assert steps[0] >= 3  # the first frame is searched completely
        assert max(steps[1:]) <= most
        assert level > 0 or min(steps) == steps[0]


def test_lag_is_the_time_since_a_face_was_last_looked_for():
    with VideoFaceDetector(detect_every=3) as detector:
        lags = []
        for frame in frames(DEMO, 9):
            detector.detect(frame)
            lags.append(detector.lag)
    assert lags == pytest.approx([0, 1 / 24, 2 / 24] * 3, abs=2e-3)


@pytest.mark.parametrize("detector_range", ["short", "full"])
def test_every_range_finds_a_near_face(detector_range):
    frame = next(frames(DEMO))
    with VideoFaceDetector(range=detector_range) as detector:
        assert len(detector.detect(frame)) == 1
    with ImageFaceDetector(range=detector_range) as detector:
        assert len(detector.detect(frame.image)) == 1


def test_the_box_of_a_face_cut_off_by_the_border_is_not_shifted():
    image = next(frames(DEMO)).image
    for name in ("auto", "mediapipe"):
        model = choose_detector(name).open("short")
        (whole,) = model.find([image])
        width = whole.xyxy[0, 2] - whole.xyxy[0, 0]
        up, left = (int(whole.xyxy[0, k] + 0.25 * width) for k in (1, 0))
        for cut_y, cut_x in ((up, 0), (0, left)):
            (part,) = model.find([image[cut_y:, cut_x:]])
            assert part.xyxy[0, :2].min() < 0
            assert np.abs(part.xyxy[0] + (cut_x, cut_y) * 2 - whole.xyxy[0]).max() < 0.2 * width
        model.close()


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (1, 500), (15, 15), (16, 3000), (3000, 17)])
def test_images_too_small_for_a_face_give_no_detection(image_detector, detector, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert len(image_detector.detect(image)) == 0
    assert len(detector.detect(Frame(image, 0, 0.0, "s"))) == 0


def test_the_frame_size_may_change(image_detector, detector):
    image = next(frames(DEMO)).image
    for i, scale in enumerate([1.0, 1.0, 0.5, 0.5, 2.0, 1.0]):
        picture = cv2.resize(image, None, fx=scale, fy=scale)
        found = detector.detect(Frame(picture, i, i / 25, "s"))
        assert len(found) == 1
        assert found.keypoints[0, 2] / scale == pytest.approx(image_detector.detect(image).keypoints[0, 2], abs=25)


def test_timestamps_may_repeat_jump_and_restart(detector):
    image = next(frames(DEMO)).image
    for i, t in enumerate([0.0, 0.0, 0.0, 5.0, 1e9, 1e9, 2.0, 2.0001, -1.0, 0.0]):
        assert len(detector.detect(Frame(image, i, t, "s"))) == 1
    detector.reset()
    assert len(detector.detect(Frame(image, 0, 0.0, "s"))) == 1


def test_the_same_frames_give_the_same_faces():
    def once() -> list[Detections]:
        with VideoFaceDetector() as detector:
            return [detector.detect(frame) for frame in frames(DEMO, 20)]

    for a, b in zip(once(), once(), strict=True):
        assert a.xyxy.tolist() == b.xyxy.tolist()
        assert a.keypoints.tolist() == b.keypoints.tolist()


def test_two_detectors_do_not_affect_each_other(media):
    there, empty = frames(DEMO, 20), frames(media / "no_face.mp4", 20)
    with VideoFaceDetector() as first, VideoFaceDetector() as second:
        for a, b in zip(there, empty, strict=True):
            assert (len(first.detect(a)), len(second.detect(b))) == (1, 0)


def test_errors_name_the_wrong_argument():
    with pytest.raises(ValueError, match=r"face detector: range: wanted one of auto, short, full, got 'far'"):
        VideoFaceDetector(range="far")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_confidence"):
        VideoFaceDetector(min_confidence=1.5)
    with pytest.raises(ValueError, match="detect_every"):
        VideoFaceDetector(detect_every=0)
    with pytest.raises(ValueError, match="scan_period"):
        VideoFaceDetector(scan_period=0.0)


def test_a_closed_detector_raises():
    detector = VideoFaceDetector()
    detector.close()
    detector.close()
    with pytest.raises(ValueError, match="closed"):
        detector.detect(Frame(np.zeros((64, 64, 3), np.uint8), 0, 0.0, "s"))


@pytest.mark.parametrize("name", ["auto", "mediapipe"])
def test_a_damaged_or_missing_model_raises(monkeypatch, name):
    short = DETECTORS["short"]
    for file, problem in (("gone", r"gone cannot be read"), (None, r"short_range\.\w+ is damaged .* install leaf-rt")):
        files = {part: (file or getattr(short, part)[0], "0" * 64) for part in ("onnx", "tflite")}
        monkeypatch.setitem(DETECTORS, "short", DetectorFiles(**files))
        with pytest.raises(ModelError, match=problem):
            VideoFaceDetector(detector=name)


def test_native_log_lines_stay_off_the_terminal():
    code = (
        "import sys, numpy as np\n"
        "from leaf_rt.faces.image_detector import ImageFaceDetector\n"
        "from leaf_rt.faces.video_detector import VideoFaceDetector\n"
        "from leaf_rt.types import Frame\n"
        "print('before', file=sys.stderr)\n"
        "name = sys.argv[1]\n"
        "with VideoFaceDetector(detector=name) as video, ImageFaceDetector(detector=name) as images:\n"
        "    video.detect(Frame(np.zeros((240, 320, 3), np.uint8), 0, 0.0, 's'))\n"
        "    images.detect(np.zeros((240, 320, 3), np.uint8))\n"
        "print('after', file=sys.stderr)\n"
    )
    for name in ("onnxruntime", "openvino", "mediapipe"):
        command = [sys.executable, "-c", code, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stderr == "before\nafter\n"
        assert done.stdout == ""
