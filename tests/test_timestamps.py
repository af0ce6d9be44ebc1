"""Files whose timestamps start again: media time continues."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import empty_frames, write_clip

from leaf_rt.sources.opening import open_source


def times_of(path: Path) -> list[float]:
    with open_source(str(path)) as source:
        return [frame.timestamp for frame in source]


def timed(path: Path, ticks: list[int]) -> Path:
    """A clip with only key frames, at these times in ms."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick, image in zip(ticks, empty_frames(len(ticks), 64, 96), strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuvj420p")
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
