"""Summaries and the timeline."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from leaf_rt.labels import COLORS, FERPLUS8
from leaf_rt.render.timeline import clock, timeline_png
from leaf_rt.results.columns import ColumnBuilder
from leaf_rt.results.summary import Summary
from leaf_rt.types import Estimates, Frame

NEUTRAL, HAPPY, SAD = (FERPLUS8.index(name) for name in ("neutral", "happiness", "sadness"))


def seen(timestamp: float, shown: dict[int, int]) -> Estimates:
    """Return a frame with some people, each with a label (-1: uncertain) of probability 0.79."""
    n = len(shown)
    probs = np.full((n, 8), 0.03, np.float32)
    for row, emotion in enumerate(shown.values()):
        probs[row, max(emotion, 0)] = 0.79
    return Estimates(
        timestamp=timestamp,
        track_id=np.array(list(shown), np.int64),
        xyxy=np.tile(np.array([[0, 0, 9, 9]], np.float32), (n, 1)),
        confidence=np.ones(n, np.float32),
        probs=probs,
        smoothed=probs,
        emotion=np.array(list(shown.values()), np.int64),
        classified=np.ones(n, np.bool_),
        low_quality=np.zeros(n, np.bool_),
        seen=np.zeros((0, 4), np.float32),
    )


def picture(timestamp: float, index: int = 0, generation: int = 0) -> Frame:
    return Frame(np.zeros((0, 0, 3), np.uint8), index, timestamp, "clip.mp4", generation)


def run(frames: list[Estimates], **options: float) -> Summary:
    summary = Summary(FERPLUS8, **options)  # type: ignore[arg-type]
    for index, frame in enumerate(frames):
        summary.add(picture(frame.timestamp, index), frame)
    summary.finish()
    return summary


def test_shares_of_a_steady_clip() -> None:
    summary = run([seen(i / 25, {1: HAPPY if i < 75 else SAD}) for i in range(100)])
    (person,) = summary.people()
    assert person.seconds == pytest.approx(4.0)
    assert person.shares(FERPLUS8) == pytest.approx({"happiness": 0.75, "sadness": 0.25})
    assert list(person.shares(FERPLUS8)) == ["happiness", "sadness"]
    assert (summary.start, summary.end) == pytest.approx((0.0, 4.0))
    assert (person.first, person.last) == pytest.approx((0.0, 4.0))


def test_shares_are_of_time_not_of_frames() -> None:
    """100 frames in the first second and 2 in the next give equal shares."""
    times = [*np.arange(100) / 100, 1.0, 1.5]
    summary = run([seen(float(t), {1: HAPPY if t < 1 else SAD}) for t in times])
    (person,) = summary.people()
    assert person.seconds == pytest.approx(2.0)
    assert person.shares(FERPLUS8) == pytest.approx({"happiness": 0.5, "sadness": 0.5})


def test_any_start_time_is_valid_also_zero() -> None:
    for offset in (-5.0, 0.0, 1e6):
        summary = run([seen(offset + i / 10, {3: NEUTRAL}) for i in range(11)])
        assert summary.people()[0].seconds == pytest.approx(1.1)
        assert summary.start == pytest.approx(offset)


def test_time_without_the_person_does_not_count() -> None:
    frames = [seen(i / 10, {1: HAPPY} if i < 10 or i >= 30 else {}) for i in range(40)]
    (person,) = run(frames).people()
    assert person.seconds == pytest.approx(2.0)
    assert person.times.max() == pytest.approx(3.9, abs=0.03)
    assert not ((person.times > 1.01) & (person.times < 2.99)).any()


def test_a_short_view_of_somebody_else_is_no_time_on_screen() -> None:
    frames = [
        replace(seen(i / 25, {2 if shot == 1 else 1: SAD}), shot=shot)
        for shot, part in enumerate((range(25), range(25, 45), range(45, 70)))
        for i in part
    ]
    assert {p.person_id: p.seconds for p in run(frames).people()} == pytest.approx({1: 2.0, 2: 0.8})


def test_uncertain_counts_as_a_label() -> None:
    (person,) = run([seen(i / 10, {1: -1}) for i in range(10)]).people()
    assert person.shares(FERPLUS8) == pytest.approx({"uncertain": 1.0})
    assert set(person.emotion.tolist()) == {-1}


def test_people_are_sorted_by_time_on_screen() -> None:
    frames = [seen(i / 10, {1: HAPPY, 2: SAD} if i > 5 else {2: SAD}) for i in range(20)]
    assert [p.track_id for p in run(frames).people()] == [2, 1]


def run_with_gaps(frames: list[Estimates]) -> Summary:
    """As ``run``, for frames that show a face among others of a video with 25 frames per second."""
    summary = Summary(FERPLUS8)
    for frame in frames:
        summary.add(picture(frame.timestamp, round(frame.timestamp * 25)), frame)
    summary.finish()
    return summary


def late_return(late: int) -> list[Estimates]:
    """One person, away for 2 s; the new track 5 has its own number for some frames before the person is recognized."""
    frames = [seen(k / 25, {1: HAPPY if k < 40 else SAD}) for k in range(50)]
    for k in range(100, 150):
        frame = seen(k / 25, {5: HAPPY})
        frames.append(replace(frame, person_id=np.array([5 if k < 100 + late else 1], np.int64)))
    return frames


def test_a_person_recognized_late_is_one_person_with_all_its_time() -> None:
    at_once, late = (run_with_gaps(late_return(frames)) for frames in (0, 12))
    (wanted,), (person,) = at_once.people(), late.people()
    assert person.person_id == person.track_id == 1
    assert person.seconds == pytest.approx(wanted.seconds) == pytest.approx(4.0)
    assert (person.first, person.last) == pytest.approx((wanted.first, wanted.last))
    for name in ("shown", "mean_share", "times", "curve", "emotion"):
        assert getattr(person, name) == pytest.approx(getattr(wanted, name), nan_ok=True)
    assert [(e["person_id"], e["track_id"]) for e in late.events] == [(1, 1), (1, 1), (1, 5)]
    assert person.longest == wanted.longest


def test_events_that_ended_before_a_late_recognition_belong_to_the_person() -> None:
    frames = [seen(k / 25, {1: HAPPY}) for k in range(50)]
    for k in range(100, 150):
        frame = seen(k / 25, {5: SAD if k < 106 else HAPPY})
        frames.append(replace(frame, person_id=np.array([5 if k < 112 else 1], np.int64)))
    summary = run_with_gaps(frames)
    assert {e["person_id"] for e in summary.events} == {1}
    (person,) = summary.people()
    assert person.shares(FERPLUS8) == pytest.approx({"happiness": 94 / 100, "sadness": 6 / 100})


def test_columns_have_the_final_person_of_each_track() -> None:
    builder = ColumnBuilder(8)
    for index, frame in enumerate(late_return(12)):
        builder.add(picture(frame.timestamp, index), frame, 0.0)
    columns = builder.build()
    assert set(columns.person_id.tolist()) == {1}
    assert sorted(set(columns.track_id.tolist())) == [1, 5]
    assert columns.pose.shape == columns.blendshapes.shape == (100, 0)
    empty = ColumnBuilder(8).build()
    assert (len(empty), empty.pose.shape) == (0, (0, 0))


def test_curves_are_probabilities_in_order_of_time() -> None:
    (person,) = run([seen(i / 60, {1: HAPPY}) for i in range(240)]).people()
    np.testing.assert_allclose(person.curve.sum(axis=1), 1.0, atol=1e-5)
    assert (np.diff(person.times) > 0).all()
    np.testing.assert_allclose(person.curve[:, HAPPY], 0.79, atol=1e-5)


def test_a_stall_counts_for_max_gap_and_a_reconnect_does_not_count() -> None:
    summary = Summary(FERPLUS8, max_gap=1.0)
    for index, t in enumerate((0.0, 0.1, 0.2, 10.2, 10.3)):
        summary.add(picture(t, index), seen(t, {1: HAPPY}))
    summary.finish()
    assert summary.people()[0].seconds == pytest.approx(0.1 + 0.1 + 1.0 + 0.1 + 0.1)
    summary = Summary(FERPLUS8)
    for t, generation in ((0.0, 0), (0.1, 0), (50.0, 1), (50.1, 1)):
        summary.add(picture(t, 0, generation), seen(t, {1: HAPPY}))
    summary.finish()
    assert summary.people()[0].seconds == pytest.approx(0.4)


def test_a_single_frame_has_no_duration_but_an_expression() -> None:
    (person,) = run([seen(3.0, {1: HAPPY})]).people()
    assert person.seconds == 0.0
    assert person.shares(FERPLUS8) == {"happiness": 1.0}
    assert person.emotion.tolist() == [HAPPY]
    assert person.curve[0, HAPPY] == pytest.approx(0.79)


def test_long_runs_become_coarser_and_keep_their_sums() -> None:
    frames = [seen(i / 10, {1: HAPPY if i % 2 else SAD}) for i in range(5000)]
    summary = run(frames, max_intervals=300)
    (person,) = summary.people()
    assert len(person.times) <= 300
    assert person.seconds == pytest.approx(500.0)
    assert person.shares(FERPLUS8)["happiness"] == pytest.approx(0.5)
    assert (person.first, person.last) == pytest.approx((0.0, 500.0))


def test_people_who_left_are_dropped_shortest_first() -> None:
    frames = [seen(i / 10, {1: HAPPY, 100 + i: SAD}) for i in range(300)]
    summary = run(frames, max_people=50)
    people = summary.people()
    assert people[0].track_id == 1
    assert people[0].seconds == pytest.approx(30.0)
    assert len(people) <= 51
    assert len(people) + summary.people_forgotten == 301


def test_empty_runs() -> None:
    summary = run([])
    assert (summary.frames, summary.people()) == (0, [])
    summary = run([seen(i / 10, {}) for i in range(10)])
    assert (summary.frames, summary.frames_with_faces, summary.people()) == (10, 0, [])
    assert summary.end == pytest.approx(1.0)


def test_wrong_number_of_classes() -> None:
    with pytest.raises(ValueError, match="wanted 2 classes, got 8"):
        Summary(("a", "b")).add(picture(0.0), seen(0.0, {1: HAPPY}))


def colors_in(png: bytes) -> dict[tuple[int, int, int], int]:
    """Count the pixels of each RGB color."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    packed, counts = np.unique(image @ np.array([65536, 256, 1]), return_counts=True)
    return {(c >> 16, c >> 8 & 255, c & 255): n for c, n in zip(packed.tolist(), counts.tolist(), strict=True)}


def test_the_timeline_shows_emotions_in_their_colors() -> None:
    summary = run([seen(i / 25, {1: HAPPY if i < 50 else SAD}) for i in range(100)])
    shown = colors_in(timeline_png(summary, "clip.mp4"))
    for name in ("happiness", "sadness"):
        assert shown[COLORS[name]] > 5 * shown[COLORS["anger"]]


def test_in_the_timeline_nothing_reaches_over_a_cut() -> None:
    frames = [seen(i / 25, {1: HAPPY if i < 50 else SAD}) for i in range(100)]
    cut = run([replace(frame, shot=int(i >= 50)) for i, frame in enumerate(frames)])
    assert cut.cuts == [2.0]
    pictures = []
    for summary in (run(frames), cut):
        png = np.frombuffer(timeline_png(summary, "clip.mp4"), np.uint8)
        pictures.append(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB))
    without, image = pictures
    lane = image[150:]
    line = 1.45 * 150 + (10 - 1.45 - 0.3) * 150 * 2.0 / cut.end  # px
    for color, first, last in (("happiness", 0, line), ("sadness", line, image.shape[1])):
        columns = np.flatnonzero((np.abs(lane[..., :].astype(int) - COLORS[color]).sum(axis=2) < 20).sum(axis=0) > 20)
        inside = columns[(columns > 1.45 * 150) & (columns < image.shape[1] - 50)]
        assert inside.min() >= first - 1
        assert inside.max() <= last + 1
    legend = (slice(90, 125), slice(1060, image.shape[1]))
    assert (without[legend] == 255).all()
    assert not (image[legend] == 255).all()


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [seen(0.0, {1: HAPPY})],
        [seen(i / 10, {}) for i in range(10)],
        [seen(i * 1000.0, {1: HAPPY, 2: SAD}) for i in range(30)],
        [seen(1e9 + i / 10, {i % 3: -1}) for i in range(30)],
        [seen(i / 10, dict.fromkeys(range(20), HAPPY)) for i in range(10)],
    ],
)
def test_the_timeline_can_draw_any_run(frames: list[Estimates]) -> None:
    png = timeline_png(run(frames), "映像 $x_1$ " + "long " * 40)
    assert png.startswith(b"\x89PNG")
    assert len(colors_in(png)) > 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (4.25, "4.2 s"),
        (60, "1:00 min"),
        (727.4, "12:07 min"),
        (11099, "3:04:59 h"),
        (3599.7, "1:00:00 h"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
