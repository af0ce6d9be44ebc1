"""The part of ``device_check`` about NVIDIA's video decoder: its pictures are those of the CPU. Needs PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.gpu import time_decoding
from leaf_rt.errors import DecoderUnavailable
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source

DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"


class LeftOut(Exception):
    """The machine lacks what a check needs."""


def decoding(device: str) -> dict[str, Any]:
    """`--decode nvdec` gives the pictures of the CPU, and how quick it is."""
    try:
        from leaf_rt.media import nvdec
    except ImportError as e:
        raise LeftOut(str(e)) from e
    try:
        if device == "cuda":
            nvdec.accelerator()
    except DecoderUnavailable as e:  # a container may lack the library of the decoder
        raise LeftOut(str(e)) from e
    other, options = ("nvdec", {}) if device == "cuda" else ("auto", {"end": 0.5})
    speeds = {name: time_decoding(DEMO, name, **options) for name in ("cpu", other)}
    return {**compare_decoders(DEMO, other, **options), **speeds}


def compare_decoders(path: Path, decode: str, **options: Any) -> dict[str, Any]:
    """Decode a file on the CPU and with ``decode``: the same numbers, times and pictures.

    H.264 and HEVC leave a decoder no choice, so 1 of 255 is for the conversion to BGR alone.
    """
    about: dict[str, Any] = {}
    worst = frames = 0
    with (
        open_source(str(path), SourceOptions(**options)) as cpu,
        open_source(str(path), SourceOptions(decode=decode, **options)) as other,
    ):
        about["decoder"] = other.info.decoder
        for a, b in zip(cpu, other, strict=True):
            assert (a.index, a.timestamp) == (b.index, b.timestamp)
            worst = max(worst, int(np.abs(a.image.astype(np.int16) - b.image).max()))
            frames += 1
        assert (cpu.damaged, cpu.warnings) == (other.damaged, other.warnings)
    assert frames > 0
    assert worst <= 1, worst
    return {**about, "frames": frames, "largest_difference": worst}
