"""What live sources decode and convert when there is not enough time for all frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import DEMO
from fakes import FakeBackend
from streams import LIVE, Keeping, Opener, Script, balanced, frame, picture, pipelines, play

from leaf_rt.media import ffmpeg
from leaf_rt.sources.base import Decodes, Decoding, Selector, Skip, SourceOptions, Target
from leaf_rt.sources.decoding import PacketDecoder
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.decode_control import CALM, LATE, STEADY, VERY_LATE, DecodeBudget, DecodeControl
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.types import U8, Frame, LazyImage

FPS = 25.0


# What a source leaves out


def decoded(path: Path, skip_from: dict[int, Skip], until: float = 6.5) -> tuple[list[tuple[int, int]], Decoding]:
    """(number, time in ticks) of the frames of a clip; ``skip_from`` gives what is left out from a packet on."""
    decoding, found, number, sent = Decoding(), [], -1, 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = PacketDecoder(stream, decoding)
        for packet in container.demux(stream):
            decoding.skip = skip_from.get(sent, decoding.skip)
            sent += 1
            frames, _ = decoder.decode(packet)
            for one, left_out in frames:
                number += 1 + left_out
                assert one.pts is not None
                found.append((number, one.pts))
            if found and found[-1][1] * float(stream.time_base or 0) >= until:
                break
    return found, decoding


def test_frames_keep_their_numbers_and_times_when_others_are_left_out() -> None:
    everything, complete = decoded(DEMO, {})
    some, decoding = decoded(DEMO, {10: Skip.UNREFERENCED})
    assert complete.skipped == 0
    assert 0.4 * len(everything) < len(some) < 0.7 * len(everything)
    assert set(some) <= set(everything)
    assert decoding.skipped == some[-1][0] + 1 - len(some)


def test_a_source_waits_for_its_next_key_frame_and_goes_on_from_there() -> None:
    everything, _ = decoded(DEMO, {})
    some, decoding = decoded(DEMO, {80: Skip.TO_KEY})  # its key frames are 72 apart
    assert decoding.key_distance == 72
    assert decoding.skip is Skip.UNREFERENCED
    assert set(some) <= set(everything)
    numbers = [number for number, _ in some]
    gap = int(np.diff(numbers).argmax())
    assert numbers[gap] <= 80
    assert numbers[gap + 1] == 2 * 72
    assert decoding.skipped == numbers[-1] + 1 - len(numbers)


def test_every_nth_frame_is_read_although_frames_are_missing() -> None:
    selector = Selector(SourceOptions(stride=4))
    given = [0, 1, 3, 5, 6, 9, 11, 13]
    assert [i for i in given if selector.selects(i, i / FPS)] == [0, 5, 9, 13]
    late = Selector(SourceOptions(stride=4))
    assert [i for i in range(6, 18) if late.selects(i, i / FPS)] == [8, 12, 16]


# What decides it


def delays(control: DecodeControl, delay: float, seconds: float, start: float = 0.0, vain: float = 0.0) -> float:
    """Give frames that are late by ``delay`` s at the end; returns the time of the last one, s."""
    count = int(seconds * FPS)
    for i in range(count):
        time_of_frame = start + i / FPS
        late = delay * (i + 1) / count
        control.update(time_of_frame + late, time_of_frame, in_vain=(i * vain) % 1.0 + vain >= 1.0)
    return start + count / FPS


def test_everything_is_decoded_while_frames_come_in_time() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        delays(control, 0.0, 60.0, vain=0.1)
        assert decoding.skip is Skip.NONE


def test_single_late_frames_do_not_count() -> None:
    """As on a busy machine: a frame in three is late, and the others show that the source keeps up."""
    decoding = Decoding()
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        for i in range(int(20 * FPS)):
            control.update(i / FPS + (0.0 if i % 3 else 2 * LATE), i / FPS, in_vain=False)
            assert decoding.skip is Skip.NONE


def test_a_late_source_leaves_out_pictures_until_there_is_room() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        now = delays(control, 2 * LATE, 5.0)
        assert decoding.skip is Skip.UNREFERENCED
        now = delays(control, 0.0, CALM, now)
        assert decoding.skip is Skip.UNREFERENCED
        delays(control, 0.0, 1.0, now)
        assert decoding.skip is Skip.NONE


def recovery(control: DecodeControl, decoding: Decoding, start: float) -> float:
    """Let a source be late for 2 s and then in time; returns how long pictures are left out after that, s."""
    for i in range(int(2 * FPS)):
        control.update(start + i / FPS + 2 * LATE, start + i / FPS, in_vain=False)
    assert decoding.skip is Skip.UNREFERENCED
    for i in range(int(2 * FPS), int(60 * FPS)):
        control.update(start + i / FPS, start + i / FPS, in_vain=False)
        if decoding.skip is Skip.NONE:
            return i / FPS - 2
    return 60.0


def test_where_everything_soon_proves_too_much_the_next_attempt_comes_later() -> None:
    decoding, now, times = Decoding(), 0.0, []
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        for steady in (1.0, 1.0, 1.0, STEADY):
            now = delays(control, 0.0, steady, now)
            times.append(recovery(control, decoding, now))
            now += 2.0 + times[-1] + 1 / FPS
    first, second, third, last = times
    assert first < 2.0
    assert second - first == pytest.approx(CALM, abs=0.2)
    assert third - second == pytest.approx(2 * CALM, abs=0.2)
    assert last == pytest.approx(first, abs=0.2)


def test_frames_that_nobody_takes_are_left_out() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        delays(control, 0.0, 10.0, vain=0.8)
        assert decoding.skip is Skip.UNREFERENCED


def test_a_source_that_falls_back_further_waits_for_a_key_frame() -> None:
    for distance, expected in ((50, Skip.TO_KEY), (0, Skip.UNREFERENCED), (250, Skip.UNREFERENCED)):
        decoding = Decoding()
        decoding.key_distance = distance  # none is known yet, or too far apart
        with DecodeControl(decoding, DecodeBudget(), FPS) as control:
            delays(control, 3 * VERY_LATE, 3.0)
            assert decoding.skip is expected


def test_a_late_source_that_catches_up_does_not_wait() -> None:
    decoding = Decoding()
    decoding.key_distance = 50
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        decoding.skip = Skip.UNREFERENCED
        for i in range(100):
            control.update(i / FPS + (0.0 if i == 0 else 2.0 - i / 60), i / FPS, in_vain=False)
        assert decoding.skip is Skip.UNREFERENCED


def test_a_clock_that_is_set_back_is_no_delay() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeBudget(), FPS) as control:
        for i in range(50):
            control.update(i / FPS, i / FPS + (1000.0 if i < 25 else 0.0), in_vain=False)
        assert control.delay == pytest.approx(0.0, abs=1e-6)
        assert decoding.skip is Skip.NONE


class Machine:
    """Sources that are decoded and processed by simulated cores, with the controls of a run. No thread, no real time.

    Every frame is sent at its time. Decoding takes first what it needs, up to half of the cores, as threads that all
    want to run do; the pipeline takes the frames of the sources in turn with the rest. No picture needs the odd ones.
    Key frames are 3 s apart.

    Args:
        count: Sources.
        apart: Pictures between the key frames of two sources; 0 for key frames that come at the same time.
        cores: CPU seconds per second, at a time, s.
        decode: CPU s per picture.
        record: CPU s per processed frame.
    """

    GOP = int(3 * FPS)

    def __init__(
        self, count: int, cores: Callable[[float], float], apart: int, decode: float = 1e-3, record: float = 6e-3
    ) -> None:
        self._cores, self._apart, self._decode, self._record = cores, apart, decode, record
        budget, self.decodings = DecodeBudget(), [Decoding() for _ in range(count)]
        self.controls = [DecodeControl(decoding, budget, FPS) for decoding in self.decodings]
        for control, decoding in zip(self.controls, self.decodings, strict=True):
            decoding.key_distance = self.GOP
            control.__enter__()
        self._next = [0] * count  # the next picture to decode
        self._waiting: list[int | None] = [None] * count  # the newest decoded picture, unless it was taken
        self._taken = [0.0] * count  # when a frame was last taken
        self._decoder = 0
        self.tick = 0
        self.done = [0] * count
        self.latencies: list[float] = []

    def run(self, seconds: float) -> list[int]:
        """Go on; returns the frames processed meanwhile, by source."""
        before = list(self.done)
        for _ in range(int(seconds * FPS)):
            self._step()
        return [late - early for late, early in zip(self.done, before, strict=True)]

    def _step(self) -> None:
        self.tick += 1
        now = self.tick / FPS
        budget = self._cores(now) / FPS
        least, count = budget / 2, len(self.done)
        while budget > least and any(number < self.tick for number in self._next):
            self._decoder = (self._decoder + 1) % count
            budget -= self._decode_one(self._decoder, now)
        waiting = sorted((k for k in range(count) if self._waiting[k] is not None), key=lambda k: self._taken[k])
        for k in waiting:
            if budget <= 0:
                break
            budget -= self._record
            self.done[k] += 1
            self.latencies.append(now - (self._waiting[k] or 0) / FPS)
            self._waiting[k], self._taken[k] = None, now

    def _decode_one(self, k: int, now: float) -> float:
        """Decode the next picture of a source, or leave it out; returns the cost, s."""
        decoding, number = self.decodings[k], self._next[k]
        if number >= self.tick:
            return 0.0
        self._next[k] += 1
        place = (number + self._apart * k) % self.GOP
        if place == 0:  # as PacketDecoder does
            decoding.keys, decoding.since_key = decoding.keys + 1, 0
            decoding.skip = min(decoding.skip, Skip.UNREFERENCED)
        decoding.since_key += 1
        if decoding.skip is Skip.TO_KEY or (decoding.skip is Skip.UNREFERENCED and place % 2):
            return 0.0
        self.controls[k].update(now, number / FPS, in_vain=self._waiting[k] is not None)
        self._waiting[k] = number
        return self._decode


@pytest.mark.parametrize(("apart", "soon"), [(0, 6), (7, 0)])
def test_after_a_late_start_everything_is_decoded_again_soon(apart: int, soon: int) -> None:
    """Within two seconds, or for sources that have left a group of pictures out, two seconds after the next one began.

    ``soon``: sources that must be among the first.
    """
    machine = Machine(8, lambda now: 0.2 if now < 2.0 else 2.0, apart)
    machine.run(2.0)
    assert all(decoding.skip is not Skip.NONE for decoding in machine.decodings)
    machine.run(0.5)  # catches up
    machine.run(2.0)
    assert sum(decoding.skip is Skip.NONE for decoding in machine.decodings) >= soon
    machine.run(3.0)
    assert all(decoding.skip is Skip.NONE for decoding in machine.decodings)
    assert sum(machine.run(10.0)) >= 0.98 * 8 * 10 * FPS


@pytest.mark.parametrize("apart", [0, 7])
@pytest.mark.parametrize("cores", [1.0, 2.0])
def test_more_sources_than_the_machine_can_serve_cost_freshness_not_throughput(cores: float, apart: int) -> None:
    """32 sources send 800 frames/s, 4.8 times what one core can do even if it decoded nothing."""
    best = 0.0
    for count in (4, 8, 16, 32):
        machine = Machine(count, lambda now: cores, apart)
        machine.run(10.0)
        machine.latencies.clear()
        done = machine.run(21.0)
        best = max(best, sum(done))
        assert sum(done) >= 0.85 * best, count
        assert min(done) >= 0.45 * max(done) > 0, count
        assert np.percentile(machine.latencies, 95) < 0.3


def test_where_only_key_frames_are_decoded_of_some_groups_all_sources_have_them_in_turn() -> None:
    for apart in (0, 7):
        machine = Machine(64, lambda now: 1.0, apart)
        machine.run(10.0)
        waited = [0] * 64
        for _ in range(int(60 * FPS)):
            machine.run(1 / FPS)
            waited = [n + (d.skip is Skip.TO_KEY) for n, d in zip(waited, machine.decodings, strict=True)]
        assert min(waited) >= 0.5 * max(waited) > 0


def test_a_source_without_regular_key_frames_goes_on_decoding() -> None:
    machine = Machine(64, lambda now: 1.0, 7)
    for decoding in machine.decodings[:4]:
        decoding.key_distance = 250
    machine.run(30.0)
    assert all(decoding.skip is Skip.UNREFERENCED for decoding in machine.decodings[:4])


def test_a_single_source_does_not_wait_because_its_frames_come_in_vain() -> None:
    budget = DecodeBudget()
    decoding = Decoding()
    decoding.key_distance = 50
    with DecodeControl(decoding, budget, FPS) as control:
        delays(control, 0.0, 30.0, vain=0.9)
        assert decoding.skip is Skip.UNREFERENCED


# What a run converts


def lazy(index: int, made: list[int]) -> Frame:
    """A frame that notes when its picture is made."""

    def make() -> U8:
        made.append(index)
        return picture(index)

    return replace(frame(index), pixels=LazyImage(make))


def test_only_frames_that_are_taken_are_converted_and_each_once() -> None:
    made: list[int] = []
    sink = Keeping(wants_image=True)
    entries = [entry for i in range(200) for entry in (lazy(i, made), lambda: time.sleep(0.001))]
    opener = Opener(a=[Script(LIVE, entries)])
    stats = play(opener, "a", ask=SourceOptions(max_reconnects=0), shared=[sink], act=lambda one: time.sleep(0.02))
    (source,) = stats.sources
    assert source.dropped > 0
    assert made == [index for _, index, _, _ in sink.rows]
    assert len(made) == source.processed


def test_pictures_are_those_of_pyav_and_use_its_memory() -> None:
    converter = ffmpeg.Converter()
    with av.open(str(DEMO)) as container:
        for _, one in zip(range(30), container.decode(video=0), strict=False):
            image = converter.to_bgr(one)
            assert not image.flags.owndata
            assert np.array_equal(image, one.to_ndarray(format="bgr24"))
        assert np.array_equal(converter.to_bgr(one, mirror=True), image[:, ::-1])


def test_a_picture_with_gaps_between_its_rows_is_copied() -> None:
    for width in (2, 30, 34, 50, 98):
        image = np.arange(20 * width * 3, dtype=np.uint32).astype(np.uint8).reshape(20, width, 3)
        for format_ in ("bgr24", "rgb24"):
            one = av.VideoFrame.from_ndarray(image, format=format_)
            found = ffmpeg.Converter().to_bgr(one)
            assert found.flags.c_contiguous
            assert np.array_equal(found, image if format_ == "bgr24" else image[..., ::-1])


def test_ffmpeg_sources_can_leave_out_pictures_and_a_replay_has_one_decoder_thread() -> None:
    with open_source(str(DEMO), SourceOptions(realtime=True)) as source:
        assert isinstance(source, Decodes)
    assert not isinstance(Script(LIVE, []), Decodes)


@pytest.mark.slow
def test_too_many_replays_share_the_machine_evenly() -> None:
    """Each frame costs so much that a third of the frames can be processed at most, on any machine."""
    targets = [Target(str(DEMO), SourceOptions(realtime=True, loop=True)) for _ in range(8)]
    backend = FakeBackend()
    make = pipelines(backend, lambda one: time.sleep(0.03))
    stats = run(targets, make, backend, options=RunOptions(duration=8.0, workers=2))
    assert balanced(stats)
    done = [source.processed for source in stats.sources]
    assert min(done) >= 0.5 * max(done) > 0
    assert sum(source.dropped for source in stats.sources) > sum(done)
    assert all(source.skipped > 0 for source in stats.sources)
