import numpy as np
import pytest
from fakes import FakeBackend, FakeDetector, face_at, frame, join

from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.shots import ShotDetector
from leaf_rt.types import Detections, Frame, Prediction


def pipeline(script: list[Detections], backend: FakeBackend | None = None, **options: float) -> Pipeline:
    return Pipeline(FakeDetector(script), FaceTracker(), backend or FakeBackend(), options=PipelineOptions(**options))


def run(pipe: Pipeline, n: int, fps: float = 30.0) -> list:
    return [pipe.step(frame(i, i / fps)) for i in range(n)]


def test_one_face_from_first_to_last_frame():
    out = run(pipeline([face_at(50 + i, 40) for i in range(30)]), 30)
    shown = [e for e in out if len(e)]
    assert len(shown) >= 28
    assert {int(e.track_id[0]) for e in shown} == {1}
    last = shown[-1]
    assert last.smoothed[0].argmax() == last.emotion[0] == 1
    assert last.smoothed.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_classify_fps_does_not_depend_on_the_frame_rate():
    for fps in (30.0, 25.0, 60.0):
        backend = FakeBackend()
        run(pipeline([face_at(50, 40)] * 600, backend, classify_fps=10.0), int(5 * fps), fps)
        assert sum(backend.batches) == pytest.approx(50, abs=3)


def test_rate_zero_classifies_every_frame():
    backend = FakeBackend()
    out = run(pipeline([face_at(50, 40)] * 20, backend, classify_fps=0.0), 20)
    assert sum(backend.batches) == sum(bool(e.classified.any()) for e in out) >= 18


def test_many_faces_take_turns_over_the_frames():
    crowd = join(*(face_at(70 * (i % 4), 70 * (i // 4), 50) for i in range(12)))
    backend = FakeBackend()
    out = run(pipeline([crowd] * 30, backend, max_per_frame=4), 30)
    assert max(backend.batches) == 4
    assert len(out[-1]) == 12


@pytest.mark.slow
@pytest.mark.parametrize("fps", [10, 25, 60])
@pytest.mark.parametrize(("faces", "rate"), [(1, 10), (4, 40), (16, 40), (29, 43.5)])
def test_a_crowd_needs_no_more_classifications_per_second_than_four_faces(faces, rate, fps):
    crowd = join(*(face_at(50 * (i % 6), 45 * (i // 6), 40) for i in range(faces)))
    backend = FakeBackend()
    out = run(pipeline([crowd] * 4 * fps, backend), 4 * fps, fps)
    assert len(out[1]) == faces  # new faces are classified at once
    later = backend.batches[fps:]
    assert sum(later) / 3 == pytest.approx(rate, rel=0.05)
    assert max(later) <= rate / fps + 2
    classified_at = {i: [e.timestamp for e in out if e.classified[e.track_id == i].any()] for i in range(1, faces + 1)}
    longest = max(np.diff(times).max() for times in classified_at.values())
    assert longest <= 1.6 * faces / rate + 2 / fps  # all take turns


@pytest.mark.parametrize("every", [2, 4])
def test_skipped_frames_do_not_reduce_the_number_of_classifications(every):
    four = join(*(face_at(70 * i, 40, 50) for i in range(4)))
    backend = FakeBackend()
    seconds, fps = 6, 30
    script = [four if i % every == 0 else Detections.empty() for i in range(seconds * fps)]
    run(pipeline(script, backend, classify_fps=5.0, max_classify_fps=20.0), seconds * fps, fps)
    assert sum(backend.batches[fps:]) / (seconds - 1) == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(("max_classify_fps", "rate"), [(80.0, 80), (0.0, 160)])
def test_max_classify_fps_limits_a_crowd_and_zero_sets_no_limit(max_classify_fps, rate):
    crowd = join(*(face_at(50 * (i % 6), 45 * (i // 6), 40) for i in range(16)))
    backend = FakeBackend()
    run(pipeline([crowd] * 100, backend, max_classify_fps=max_classify_fps), 100, 25)
    assert sum(backend.batches[25:]) / 3 == pytest.approx(rate, rel=0.05)


def test_rate_zero_classifies_every_face_of_any_crowd():
    crowd = join(*(face_at(50 * (i % 6), 45 * (i // 6), 40) for i in range(29)))
    backend = FakeBackend()
    run(pipeline([crowd] * 5, backend, classify_fps=0.0), 5)
    assert backend.batches == [29] * 5


def test_a_face_that_was_not_searched_is_still_reported():
    pipe = pipeline([face_at(50, 40)] * 15, max_coast=0.2)
    run(pipe, 15)
    pipe.detector.lag = 0.3
    assert len(pipe.step(frame(28, 28 / 30))) == 1  # 0.47 s after the detection
    pipe.detector.lag = 0.0
    assert len(pipe.step(frame(29, 29 / 30))) == 0


def test_max_faces_keeps_the_largest_faces():
    two = join(face_at(10, 10, 40), face_at(150, 50, 120))
    out = run(pipeline([two] * 10, max_faces=1), 10)
    assert len(out[-1]) == 1
    assert out[-1].xyxy[0, 2] > 200


def test_seen_contains_unconfirmed_and_just_lost_faces():
    unsure, sure = face_at(10, 10, 40, confidence=0.7), face_at(150, 50, 120)
    pipe = pipeline([join(unsure, sure)] + [sure] * 14, max_faces=1)
    first, *_ = run(pipe, 15)
    assert [len(first), len(first.seen)] == [1, 2]
    assert first.seen[0].tolist() == unsure.xyxy[0].tolist()
    gone = pipe.step(frame(30, 30 / 30))  # 0.5 s after the detection: no row, but the face may still be there
    assert [len(gone), len(gone.seen)] == [0, 1]
    assert gone.seen[0] == pytest.approx(sure.xyxy[0], abs=6)
    assert len(pipe.step(frame(60, 60 / 30)).seen) == 0


def test_seen_contains_faces_beyond_max_faces_and_unclassified_ones():
    two = join(face_at(10, 10, 40), face_at(150, 50, 120))
    assert all(len(e.seen) == 2 for e in run(pipeline([two] * 10, max_faces=1), 10))
    first = pipeline([two], max_per_frame=1).step(frame(0, 0.0))
    assert [len(first), len(first.seen)] == [1, 2]


def test_a_face_that_left_is_soon_not_reported():
    out = run(pipeline([face_at(50, 40)] * 15, max_coast=0.2), 60)
    last = max(i for i, e in enumerate(out) if len(e))
    assert 14 <= last <= 14 + 0.2 * 30 + 1


def test_an_ended_track_frees_its_state():
    pipe = pipeline([face_at(50, 40)] * 15)
    run(pipe, 300)
    assert len(pipe.smoother) == 0


def test_a_reconnect_resets_everything_but_the_ids():
    pipe = pipeline([face_at(50, 40)] * 40)
    before = [pipe.step(frame(i, i / 30)) for i in range(20)]
    after = [pipe.step(frame(i, i / 30, generation=1)) for i in range(20, 40)]
    assert pipe.detector.resets == 1
    assert {int(i) for e in before for i in e.track_id}.isdisjoint({int(i) for e in after for i in e.track_id})


@pytest.mark.parametrize("shots", [ShotDetector(), None])
def test_tracks_end_where_the_size_of_the_frames_changes(shots: ShotDetector | None):
    pipe = Pipeline(FakeDetector([face_at(50, 40)] * 40), FaceTracker(), FakeBackend(), shots=shots)
    before = [pipe.step(frame(i, i / 30)) for i in range(20)]
    picture = np.zeros((400, 800, 3), np.uint8)
    after = [pipe.step(Frame(picture, i, i / 30, "test")) for i in range(20, 40)]
    assert {int(i) for e in before for i in e.track_id}.isdisjoint({int(i) for e in after for i in e.track_id})
    assert after[-1].shot == (0 if shots is None else 1)  # --no-cuts counts none


def test_results_that_are_not_finite_are_ignored():
    class Broken(FakeBackend):
        def infer(self, faces: np.ndarray) -> Prediction:
            good = super().infer(faces)
            if len(self.batches) % 3 == 0:
                good.probs[:] = np.nan
            return good

    out = run(pipeline([face_at(50, 40)] * 40, Broken(), classify_fps=0.0), 40)
    assert all(np.isfinite(e.probs).all() and np.isfinite(e.smoothed).all() for e in out)
    assert len(out[-1]) == 1


def test_frames_without_faces_give_empty_estimates_of_the_right_shape():
    estimates = pipeline([]).step(frame(0, 0.0))
    assert estimates.probs.shape == (0, 8)
    assert estimates.xyxy.shape == (0, 4)


def test_step_equals_prepare_infer_finish():
    script = [face_at(50 + 2 * i, 40) for i in range(12)]
    one, two, backend = pipeline(script), pipeline(script), FakeBackend()
    for i in range(12):
        a = one.step(frame(i, i / 30))
        pending = two.prepare(frame(i, i / 30))
        b = two.finish(pending, backend.infer(pending.crops))
        assert a.track_id.tolist() == b.track_id.tolist()
        assert np.array_equal(a.smoothed, b.smoothed)


def test_frames_may_be_searched_long_before_the_frames_before_them_are_finished() -> None:
    """A connection, a change of size and a hard cut end the tracks at their frame, not when they are found."""
    scenes = [
        np.random.default_rng(k).integers(0, 255, (12, 16, 3), np.uint8).repeat(20, 0).repeat(20, 1) for k in (0, 1)
    ]
    pictures = [*[scenes[0]] * 4, *[scenes[0]] * 3, *[scenes[0][:120, :160]] * 3, *[scenes[0]] * 3, *[scenes[1]] * 4]
    frames = [Frame(image, i, i / 25, "a", int(i >= 4)) for i, image in enumerate(pictures)]

    def make() -> Pipeline:
        script = [face_at(50, 40)] * len(frames)
        return Pipeline(FakeDetector(script), FaceTracker(), FakeBackend(), shots=ShotDetector())

    alone, ahead = make(), make()
    expected = [alone.step(frame) for frame in frames]
    pending = [ahead.detect(frame) for frame in frames]
    for found, wanted in zip(pending, expected, strict=True):
        half = ahead.plan(found)
        got = ahead.finish(half, ahead.backend.infer(half.crops))
        assert (got.shot, got.track_id.tolist()) == (wanted.shot, wanted.track_id.tolist())
        assert got.smoothed.tobytes() == wanted.smoothed.tobytes()
    assert [estimates.shot for estimates in expected] == [0] * 7 + [1] * 3 + [2] * 3 + [3] * 4
    assert [estimates.track_id.tolist() for estimates in expected] == (
        [[1]] * 4 + [[2]] * 3 + [[3]] * 3 + [[4]] * 3 + [[5]] * 4
    )
