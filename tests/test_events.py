"""Events: when they start and end, their times and ids, the filters, and the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from commands import Leaf
from streams import INFO, LABELS, LIVE, estimates, frame

from leaf_rt.results.events import EventTracker
from leaf_rt.sinks.events import EventSink
from leaf_rt.types import Estimates

SCHEMA = json.loads((Path(__file__).parents[1] / "leaf_rt" / "event.schema.json").read_text(encoding="utf-8"))
SHORT = ("phase", "emotion", "start_s", "end_s", "dwell_s")


def showing(time: float, *emotions: int) -> Estimates:
    """People 1, 2, ... who show these emotions."""
    return replace(estimates(time, len(emotions)), emotion=np.array(emotions, np.int64))


def play(tracker: EventTracker, shown: Sequence[int], fps: float = 10.0, **fields: Any) -> list[dict[str, Any]]:
    """The events of one person over the frames of "a", the first of them at 0 s."""
    return [
        event
        for index, emotion in enumerate(shown)
        for event in tracker.update("a", frame(index, index / fps, **fields), showing(index / fps, emotion))
    ]


def short(events: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(event[name] for name in SHORT) for event in events]


def test_start_and_end_are_told_at_once_and_share_an_id() -> None:
    tracker = EventTracker(LABELS)
    events = play(tracker, [1, 1, 1, -1, -1, 3, 3])
    assert short(events) == [
        ("start", "happiness", 0.0, None, None),
        ("end", "happiness", 0.0, 0.3, 0.3),
        ("start", "uncertain", 0.3, None, None),
        ("end", "uncertain", 0.3, 0.5, 0.2),
        ("start", "sadness", 0.5, None, None),
    ]
    events += tracker.close()
    assert short(events)[5:] == [("end", "sadness", 0.5, 0.6, 0.1)]
    ids = [event["event_id"] for event in events]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3
    assert tracker.close() == []
    for event in events:
        jsonschema.validate(json.loads(json.dumps(event)), SCHEMA)


def test_the_schema_rejects_other_events() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    start, end = play(EventTracker(LABELS), [1, 1, 3])[:2]
    bad = [{**start, "peak": 0.5}, {**end, "peak": None}, {**end, "schema_version": 1}, {**end, "x": 1}]
    bad += [{**end, "source": "rtsp://u:p@cam/1"}, {**end, "end_at": "today"}]
    for event in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(event, SCHEMA)


def test_live_events_have_the_time_of_day() -> None:
    tracker = EventTracker(LABELS)
    for index, at in enumerate((1_700_000_000.0, 1_700_000_000.5)):
        started = tracker.update("cam", frame(index, index / 2, captured_at=at), showing(index / 2, 1))
        jsonschema.validate(started[0], SCHEMA) if started else None
    (ended,) = tracker.close()
    assert (ended["start_at"], ended["end_at"]) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:20.500Z")
    assert play(EventTracker(LABELS), [1])[0]["start_at"] is None  # a file has none


def test_ids_are_the_same_for_the_same_frames_and_differ_between_live_runs() -> None:
    def ids(**fields: Any) -> list[str]:
        tracker = EventTracker(LABELS)
        return [event["event_id"] for event in play(tracker, [1, 1, 3, 1], **fields)]

    assert ids() == ids()
    assert not set(ids(captured_at=1_700_000_000.0)) & set(ids(captured_at=1_700_000_999.0))


def test_the_peak_is_the_largest_share_of_the_label_and_of_any_class_if_uncertain() -> None:
    tracker = EventTracker(LABELS)
    for index, (emotion, happiness, fear) in enumerate([(1, 0.5, 0.3), (1, 0.6, 0.2), (-1, 0.3, 0.35), (-1, 0.2, 0.3)]):
        shares = np.full((1, len(LABELS)), 0.01, np.float32)
        shares[0, 1], shares[0, LABELS.index("fear")] = happiness, fear
        tracker_events = tracker.update(
            "a", frame(index, index / 10), replace(showing(index / 10, emotion), smoothed=shares)
        )
        if index == 2:
            assert tracker_events[0]["peak"] == pytest.approx(0.6)
    assert tracker.close()[0]["peak"] == pytest.approx(0.35)


def test_an_absence_a_reconnect_and_a_lost_source_end_an_event() -> None:
    tracker = EventTracker(LABELS)
    play(tracker, [1, 1])
    assert tracker.update("a", frame(11, 1.1), showing(1.1)) == []  # away for 1.0 s
    assert short(tracker.update("a", frame(12, 1.2), showing(1.2))) == [("end", "happiness", 0.0, 0.1, 0.1)]
    tracker.update("a", frame(13, 1.3), showing(1.3, 1))
    ended, started = tracker.update("a", frame(14, 1.4, generation=1), showing(1.4, 1))
    assert (ended["generation"], started["generation"]) == (0, 1)
    tracker.update("b", frame(0, 0.0), showing(0.0, 3))
    assert short(tracker.end("a")) == [("end", "happiness", 1.4, 1.4, 0.0)]
    assert tracker.end("a") == []
    assert [event["source"] for event in tracker.close()] == ["b"]


def test_people_and_sources_are_separate() -> None:
    tracker = EventTracker(LABELS)
    tracker.update("a", frame(0, 0.0), showing(0.0, 1, 3))
    tracker.update("b", frame(0, 0.0), showing(0.0, 1))
    events = tracker.update("a", frame(1, 0.1), showing(0.1, 1, 4))
    assert [(e["source"], e["track_id"], e["phase"], e["emotion"]) for e in events] == [
        ("a", 2, "end", "sadness"),
        ("a", 2, "start", "anger"),
    ]
    assert len({event["event_id"] for event in tracker.close()}) == 3


def test_a_second_file_of_the_same_name_ends_the_events_of_the_first() -> None:
    tracker = EventTracker(LABELS)
    first = play(tracker, [1] * 9)
    second = play(tracker, [1])
    assert [event["phase"] for event in second] == ["end", "start"]
    assert second[0]["dwell_s"] == 0.8
    assert second[1]["event_id"] != first[0]["event_id"]


def test_only_the_wanted_emotions_are_told() -> None:
    tracker = EventTracker(LABELS, emotions={"sadness", "uncertain"})
    events = play(tracker, [1, 1, 3, -1, 1]) + tracker.close()
    assert [(e["phase"], e["emotion"]) for e in events] == [
        ("start", "sadness"),
        ("end", "sadness"),
        ("start", "uncertain"),
        ("end", "uncertain"),
    ]
    with pytest.raises(ValueError, match=r"emotions: wanted some of neutral.*got joy"):
        EventTracker(LABELS, emotions=["joy"])


def test_short_events_are_not_told_and_a_late_start_has_its_true_time() -> None:
    tracker = EventTracker(LABELS, min_dwell=0.3)
    for index, emotion in enumerate([1, 1, 3, 3, 3]):
        assert tracker.update("a", frame(index, index / 10), showing(index / 10, emotion)) == []
    (started,) = tracker.update("a", frame(5, 0.5), showing(0.5, 3))
    assert (started["phase"], started["emotion"], started["start_s"]) == ("start", "sadness", 0.2)
    (ended,) = tracker.update("a", frame(6, 0.6), showing(0.6, 1))
    assert (ended["event_id"], ended["dwell_s"]) == (started["event_id"], pytest.approx(0.4))
    assert tracker.close() == []  # the last happiness was short


def test_an_event_that_becomes_long_enough_as_it_ends_is_told_whole() -> None:
    tracker = EventTracker(LABELS, min_dwell=0.5)
    tracker.update("a", frame(0, 0.0), showing(0.0, 1))
    events = tracker.update("a", frame(1, 0.6), showing(0.6, 3))
    assert short(events) == [("start", "happiness", 0.0, None, None), ("end", "happiness", 0.0, 0.6, 0.6)]


def test_the_file_has_each_line_as_soon_as_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EventSink(path, EventTracker(LABELS)) as sink:
        sink.write(INFO, frame(0, 0.0), showing(0.0, 1), 0.0)
        assert [json.loads(line)["phase"] for line in path.read_text().splitlines()] == ["start"]
        sink.write(LIVE, frame(0, 0.0), showing(0.0, 1), 0.0)
        sink.write(INFO, frame(1, 0.1), showing(0.1, 3), 0.0)
        assert path.read_text().count("\n") == 4
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["phase"] for event in events].count("end") == 3
    assert {event["source"] for event in events} == {"cam", "clip.mp4"}


def test_the_events_of_a_clip_are_those_of_its_records(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    records, events = tmp_path / "r.jsonl", tmp_path / "e.jsonl"
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--jsonl", records, "--events", events)
    assert done.code == 0, done.err
    shown: list[tuple[str, float, float]] = []  # label, start, peak of the only person
    for row in map(json.loads, records.read_text().splitlines()):
        share = max(row["smoothed"].values()) if row["emotion"] == "uncertain" else row["smoothed"][row["emotion"]]
        if shown and shown[-1][0] == row["emotion"]:
            shown[-1] = (*shown[-1][:2], max(shown[-1][2], share))
        else:
            shown.append((row["emotion"], row["pts_s"], share))
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    for row in rows:
        jsonschema.validate(row, SCHEMA)
    assert [(r["emotion"], r["start_s"], r["peak"]) for r in rows if r["phase"] == "end"] == shown
