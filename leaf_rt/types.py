"""The data that flows: one frozen struct of arrays per stage, checked at construction.

Times are seconds (float, monotonic; 0.0 is legal), boxes are xyxy in px of the frame. Row i in is row i out.
Knows numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]


def _check(owner: str, field: str, value: Any, shape: tuple[int | None, ...], dtype: type[np.generic]) -> None:
    """Raise ValueError unless ``value`` is an array of this shape (None: any length) and dtype."""
    if (
        isinstance(value, np.ndarray)
        and value.dtype == dtype
        and value.ndim == len(shape)
        and all(w is None or w == g for w, g in zip(shape, value.shape, strict=True))
    ):
        return
    wanted = f"{np.dtype(dtype)} ({', '.join('any' if s is None else str(s) for s in shape)})"
    got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    raise ValueError(f"{owner}.{field}: wanted {wanted}, got {got}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one source.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        index: Number of the frame in its source, from 0; gaps where frames were skipped.
        timestamp: Media time, s, monotonic within a source, also across reconnects.
        source: Name of the source, free of credentials.
        generation: 0, plus one for every reconnect of the source.
        captured_at: UTC, s since 1970, for live sources; None for files.
    """

    image: U8
    index: int
    timestamp: float
    source: str
    generation: int = 0
    captured_at: float | None = None

    def __post_init__(self) -> None:
        _check("Frame", "image", self.image, (None, None, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces found in one frame, in no stated order.

    Attributes:
        xyxy: (N, 4) float32, px.
        confidence: (N,) float32 in [0, 1].
        keypoints: (N, 6, 2) float32, px: right eye, left eye, nose tip, mouth, right ear, left ear (the person's).
        appearance: (N, A) float32, what heads look like (``leaf_rt.faces.appearance``), for telling them apart from one
            frame to the next; A is 0 where nobody looked.
    """

    xyxy: F32
    confidence: F32
    keypoints: F32
    appearance: F32

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        _check("Detections", "xyxy", self.xyxy, (None, 4), np.float32)
        _check("Detections", "confidence", self.confidence, (n,), np.float32)
        _check("Detections", "keypoints", self.keypoints, (n, 6, 2), np.float32)
        _check("Detections", "appearance", self.appearance, (n, None), np.float32)

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> Detections:
        """No face."""
        shapes = ((0, 4), (0,), (0, 6, 2), (0, 0))
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))

    def __getitem__(self, rows: Any) -> Detections:
        """The rows of an index array, a boolean mask or a slice, in that order."""
        return Detections(self.xyxy[rows], self.confidence[rows], self.keypoints[rows], self.appearance[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """The people in one frame, in order of their ids.

    Attributes:
        track_id: (M,) int64, from 1, never handed out twice by one tracker.
        xyxy: (M, 4) float32, px; predicted while coasting.
        detection_index: (M,) int64, row in this frame's Detections; -1 while coasting.
        time_since_update: (M,) float32, s since a detection last confirmed the track; 0 where one did now.
    """

    track_id: I64
    xyxy: F32
    detection_index: I64
    time_since_update: F32

    def __post_init__(self) -> None:
        m = len(self.track_id)
        _check("Tracks", "track_id", self.track_id, (None,), np.int64)
        _check("Tracks", "xyxy", self.xyxy, (m, 4), np.float32)
        _check("Tracks", "detection_index", self.detection_index, (m,), np.int64)
        _check("Tracks", "time_since_update", self.time_since_update, (m,), np.float32)

    def __len__(self) -> int:
        return len(self.track_id)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a back end answers for N faces.

    Attributes:
        probs: (N, C) float32, rows sum to 1, classes in the order of ModelSpec.labels.
        features: (N, D) float32, the pooled features before the classifier.
    """

    probs: F32
    features: F32

    def __post_init__(self) -> None:
        n = len(self.probs)
        _check("Prediction", "probs", self.probs, (None, None), np.float32)
        _check("Prediction", "features", self.features, (n, None), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Who shows what in one frame: the result of the pipeline, a row per visible person.

    Attributes:
        timestamp: Media time of the frame, s.
        track_id: (O,) int64.
        xyxy: (O, 4) float32, px.
        confidence: (O,) float32, of the face detection in [0, 1].
        probs: (O, C) float32, the newest raw answer for this face; rows sum to 1.
        smoothed: (O, C) float32, filtered over time; rows sum to 1.
        emotion: (O,) int64, the shown class after hysteresis; -1 means uncertain.
        classified: (O,) bool, whether ``probs`` was measured on this very frame (the cadence skips some).
        low_quality: (O,) bool, the face is too small, too blurred or turned too far to be trusted.
        seen: (S, 4) float32, px, every face in sight, with or without a row: those found in this frame, and where
            people who were lost a moment ago should be by now. What hides faces hides these.
    """

    timestamp: float
    track_id: I64
    xyxy: F32
    confidence: F32
    probs: F32
    smoothed: F32
    emotion: I64
    classified: NDArray[np.bool_]
    low_quality: NDArray[np.bool_]
    seen: F32

    def __post_init__(self) -> None:
        o = len(self.track_id)
        _check("Estimates", "track_id", self.track_id, (None,), np.int64)
        _check("Estimates", "xyxy", self.xyxy, (o, 4), np.float32)
        _check("Estimates", "confidence", self.confidence, (o,), np.float32)
        _check("Estimates", "probs", self.probs, (o, None), np.float32)
        _check("Estimates", "smoothed", self.smoothed, self.probs.shape, np.float32)
        _check("Estimates", "emotion", self.emotion, (o,), np.int64)
        _check("Estimates", "classified", self.classified, (o,), np.bool_)
        _check("Estimates", "low_quality", self.low_quality, (o,), np.bool_)
        _check("Estimates", "seen", self.seen, (None, 4), np.float32)

    def __len__(self) -> int:
        return len(self.track_id)
