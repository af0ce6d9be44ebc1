"""Rules of a live connection: delays, media time, frozen pictures. Times are plain numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from leaf_rt.stream.reconnect import Backoff, FreezeWatch, MediaClock


def test_backoff_doubles_from_one_to_thirty_seconds() -> None:
    backoff = Backoff(random.Random(0), jitter=0.0)
    assert [backoff.lost(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_backoff_is_at_most_thirty_seconds_and_has_jitter() -> None:
    backoff = Backoff(random.Random(0))
    delays = [backoff.lost(0.0) for _ in range(200)]
    assert all(d is not None and d <= 30.0 for d in delays)
    firsts = {Backoff(random.Random(seed)).lost(0.0) for seed in range(20)}
    assert len(firsts) == 20
    assert all(0.9 <= d <= 1.1 for d in firsts if d is not None)


def test_backoff_is_reset_only_after_ten_healthy_seconds() -> None:
    backoff = Backoff(random.Random(0), jitter=0.0)
    assert [backoff.lost(0.0) for _ in range(4)] == [1, 2, 4, 8]
    backoff.connected(100.0)
    assert backoff.lost(109.9) == 16
    backoff.connected(200.0)
    assert backoff.lost(210.0) == 1


def test_backoff_limits_the_attempts_in_a_row() -> None:
    backoff = Backoff(random.Random(0), jitter=0.0, attempts=2)
    assert [backoff.lost(0.0) for _ in range(3)] == [1, 2, None]
    assert Backoff(random.Random(0), attempts=0).lost(0.0) is None


def test_backoff_does_not_overflow() -> None:
    backoff = Backoff(random.Random(0))
    for _ in range(5000):
        assert backoff.lost(0.0) is not None


def test_media_time_follows_the_stream_from_zero() -> None:
    clock = MediaClock()
    assert [clock.stamp(500 + i / 25, 7 + i / 25 + 0.01 * (i % 3)) for i in range(5)] == pytest.approx(
        [0.0, 0.04, 0.08, 0.12, 0.16]
    )
    assert clock.jumps == 0


def test_media_time_continues_by_wall_time_after_a_reconnect() -> None:
    clock = MediaClock()
    clock.stamp(100.0, 10.0)
    clock.stamp(101.0, 11.0)
    clock.restart()
    assert clock.stamp(0.0, 16.0) == pytest.approx(6.0)  # 5 s were lost
    assert clock.stamp(0.5, 16.5) == pytest.approx(6.5)
    assert clock.jumps == 0


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -0.04, 2.5])
def test_a_jump_of_the_stream_clock_is_removed(jump: float) -> None:
    clock = MediaClock()
    times = [clock.stamp(i / 25 + (jump if i >= 50 else 0.0), i / 25) for i in range(100)]
    assert np.diff(times) == pytest.approx(np.full(99, 0.04), abs=1e-9)
    assert clock.jumps == 1


def test_frames_that_arrive_in_a_burst_keep_their_intervals() -> None:
    """The network delayed them; the timestamps of the stream are right."""
    clock = MediaClock()
    arrived = [0.0, 0.04, 2.0, 2.001, 2.002, 2.003]
    assert [clock.stamp(i / 25, now) for i, now in enumerate(arrived)] == pytest.approx([i / 25 for i in range(6)])


def test_lost_frames_leave_a_gap() -> None:
    clock = MediaClock()
    clock.stamp(0.0, 0.0)
    assert clock.stamp(5.0, 5.1) == pytest.approx(5.0)
    assert clock.jumps == 0


def test_media_time_grows_with_any_timestamps() -> None:
    rng = np.random.default_rng(3)
    clock, now, times = MediaClock(), 0.0, []
    for _ in range(2000):
        now += float(rng.exponential(0.03))
        if rng.random() < 0.01:
            clock.restart()
        times.append(clock.stamp(float(rng.normal(now, 20.0)), now))
    assert (np.diff(times) > 0).all()
    assert times[-1] < now + 60


def test_a_frozen_picture_is_reported_once_until_it_changes() -> None:
    watch, image = FreezeWatch(10.0), np.zeros((48, 64, 3), np.uint8)
    reported = [watch.see(image, t) for t in range(15)]
    assert reported.index(True) == 10
    assert sum(reported) == 1
    assert watch.frozen
    changed = image.copy()
    changed[8, 8] = 1
    assert not watch.see(changed, 15.0)
    assert not watch.frozen
    assert [watch.see(changed, t) for t in (24.9, 25.0)] == [False, True]
