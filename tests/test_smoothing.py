import numpy as np
import pytest
from talking_faces import CHANGES, RATE, TALKERS, answers, changes_per_minute, delay, judge, mouth, shown

from leaf_rt.recognition.smoothing import UNCERTAIN_INDEX, Smoother, SmoothOptions


def onehot(k: int, c: int = 4, peak: float = 0.97) -> np.ndarray:
    p = np.full(c, (1 - peak) / (c - 1), np.float32)
    p[k] = peak
    return p


def signal(t: float) -> np.ndarray:
    """Return probabilities that swing slowly between class 0 and class 1."""
    a = 0.5 + 0.45 * np.sin(2 * np.pi * t / 3.0)
    return np.array([a, 0.95 - a, 0.03, 0.02], np.float32)


def curve(times: np.ndarray, at: np.ndarray) -> np.ndarray:
    smoother = Smoother(4)
    out, k = [], 0
    for t in at:
        while k < len(times) and times[k] <= t + 1e-9:
            smoother.update(1, signal(times[k]), float(times[k]))
            k += 1
        out.append(smoother.at(1, float(t))[0])
    return np.array(out)


def test_same_curve_at_10_30_60_fps_and_with_drops():
    at = np.arange(0, 6, 0.1)
    reference = curve(np.arange(0, 6.01, 1 / 60), at)
    for fps in (10, 30):
        assert np.abs(curve(np.arange(0, 6.01, 1 / fps), at) - reference).max() < 0.02
    drops = np.sort(np.random.default_rng(0).choice(np.arange(0, 6.01, 1 / 30), 90, replace=False))
    drops[0] = 0.0
    assert np.abs(curve(drops, at) - reference).max() < 0.08


def test_step_covers_63_percent_in_one_time_constant():
    smoother = Smoother(2, SmoothOptions(time_constant=0.3))
    smoother.update(1, np.array([1, 0], np.float32), 0.0)
    smoother.update(1, np.array([0, 1], np.float32), 1e-6)
    value, _ = smoother.at(1, 0.3)
    assert value[1] == pytest.approx(1 - np.exp(-1), abs=1e-3)


def test_rows_stay_probabilities_and_nan_is_ignored():
    rng = np.random.default_rng(1)
    smoother, t = Smoother(4), 0.0
    for i in range(300):
        t += float(rng.exponential(0.05))
        p = rng.dirichlet(np.ones(4)).astype(np.float32)
        smoother.update(1, np.full(4, np.nan, np.float32) if i % 7 == 3 else p, t)
        value, _ = smoother.at(1, t)
        assert np.isfinite(value).all()
        assert value.sum() == pytest.approx(1, abs=1e-5)
        assert (value >= 0).all()


def test_unknown_track_is_uniform_and_uncertain():
    value, emotion = Smoother(4).at(9, 1.0)
    assert value.tolist() == [0.25] * 4
    assert emotion == UNCERTAIN_INDEX


def test_labels_do_not_change_faster_than_min_dwell():
    options = SmoothOptions(time_constant=0.0, min_dwell=0.5)
    smoother, shown = Smoother(4, options), []
    for i in range(200):  # the raw result changes at every frame
        smoother.update(1, onehot(i % 2), i / 30)
        shown.append((i / 30, smoother.at(1, i / 30)[1]))
    changes = [t for (t, now), (_, before) in zip(shown[1:], shown[:-1], strict=True) if now != before]
    assert len(changes) > 2
    assert np.diff(changes).min() >= 0.5 - 1e-9


def test_a_small_lead_does_not_change_the_label():
    smoother = Smoother(2, SmoothOptions(time_constant=0.0, margin=0.1))
    smoother.update(1, np.array([0.6, 0.4], np.float32), 0.0)
    smoother.update(1, np.array([0.47, 0.53], np.float32), 1.0)
    assert smoother.at(1, 1.0)[1] == 0
    smoother.update(1, np.array([0.4, 0.6], np.float32), 2.0)
    assert smoother.at(1, 2.0)[1] == 1


def test_flat_probabilities_are_uncertain():
    smoother = Smoother(4, SmoothOptions(time_constant=0.0))
    smoother.update(1, onehot(2), 0.0)
    smoother.update(1, np.full(4, 0.25, np.float32), 1.0)
    assert smoother.at(1, 1.0)[1] == UNCERTAIN_INDEX


def test_time_zero_is_valid_and_old_results_are_ignored():
    smoother = Smoother(4)
    smoother.update(1, onehot(0), 0.0)
    smoother.update(1, onehot(1), 0.0)
    smoother.update(1, onehot(1), -1.0)
    assert smoother.at(1, 0.0)[0].argmax() == 0


def test_the_filter_restarts_after_a_gap():
    smoother = Smoother(4, SmoothOptions(max_gap=1.0))
    smoother.update(1, onehot(0), 0.0)
    smoother.update(1, onehot(1), 5.0)
    assert smoother.at(1, 5.0)[0] == pytest.approx(onehot(1))


def test_tracks_are_independent_and_freed():
    smoother = Smoother(4)
    smoother.update(1, onehot(0), 0.0)
    smoother.update(2, onehot(1), 0.0)
    assert smoother.at(1, 0.0)[1] == 0
    assert smoother.at(2, 0.0)[1] == 1
    smoother.keep_only(np.array([2], np.int64))
    assert len(smoother) == 1


@pytest.mark.parametrize("bad", [{"time_constant": -1.0}, {"margin": float("nan")}])
def test_errors_name_the_wrong_option(bad: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SmoothOptions(**bad)


NO_TALKING = SmoothOptions(talking_time_constant=0.0)


@pytest.mark.parametrize("loud", [0.25, 0.35, 0.45, 0.55])
@pytest.mark.parametrize("name", TALKERS)
def test_a_talking_mouth_is_no_change_of_the_expression(name: str, loud: float):
    series = [answers(name, mouth(60, seed, loud)) for seed in range(3)]
    assert max(changes_per_minute(shown(probs, SmoothOptions())) for probs in series) <= 12.1
    if name == "actress" and loud > 0.3:  # the filter without the measure of swings cannot do that
        assert min(changes_per_minute(shown(probs, NO_TALKING)) for probs in series) > 20


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_change_while_talking_is_shown_hardly_later(before: str, after: str):
    for seed in range(4):
        extra = delay(before, after, seed, 0.45, SmoothOptions()) - delay(before, after, seed, 0.45, NO_TALKING)
        assert extra <= 0.4 + 1e-6


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_change_of_a_still_face_is_shown_as_soon_as_without_the_measure_of_swings(before: str, after: str):
    assert delay(before, after, 0, 0.0, SmoothOptions()) == delay(before, after, 0, 0.0, NO_TALKING)


def test_two_changes_of_a_face_that_holds_each_expression_for_three_seconds_are_not_slowed():
    still = np.zeros(3 * RATE)
    probs = np.concatenate([answers(name, still) for name in ("man", "man smiling") * 3])
    assert shown(probs, SmoothOptions()) == shown(probs, NO_TALKING)


@pytest.mark.slow
def test_faces_that_chose_no_constant_talk_as_calmly_and_change_as_fast():
    """35 faces of other pictures than those that the constants were chosen on."""
    loud = (0.35, 0.55)
    before, late = judge(NO_TALKING, 20, loud)
    after, later = judge(SmoothOptions(), 20, loud)
    assert max(before.values()) > 12
    assert len(after) == 35
    assert max(after.values()) <= 12
    assert len(late) >= 10
    assert max(b - a for a, b in zip(late, later, strict=True)) <= 0.4


def test_talking_gives_the_same_curve_at_10_30_60_fps():
    def swing(fps: int) -> np.ndarray:
        smoother, out = Smoother(2), []
        for k in range(6 * fps):
            a = 0.5 + 0.45 * np.sin(2 * np.pi * 1.0 * k / fps)
            smoother.update(1, np.array([a, 1 - a], np.float32), k / fps)
            if k % (fps // 10) == 0:
                out.append(smoother.at(1, k / fps)[0])
        return np.array(out)

    reference = swing(60)
    assert reference[30:].max() - reference[30:].min() < 0.3  # without the measure of swings it is 0.42
    for fps in (10, 30):
        assert np.abs(swing(fps) - reference).max() < 0.02


@pytest.mark.parametrize("time_constant", [0.0, 0.3])
def test_the_measure_of_swings_can_be_switched_off(time_constant: float):
    probs = answers("actress", mouth(10, 0, 0.45))
    off = [SmoothOptions(time_constant, talking_time_constant=t) for t in (0.0, time_constant)]
    assert shown(probs, off[0]) == shown(probs, off[1])
    if time_constant == 0:
        assert shown(probs, SmoothOptions(time_constant)) == shown(probs, off[0])
