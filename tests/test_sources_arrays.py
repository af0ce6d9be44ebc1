"""An iterable of arrays as a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from leaf_rt.errors import NoFrames, OutOfResources
from leaf_rt.sources.arrays import ArraySource, as_bgr
from leaf_rt.sources.base import SourceOptions

PICTURES = [np.full((20, 30, 3), n, np.uint8) for n in range(6)]


def read(items: Any, **options: Any) -> list[tuple[int, float, int]]:
    """Index, time and value of every frame."""
    with ArraySource(items, SourceOptions(**options)) as source:
        return [(f.index, f.timestamp, int(f.image[0, 0, 0])) for f in source]


def test_times_come_from_the_rate_or_from_the_caller() -> None:
    assert read(PICTURES[:3], fps=10) == [(0, 0.0, 0), (1, 0.1, 1), (2, 0.2, 2)]
    assert read(zip(PICTURES, (0.5, 2, 3), strict=False)) == [(0, 0.5, 0), (1, 2.0, 1), (2, 3.0, 2)]


def test_options_choose_frames() -> None:
    assert [index for index, _, _ in read(PICTURES, fps=10, stride=2)] == [0, 2, 4]
    assert [index for index, _, _ in read(PICTURES, fps=10, start=0.15, end=0.45)] == [2, 3, 4]
    assert [index for index, _, _ in read(PICTURES, fps=10, max_fps=5)] == [0, 2, 4]


def test_the_info_of_an_array_source() -> None:
    info = ArraySource(PICTURES, SourceOptions(fps=10, name="mine")).info
    assert (info.name, info.width, info.height, info.fps, info.is_live) == ("mine", 30, 20, 10, False)
    assert ArraySource(PICTURES, SourceOptions(fps=10)).info.frame_count == 6
    assert ArraySource(iter(PICTURES), SourceOptions(fps=10)).info.frame_count is None
    assert ArraySource(PICTURES, SourceOptions(fps=10, realtime=True)).info.is_live


def test_a_buffer_may_be_used_again() -> None:
    buffer = np.zeros((20, 30, 3), np.uint8)

    def fill() -> Iterator[np.ndarray]:
        for n in range(4):
            buffer[:] = n
            yield buffer

    frames = list(ArraySource(fill(), SourceOptions(fps=10)))
    assert [int(f.image[0, 0, 0]) for f in frames] == [0, 1, 2, 3]


def test_mirror_and_grey() -> None:
    grey = np.arange(30, dtype=np.uint8)[None].repeat(20, 0)
    (frame,) = ArraySource([grey], SourceOptions(fps=1, mirror=True))
    assert frame.image.shape == (20, 30, 3)
    assert frame.image[0, 0].tolist() == [29, 29, 29]
    assert as_bgr(PICTURES[0], "p") is PICTURES[0]


def test_a_generator_is_closed() -> None:
    closed = []

    def frames() -> Iterator[np.ndarray]:
        try:
            yield from PICTURES
        finally:
            closed.append(True)

    with ArraySource(frames(), SourceOptions(fps=1)) as source:
        next(iter(source))
    assert closed == [True]


@pytest.mark.parametrize(
    ("items", "options", "error", "text"),
    [
        ([], {"fps": 1}, NoFrames, "at least one array"),
        (PICTURES, {}, ValueError, "frame 0: wanted a time; give fps="),
        (["a.jpg"], {"fps": 1}, TypeError, "frame 0: wanted a NumPy array, got str"),
        ([(PICTURES[0], 1.0), (PICTURES[0], 1.0)], {}, ValueError, "frame 1: wanted seconds from 0 that grow"),
        ([(PICTURES[0], float("nan"))], {}, ValueError, "frame 0: wanted seconds"),
        ([PICTURES[0].astype(float)], {"fps": 1}, ValueError, "frame 0: wanted uint8"),
        (PICTURES, {"fps": 1, "loop": True}, ValueError, "loop"),
    ],
)
def test_bad_frames(items: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read(items, **options)


@pytest.mark.parametrize("shape", [(1 << 21, 1 << 20, 3), (1 << 21, 1 << 20)])
def test_an_array_that_is_too_large_for_the_memory(shape: tuple[int, ...]) -> None:
    """It repeats one number, so it takes no memory itself."""
    with pytest.raises(OutOfResources, match="frame: the memory is too small for an array of"):
        as_bgr(np.broadcast_to(np.uint8(0), shape), "frame")
