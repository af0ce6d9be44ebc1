"""What passes between the steps of a pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leaf_rt.types import F32, I64, U8, Detections, Frame, Tracks


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A frame between ``detect`` and ``plan``.

    Attributes:
        frame: The frame.
        detections: Its faces.
        lag: See ``Detector.lag``.
        seconds: How long the detection took.
        restarts: Whether the source was connected again before this frame.
        cuts: Number of cuts before this frame, since the last one that was found.
        fading_since: When the newest of them began, if it is the end of a gradual change, s; else infinite.
    """

    frame: Frame
    detections: Detections
    lag: float
    seconds: float
    restarts: bool
    cuts: int
    fading_since: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A frame between ``prepare`` and ``finish``.

    Attributes:
        frame: The frame.
        tracks: All living tracks.
        rows: (K,) int64, the rows of ``tracks`` whose faces wait for classification.
        crops: (K, side, side, 3) uint8 BGR, their aligned faces.
        quality: (K,) float32, quality of these crops.
        lag: See ``Detector.lag``.
        seen: See ``Estimates``.
        shot: See ``Estimates``.
    """

    frame: Frame
    tracks: Tracks
    rows: I64
    crops: U8
    quality: F32
    lag: float
    seen: F32
    shot: int
