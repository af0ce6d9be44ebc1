"""What live sources decode and convert when there is not enough time for all frames."""

from __future__ import annotations

import threading
import time
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
from leaf_rt.stream.decode_control import LATE, VERY_LATE, DecodeControl, DecodeTurns
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
    with DecodeControl(decoding, DecodeTurns(), FPS) as control:
        delays(control, 0.0, 60.0, vain=0.1)
        assert decoding.skip is Skip.NONE


def test_a_late_source_leaves_out_pictures_until_it_is_calm() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeTurns(), FPS) as control:
        now = delays(control, 1.5 * LATE, 5.0)
        assert decoding.skip is Skip.UNREFERENCED
        now = delays(control, 0.0, 4.0, now)
        assert decoding.skip is Skip.UNREFERENCED
        delays(control, 0.0, 3.0, now)
        assert decoding.skip is Skip.NONE


def test_frames_that_nobody_takes_are_left_out() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeTurns(), FPS) as control:
        delays(control, 0.0, 10.0, vain=0.8)
        assert decoding.skip is Skip.UNREFERENCED


def test_a_source_that_falls_back_further_waits_for_a_key_frame() -> None:
    for distance, expected in ((50, Skip.TO_KEY), (0, Skip.UNREFERENCED), (250, Skip.UNREFERENCED)):
        decoding = Decoding()
        decoding.key_distance = distance  # none is known yet, or too far apart
        with DecodeControl(decoding, DecodeTurns(), FPS) as control:
            delays(control, 3 * VERY_LATE, 3.0)
            assert decoding.skip is expected


def test_a_late_source_that_catches_up_does_not_wait() -> None:
    decoding = Decoding()
    decoding.key_distance = 50
    with DecodeControl(decoding, DecodeTurns(), FPS) as control:
        decoding.skip = Skip.UNREFERENCED
        for i in range(100):
            control.update(i / FPS + (0.0 if i == 0 else 2.0 - i / 60), i / FPS, in_vain=False)
        assert decoding.skip is Skip.UNREFERENCED


def test_a_clock_that_is_set_back_is_no_delay() -> None:
    decoding = Decoding()
    with DecodeControl(decoding, DecodeTurns(), FPS) as control:
        for i in range(50):
            control.update(i / FPS, i / FPS + (1000.0 if i < 25 else 0.0), in_vain=False)
        assert control.delay == pytest.approx(0.0, abs=1e-6)
        assert decoding.skip is Skip.NONE


def test_sources_whose_frames_come_in_vain_wait_in_turn() -> None:
    """As with 12 cameras whose frames are needed at a third of their rate; none of them is forgotten."""
    turns = DecodeTurns()
    decodings = [Decoding() for _ in range(12)]
    controls = [DecodeControl(decoding, turns, FPS).__enter__() for decoding in decodings]
    waited, most = [0] * 12, 0
    for i in range(int(120 * FPS)):
        for k, (decoding, control) in enumerate(zip(decodings, controls, strict=True)):
            decoding.key_distance = 50
            if decoding.skip is Skip.TO_KEY:
                if (i + 4 * k) % 50:
                    continue
                decoding.skip = Skip.UNREFERENCED  # as PacketDecoder does at a key frame
            before = decoding.skip
            control.update(i / FPS, i / FPS, in_vain=(i + k) % 3 != 0)
            waited[k] += decoding.skip > before and decoding.skip is Skip.TO_KEY
        most = max(most, sum(decoding.skip is Skip.TO_KEY for decoding in decodings))
    assert 12 > most > 6  # a third of the frames of 12 sources are those of four
    assert min(waited) >= 0.6 * max(waited) > 0


def test_a_single_source_does_not_wait_because_its_frames_come_in_vain() -> None:
    turns = DecodeTurns()
    decoding = Decoding()
    decoding.key_distance = 50
    with DecodeControl(decoding, turns, FPS) as control:
        delays(control, 0.0, 30.0, vain=0.9)
        assert decoding.skip is Skip.UNREFERENCED


def test_few_sources_decode_at_the_same_time() -> None:
    turns, lock = DecodeTurns(2), threading.Lock()
    running: list[int] = [0, 0]  # now, and the most

    def decode() -> None:
        for _ in range(5):
            with turns:
                with lock:
                    running[0] += 1
                    running[1] = max(running)
                time.sleep(0.001)
                with lock:
                    running[0] -= 1

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running == [0, 2]


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
