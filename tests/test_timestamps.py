"""Files whose timestamps start again: media time continues."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import empty_frames, write_clip
from fakes import FakeBackend
from streams import LABELS, Keeping, pipelines

from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources.base import Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run


def times_of(path: Path) -> list[float]:
    with open_source(str(path)) as source:
        return [frame.timestamp for frame in source]


def timed(path: Path, ticks: list[int], codec: str = "mjpeg") -> Path:
    """A clip with only key frames, at these times in ms. NUT keeps times that run backwards."""
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick, image in zip(ticks, empty_frames(len(ticks), 64, 96), strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
            picture.pts, picture.time_base = tick, Fraction(1, 1000)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("sizes", [((180, 320), (180, 320)), ((180, 320), (240, 426), (180, 320))])
def test_joined_files_continue_at_their_frame_rate(tmp_path: Path, sizes: tuple[tuple[int, int], ...]) -> None:
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as out:
        for number, (height, width) in enumerate(sizes):
            part = write_clip(tmp_path / f"{number}.ts", empty_frames(15, height, width), rate=30)
            out.write(part.read_bytes())
    times = times_of(joined)
    assert len(times) == 15 * len(sizes)
    assert np.diff(times) == pytest.approx(np.full(len(times) - 1, 1 / 30), abs=1e-4)


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    ticks = [0, 100, 150, 151, 900, 1000, 3000, 3040]
    assert times_of(timed(tmp_path / "v.mkv", ticks)) == [t / 1000 for t in ticks]


def test_a_jump_of_hours_is_a_normal_step_and_another_recording(tmp_path: Path) -> None:
    """As in joined recordings, after a clock was set, or at the end of MPEG-TS's 26.5 hours; in both directions."""
    path = tmp_path / "joined.ts"
    with path.open("wb") as out:
        for begin in (0, 95_000_000, 3_000_000):
            part = timed(tmp_path / f"{begin}.ts", list(range(begin, begin + 1000, 50)), "mpeg4")
            out.write(part.read_bytes())
    with open_source(str(path)) as source:
        frames = list(source)
        assert source.warnings == []  # it was not cut off
    assert np.diff([frame.timestamp for frame in frames]) == pytest.approx(np.full(59, 0.05), abs=1e-3)
    assert [frame.generation for frame in frames] == [0] * 20 + [1] * 20 + [2] * 20


def test_a_pause_of_less_than_an_hour_is_kept(tmp_path: Path) -> None:
    ticks = [0, 50, 100, 3_500_000, 3_500_050]
    with open_source(str(timed(tmp_path / "v.mkv", ticks))) as source:
        assert [(frame.timestamp, frame.generation) for frame in source] == [(t / 1000, 0) for t in ticks]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_a_file_whose_times_begin_at_23_hours(tmp_path: Path, name: str) -> None:
    begin = 23 * 3_600_000
    path = timed(
        tmp_path / name, list(range(begin, begin + 2000, 50)), codec="mpeg4" if name != "late.mkv" else "mjpeg"
    )
    with open_source(str(path)) as source:
        assert source.info.duration == pytest.approx(2.0, abs=0.1)
        times = [frame.timestamp for frame in source]
        assert source.warnings == []
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(1.95, abs=0.01)


def test_a_run_reports_the_jump_and_its_video_has_normal_steps(tmp_path: Path) -> None:
    """The records say that another recording begins; the annotated video goes on with its usual step."""
    clip = timed(tmp_path / "joined.nut", [*range(0, 500, 50), *range(90_000_000, 90_000_500, 50)])
    sink, events = Keeping("keeping"), []
    video = VideoSink(tmp_path / "out.mp4", LABELS, lambda image, estimates, labels: image)
    backend = FakeBackend()
    stats = run([Target(str(clip))], pipelines(backend), backend, lambda _: [video], [sink], Hooks(event=events.append))
    assert [row[2] for row in sink.rows] == [0] * 10 + [1] * 10
    assert (stats.sources[0].jumps, stats.sources[0].generation) == (1, 1)
    assert [event.kind for event in events] == ["clock"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.diff(times) == pytest.approx(np.full(19, 0.05), abs=2e-3)
