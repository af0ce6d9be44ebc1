"""Shares that hold: calibration by the quality of the picture, the prior, and the look of a face at rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import SPEC, FakeBackend, FakeDetector, face_at, frame

from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import ModelError
from leaf_rt.faces.quality import measure, quality
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.models.calibration import Calibration
from leaf_rt.models.quality import load_weights
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec, variant_path
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.evidence import FaceEvidence
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.resting import RestingFaces

PROBS = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], np.float32)
ONE = np.ones(2, np.float32)
SAD = np.array([0.35, 0.02, 0.03, 0.5, 0.06, 0.01, 0.01, 0.02], np.float32)  # the order of FERPLUS8
SMILE = np.array([0.02, 0.9, 0.03, 0.01, 0.01, 0.01, 0.01, 0.01], np.float32)


def test_without_a_calibration_the_answers_stay() -> None:
    np.testing.assert_allclose(Calibration().shares(PROBS, ONE / 2), PROBS, atol=1e-6)


def test_temperature_and_quality_change_the_shares_but_not_the_leading_class() -> None:
    calibration = Calibration(temperature=0.5, quality_exponent=1.0)
    clear, poor = calibration.shares(PROBS, ONE), calibration.shares(PROBS, ONE * np.float32(0.25))
    assert (clear.max(1) > PROBS.max(1)).all()
    assert (poor.max(1) < PROBS.max(1)).all()
    for shares in (clear, poor):
        assert (shares.argmax(1) == PROBS.argmax(1)).all()
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    # p^2 / sum(p^2)
    np.testing.assert_allclose(clear[0], np.array([0.25, 0.09, 0.04]) / 0.38, atol=1e-6)


def test_what_is_no_face_gets_no_label() -> None:
    for calibration in (Calibration(), Calibration(0.5, 1.0, prior=(0.8, 0.1, 0.1))):
        for prior in ("natural", "balanced") if calibration.prior else ("natural",):
            np.testing.assert_allclose(calibration.shares(PROBS, np.zeros(2, np.float32), prior), 1 / 3, atol=1e-6)


def test_a_balanced_prior_divides_by_the_frequencies_and_adds_up_to_1() -> None:
    calibration = Calibration(prior=(0.6, 0.3, 0.1), balance=1.0)
    shares = calibration.shares(PROBS, ONE, "balanced")
    expected = PROBS / np.array([0.6, 0.3, 0.1])
    np.testing.assert_allclose(shares, expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_a_balanced_prior_needs_a_model_that_knows_its_own() -> None:
    with pytest.raises(ModelError, match="--prior balanced: this model does not say how frequent"):
        Pipeline(FakeDetector([]), FaceTracker(), FakeBackend(), prior="balanced")


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0}, {"temperature": "x"}, {"balance": 10**400}, {"temperature": 1e-300},
        {"prior": "abcdefgh"}, {"uncertain_below": float("nan")}, {"prior": [0.5, 0.5]},
        {"prior": [0, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]}, {"face": [1.0, 2.0]}, {"color": 1},
        {"temperature": "1"}, {"temperature": True}, {"quality_exponent": "0.5"}, {"prior": ["0.125"] * 8},
        {"prior": 1}, {"quality_exponent": [1], "uncertain_below": [1], "balance": [1]}, {"fitted": [1]},
        {"face": [1e300] * 5}, {"prior": [1e-300, *[0.1] * 7]}, {"resting": [1e-300, *[0.1] * 7]}, {"resting": {}},
        {"face": "x" * 5},
    ],
)  # fmt: skip
def test_a_damaged_calibration_is_one_clear_error(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"ModelSpec\.calibration: is damaged; calibrate the model again"):
        Calibration.of(replace(SPEC, calibration=change))


def test_all_bundled_files_have_the_same_calibration() -> None:
    spec = load_spec(DEFAULT_MODEL)
    assert spec.calibration["fitted"]["clean"]["pictures"] > 1000
    assert len(Calibration.of(spec).face) == spec.feature_dim + 1
    for precision, suffix in (("fp16", ""), ("int8", ""), ("int8", ".xml")):
        path = variant_path(DEFAULT_MODEL, precision, suffix)
        if path.is_file():
            assert load_spec(path).calibration == spec.calibration
    fitted = spec.calibration["fitted"]["clean"]
    assert fitted["calibration_error"] <= 0.03
    assert fitted["flagged_wrong"] >= 0.45
    assert fitted["flagged_right"] <= 0.12


def test_the_threshold_is_that_of_the_model_unless_it_is_given() -> None:
    spec = replace(SPEC, calibration=Calibration(uncertain_below=0.7).to_dict())
    assert RecognitionConfig().threshold(spec) == 0.7
    assert RecognitionConfig(uncertain_below=0.2).threshold(spec) == 0.2
    assert RecognitionConfig().threshold(SPEC) == 0.4


def test_quality_falls_with_every_kind_of_damage() -> None:
    faces = golden_faces(64)[::8]
    clear = quality(faces)
    assert clear.dtype == np.float32
    assert clear.min() >= 0
    assert clear.max() <= 1
    noise = np.random.default_rng(0).normal(0, 30, (64, 64, 1))
    for name, damage in {
        "blur": lambda x: cv2.GaussianBlur(x, (0, 0), 3),
        "small": lambda x: cv2.resize(cv2.resize(x, (14, 14), interpolation=cv2.INTER_AREA), (64, 64)),
        "noise": lambda x: np.clip(x + noise, 0, 255).astype(np.uint8),
        "dark": lambda x: np.rint(x * 0.08).astype(np.uint8),
    }.items():
        worse = quality(np.stack([damage(face) for face in faces]))
        assert worse.mean() < 0.85 * clear.mean(), name


def test_quality_hardly_depends_on_the_size_of_the_crop() -> None:
    faces = golden_faces(64)[:16]
    large = np.stack([cv2.resize(face, (128, 128), interpolation=cv2.INTER_LINEAR) for face in faces])
    assert np.abs(quality(large) - quality(faces)).mean() < 0.15
    assert quality(faces[:0]).shape == (0,)


def test_a_single_colour_can_be_measured() -> None:
    assert np.isfinite(measure(np.zeros((1, 64, 64, 3), np.uint8))).all()


def test_damaged_weights_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    for content in (None, "{", "[]", '{"mean": [1]}'):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ModelError, match="is missing or damaged; install leaf-rt again"):
            load_weights(path)


class SureBackend(FakeBackend):
    """Answers like ``FakeBackend``, with a calibration that takes nothing doubtful for a face."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(SPEC, calibration=Calibration(face=(0.0, 0.0, 0.0, 0.0, -1.0)).to_dict())


@pytest.mark.parametrize(("confidence", "is_face"), [(0.6, False), (0.9, True)])
def test_a_false_face_in_a_video_gets_no_label_and_a_real_one_does(confidence: float, is_face: bool) -> None:
    pipeline = Pipeline(FakeDetector([face_at(50, 40, confidence=confidence)] * 12), FaceTracker(), SureBackend())
    shown = [e for e in (pipeline.step(frame(i, i / 10)) for i in range(12)) if len(e)]
    assert shown
    assert {float(e.quality[0]) > 0 for e in shown} == {is_face}
    assert {int(e.emotion[0]) for e in shown} == ({1} if is_face else {-1})


def test_a_doubtful_picture_loses_no_face_but_doubt_that_stays_does() -> None:
    evidence = FaceEvidence()
    profile = [0.5, 0.3, -0.3, 0.4, -0.2, 0.3]  # every 0.1 s
    assert all(evidence.filtered([1], np.array([e], np.float32), 0.1 * k)[0] > 0 for k, e in enumerate(profile))
    turned = [evidence.filtered([1], np.array([-0.4], np.float32), 0.6 + 0.1 * k)[0] for k in range(10)]
    assert turned[0] > 0 > turned[-1]
    assert evidence.filtered([2, 1], np.array([-0.4, np.nan], np.float32), 1.7).tolist() == pytest.approx(
        [-0.4, turned[-1]]
    )
    evidence.keep_only({2})
    assert evidence.filtered([1], np.array([0.1], np.float32), 1.8)[0] == pytest.approx(0.1)  # a new track


def answers(resting: RestingFaces, shares: np.ndarray, start: float, seconds: float = 3.0) -> np.ndarray:
    return np.array([resting.corrected(1, shares, start + k / 10) for k in range(round(10 * seconds))])


def test_a_resting_face_that_looks_sad_is_neutral_after_some_seconds() -> None:
    resting = RestingFaces(2.0, SPEC)
    shown = answers(resting, SAD, 0.0)
    assert shown[0].argmax() == 3
    assert shown[-1].argmax() == 0
    np.testing.assert_allclose(shown[-1].sum(), 1, atol=1e-6)
    assert answers(resting, SMILE, 3.0)[-1].argmax() == 1  # a smile stays one
    sadder = np.array([0.02, 0.01, 0.01, 0.93, 0.01, 0.01, 0.005, 0.005], np.float32)
    assert answers(resting, sadder, 6.0)[-1].argmax() == 3  # and so does real sadness


def test_a_held_smile_and_a_moving_face_are_no_rest() -> None:
    resting = RestingFaces(2.0, SPEC)
    answers(resting, SMILE, 0.0)
    assert not resting.is_known(1)
    moving = [SAD if k % 2 else SMILE for k in range(60)]
    for k, shares in enumerate(moving):
        np.testing.assert_array_equal(resting.corrected(2, shares, k / 10), shares)
    assert not resting.is_known(2)


def test_a_track_that_ends_is_forgotten() -> None:
    resting = RestingFaces(1.0, SPEC)
    answers(resting, SAD, 0.0)
    assert resting.is_known(1)
    resting.keep_only({2})
    assert not resting.is_known(1)


def test_resting_faces_need_the_class_neutral() -> None:
    with pytest.raises(ModelError, match="--calibrate: needs a model with the class neutral"):
        RestingFaces(2.0, replace(SPEC, labels=tuple("abcdefgh")))
