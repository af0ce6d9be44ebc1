"""Turns what callers give as a source into a target and a function that opens it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypedDict

import numpy as np

from leaf_rt.sources.arrays import ArrayItem, ArraySource
from leaf_rt.sources.base import Source, SourceOptions, Target
from leaf_rt.sources.opening import open_source

StreamSource: TypeAlias = str | os.PathLike[str] | int | Iterable[ArrayItem]
Opener: TypeAlias = Callable[[str, SourceOptions], Source]


class SourceArguments(TypedDict, total=False):
    """Keyword arguments of ``stream`` and ``video``; ``SourceOptions`` explains them and their defaults."""

    name: str | None
    stride: int
    start: float
    end: float | None
    max_fps: float | None
    loop: bool
    realtime: bool
    rtsp_transport: str
    redirects: bool
    open_timeout: float
    read_timeout: float
    stall_timeout: float
    wait: bool
    max_reconnects: int | None
    width: int | None
    height: int | None
    fps: float | None
    mirror: bool
    decoder_threads: int
    decode: str


def target_of(source: StreamSource, arguments: SourceArguments) -> tuple[Target, Opener]:
    """Return the target for a source, and the function that opens it."""
    options = SourceOptions(**arguments)
    if isinstance(source, str | os.PathLike | int) and not isinstance(source, bool):
        return Target(os.fspath(source) if isinstance(source, os.PathLike) else str(source), options), open_source
    if isinstance(source, np.ndarray) and source.ndim < 4:
        raise TypeError(f"source: wanted a video or an iterable of frames, got one array {source.shape}; use image()")
    if isinstance(source, bytes | bytearray | bool) or not isinstance(source, Iterable):
        raise TypeError(
            f"source: wanted a file, a camera number, an address or an iterable of arrays, got {type(source).__name__}"
        )
    return Target("frames", options), lambda _, given: ArraySource(source, given)


def is_live(target: Target) -> bool:
    """Whether only the newest frame of a source counts."""
    return target.address.is_live or target.options.realtime


def has_end(target: Target) -> bool:
    """Whether a source ends by itself."""
    return not (target.address.is_live or target.options.loop)
