"""Recognizer.stream: files, live sources and arrays; it always ends in good order."""

from __future__ import annotations

import _thread
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import DEMO, demo_frames
from rtsp_server import RtspServer, encode

import leaf_rt
from leaf_rt import errors
from leaf_rt.recognizer.source import SourceArguments
from leaf_rt.sources.base import SourceOptions

OURS = ("leaf_rt run", "capture", "writer", "faces", "open")


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(OURS)]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[leaf_rt.Recognizer]:
    from engines_fakes import tiny_onnx

    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    tiny_onnx(path)
    with leaf_rt.Recognizer(path, backend="onnxruntime") as found:
        yield found


@pytest.fixture(autouse=True)
def no_thread_stays_after_a_test() -> Iterator[None]:
    yield
    assert our_threads() == []


def test_a_file_gives_every_frame(recognizer: leaf_rt.Recognizer, clip: Path) -> None:
    frames = []
    for frame in recognizer.stream(clip):
        if len(frames) < 3:
            time.sleep(0.2)  # a slow caller loses nothing
        frames.append(frame)
    assert [frame.index for frame in frames] == list(range(30))
    assert frames[12].time == pytest.approx(0.5)
    assert {frame.faces[0].track_id for frame in frames} == {1}
    one = frames[0]
    assert (one.source, one.captured_at, one.connection) == ("face.mp4", None, 0)
    assert one.image.shape == (360, 640, 3)
    assert one.annotated().shape == one.image.shape
    assert one.latency > 0


def test_options_of_the_source(recognizer: leaf_rt.Recognizer) -> None:
    frames = list(recognizer.stream(str(DEMO), start=0.5, end=1.0, stride=2, name="demo"))
    assert [frame.index for frame in frames] == list(range(12, 24, 2))
    assert {frame.source for frame in frames} == {"demo"}


def test_leaving_the_loop_ends_the_run(recognizer: leaf_rt.Recognizer) -> None:
    for _frame in recognizer.stream(DEMO):
        break
    assert our_threads() == []


def test_leaving_the_block_ends_the_run(recognizer: leaf_rt.Recognizer) -> None:
    with recognizer.stream(DEMO) as frames:
        next(frames)
        assert our_threads() != []
    assert our_threads() == []
    frames.close()
    assert next(frames, None) is None


def test_an_error_in_the_loop_ends_the_run(recognizer: leaf_rt.Recognizer) -> None:
    def work() -> None:
        for frame in recognizer.stream(DEMO):
            raise RuntimeError(f"of the caller's own at frame {frame.index}")

    with pytest.raises(RuntimeError, match="own at frame 0"):
        work()
    gc.collect()
    assert our_threads() == []


def test_closing_the_recognizer_ends_its_streams(model: Path) -> None:
    recognizer = leaf_rt.Recognizer(model, backend="onnxruntime")
    frames = recognizer.stream(DEMO, loop=True)
    next(frames)
    recognizer.close()
    assert our_threads() == []
    assert next(frames, None) is None


def test_a_recognizer_without_references(model: Path) -> None:
    frames = leaf_rt.Recognizer(model, backend="onnxruntime").stream(DEMO, end=0.5)
    gc.collect()
    assert len(list(frames)) == 12


def test_a_stream_collected_in_its_own_thread(recognizer: leaf_rt.Recognizer) -> None:
    cycle: list[object] = []

    def frames() -> Iterator[np.ndarray]:
        yield from demo_frames(2)
        while cycle:
            time.sleep(0.01)
        gc.collect()
        yield demo_frames(1)[0]

    gc.disable()
    try:
        held: list[object] = [recognizer.stream(frames(), fps=24)]
        held.append(held)
        cycle.append(held)
        next(held[0])  # type: ignore[call-overload]
        del held
        cycle.clear()
        deadline = time.monotonic() + 10
        while our_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.enable()
    assert our_threads() == []


def test_two_streams_and_pictures_at_a_time(recognizer: leaf_rt.Recognizer, clip: Path, face: Path) -> None:
    pairs = zip(recognizer.stream(clip), recognizer.stream(DEMO, end=1.25), strict=True)
    assert [(a.index, b.index, len(recognizer.image(face))) for a, b in pairs][:30:10] == [
        (n, n, 1) for n in (0, 10, 20)
    ]


def test_ctrl_c_in_the_callers_thread(recognizer: leaf_rt.Recognizer) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from demo_frames(2)
        _thread.interrupt_main()
        while our_threads():
            time.sleep(0.01)
            yield demo_frames(1)[0]

    with pytest.raises(KeyboardInterrupt):
        list(recognizer.stream(frames(), fps=24))
    assert our_threads() == []
    assert next(iter(recognizer.stream(DEMO)), None) is not None  # it goes on working


def test_ctrl_c_in_a_video(recognizer: leaf_rt.Recognizer) -> None:
    threading.Timer(0.5, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        recognizer.video(DEMO, loop=True, duration=30)
    assert our_threads() == []


def test_a_live_source_gives_its_newest_frame(recognizer: leaf_rt.Recognizer) -> None:
    with RtspServer(encode(demo_frames(25)), fps=25) as server, recognizer.stream(server.url()) as frames:
        indices, ages = [], []
        for frame in frames:
            assert frame.captured_at is not None
            indices.append(frame.index)
            ages.append(time.time() - frame.captured_at)
            time.sleep(0.3)
            if len(indices) == 5:
                break
    assert np.diff(indices).min() > 2
    assert max(ages[1:]) < 0.6


def test_a_live_source_for_a_while(recognizer: leaf_rt.Recognizer) -> None:
    with RtspServer(encode(demo_frames(25)), fps=25) as server:
        result = recognizer.video(server.url(), duration=1.5)
    assert result.summary["frames"] > 5
    assert not np.isnan(result.columns.captured_at).any()
    assert next(iter(result.records()))["captured_at"].endswith("Z")


def test_errors_come_out_in_the_caller(recognizer: leaf_rt.Recognizer, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match=r"none\.mp4"):
        next(recognizer.stream(tmp_path / "none.mp4"))
    with pytest.raises(errors.ConnectionLost):
        list(recognizer.stream("rtsp://user:secret@127.0.0.1:9/live", open_timeout=1.0))
    with pytest.raises(errors.NotFound):
        recognizer.video(tmp_path / "none.mp4")
    with pytest.raises(errors.NotFound):
        next(recognizer.stream(99))
    with pytest.raises(TypeError, match="address or an iterable of arrays, got NoneType"):
        recognizer.stream(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"use image\(\)"):
        recognizer.stream(np.zeros((9, 9, 3), np.uint8))


def test_arrays_are_a_source_too(recognizer: leaf_rt.Recognizer, clip: Path) -> None:
    pictures = demo_frames(12)
    counted = list(recognizer.stream(pictures, fps=24))
    timed = list(recognizer.stream(((image, n / 24) for n, image in enumerate(pictures)), name="mine"))
    assert [f.time for f in counted] == [f.time for f in timed] == [n / 24 for n in range(12)]
    assert (timed[5].source, counted[5].source) == ("mine", "frames")
    assert (timed[5].image == pictures[5]).all()
    assert all((a.faces.smoothed == b.faces.smoothed).all() for a, b in zip(counted, timed, strict=True))
    assert len(recognizer.video(np.stack(pictures), fps=24, progress=True)) == 12


def test_a_failing_iterable(recognizer: leaf_rt.Recognizer) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from demo_frames(3)
        raise OSError("the camera's own error")

    frames = recognizer.stream(broken(), fps=10)
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="own error"):
        next(frames)


def test_arguments_of_a_source_are_all_there() -> None:
    assert set(SourceArguments.__annotations__) == set(SourceOptions.__dataclass_fields__)


def test_a_source_that_exits_ends_the_stream(recognizer: leaf_rt.Recognizer) -> None:
    def arrays() -> Iterator[np.ndarray]:
        yield np.zeros((64, 64, 3), np.uint8)
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="the source raised SystemExit"):
        list(recognizer.stream(arrays(), fps=30))
