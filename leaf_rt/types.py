"""The data that flows through the pipeline: one frozen dataclass of arrays per stage, checked at construction.

Times are in seconds (float, monotonic; 0.0 is valid). Boxes are xyxy in px of the frame. Every stage keeps the order of
the rows. Depends on NumPy only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]

_NOT_ASKED: F32 = np.zeros((0, 0), np.float32)  # stands for no columns where details were not asked for
_NO_QUALITY: F32 = np.zeros(0, np.float32)  # stands for NaN in all rows where quality was not measured
_SAME_AS_TRACK: I64 = np.zeros(0, np.int64)  # stands for the track ids where people are not told apart

Kind = Literal["file", "picture", "camera", "network", "browser"]


def _check(owner: str, field: str, value: Any, shape: tuple[int | None, ...], dtype: type[np.generic]) -> None:
    """Raise ValueError if a field is not an array of the given shape (None: any length) and dtype."""
    # Comparing a dtype with a class takes three times as long as comparing the class of its values.
    has_type = isinstance(value, np.ndarray) and value.dtype.type is dtype and value.dtype.isnative
    if has_type and value.shape == shape:
        return
    if has_type and value.ndim == len(shape):
        for length, got in zip(shape, value.shape, strict=True):  # a generator would double the time, 50 times a frame
            if length is not None and length != got:
                break
        else:
            return
    expected = f"{np.dtype(dtype)} ({', '.join('any' if s is None else str(s) for s in shape)})"
    got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    raise ValueError(f"{owner}.{field}: wanted {expected}, got {got}")


class LazyImage:
    """A picture that is made when it is first needed: once, in the thread that needs it first.

    Args:
        make: Returns (H, W, 3) uint8, BGR.
    """

    __slots__ = ("_image", "_lock", "_make")

    def __init__(self, make: Callable[[], U8]) -> None:
        self._make: Callable[[], U8] | None = make
        self._image: U8 | None = None
        self._lock = threading.Lock()

    def get(self) -> U8:
        """Return the picture."""
        with self._lock:
            if self._image is None and self._make is not None:
                self._image = self._make()
                self._make = None  # frees what the picture was made from
            _check("LazyImage", "make", self._image, (None, None, 3), np.uint8)
            return cast(U8, self._image)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of one source.

    Attributes:
        pixels: The image, or how to make it; see ``image``.
        index: Number of the frame in its source, from 0. Skipped frames leave gaps.
        timestamp: Media time, s. Monotonic within a source, also across reconnects.
        source: Name of the source, without credentials.
        generation: Number of reconnects of the source, and of jumps of its clock by over an hour, before this frame.
        captured_at: Time of capture, s since 1970 (UTC), for live sources. None for files.
    """

    pixels: U8 | LazyImage
    index: int
    timestamp: float
    source: str
    generation: int = 0
    captured_at: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, LazyImage):
            _check("Frame", "image", self.pixels, (None, None, 3), np.uint8)

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8, BGR. A picture that nobody looks at is never converted from the colors of its codec."""
        return self.pixels.get() if isinstance(self.pixels, LazyImage) else self.pixels


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of an open source.

    Attributes:
        name: Name in records, logs and windows, without credentials.
        target: The address, without credentials.
        kind: "file", "picture", "camera", "network", or "browser" for the camera of a browser.
        width: Width of the first frame after rotation, px.
        height: Height of the first frame after rotation, px.
        fps: Nominal frames per second; None if unknown.
        frame_count: Expected number of frames, according to the file; None if unknown.
        duration: s of media time that will be read; None if unknown.
        is_live: If true, the newest frame counts and older frames may be dropped. If false, every frame is processed,
            in order.
        decoder: Name of the decoder, for people.
        has_audio: Whether there is an audio track.
        path: The file, if it is one.
        endless: Whether it is a file that starts again at its end.
    """

    name: str
    target: str
    kind: Kind
    width: int
    height: int
    fps: float | None = None
    frame_count: int | None = None
    duration: float | None = None
    is_live: bool = False
    decoder: str = ""
    has_audio: bool = False
    path: Path | None = None
    endless: bool = False

    @property
    def has_end(self) -> bool:
        """Whether it ends by itself, so that its results can be complete."""
        return not (self.is_live or self.endless)

    @property
    def reconnects(self) -> bool:
        """Whether its end is a loss, after which it is opened again: a camera or a live stream, never a file."""
        return self.is_live and self.kind in ("camera", "network")


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces found in one frame, in any order.

    Attributes:
        xyxy: (N, 4) float32, px.
        confidence: (N,) float32 in [0, 1].
        keypoints: (N, 6, 2) float32, px: right eye, left eye, nose tip, mouth, right ear, left ear,
            as seen by the person.
        appearance: (N, A) float32, what the heads look like (``leaf_rt.faces.appearance``). The tracker uses it to
            tell people apart. A is 0 if it was not measured.
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
    def unchecked(cls, xyxy: F32, confidence: F32, keypoints: F32, appearance: F32) -> Detections:
        """Return detections without the checks, for arrays that were computed from checked ones: seven per frame."""
        detections = object.__new__(cls)
        object.__setattr__(detections, "xyxy", xyxy)
        object.__setattr__(detections, "confidence", confidence)
        object.__setattr__(detections, "keypoints", keypoints)
        object.__setattr__(detections, "appearance", appearance)
        return detections

    @classmethod
    def empty(cls) -> Detections:
        """Return no detections."""
        return _NO_DETECTIONS

    def __getitem__(self, rows: Any) -> Detections:
        """Select rows by an index array, a boolean mask or a slice."""
        xyxy = self.xyxy[rows]
        _check("Detections", "xyxy", xyxy, (None, 4), np.float32)  # a number would select no row but its values
        return self.unchecked(xyxy, self.confidence[rows], self.keypoints[rows], self.appearance[rows])


_NO_DETECTIONS = Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 6, 2), (0, 0))))


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """The tracks in one frame, in order of their ids.

    Attributes:
        track_id: (M,) int64, from 1. A tracker never reuses an id.
        xyxy: (M, 4) float32, px. Predicted if the face was not detected in this frame.
        detection_index: (M,) int64, row in the Detections of this frame. -1 if the face was not detected.
        time_since_update: (M,) float32, seconds since the face was last detected. 0 if it was detected in this frame.
            Infinite if another track has the face in its place, so that its own box must not be shown.
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
    """The output of a back end for N faces.

    Attributes:
        probs: (N, C) float32, rows sum to 1. Classes in the order of ModelSpec.labels.
        features: (N, D) float32, pooled features before the classifier.
    """

    probs: F32
    features: F32

    def __post_init__(self) -> None:
        n = len(self.probs)
        _check("Prediction", "probs", self.probs, (None, None), np.float32)
        _check("Prediction", "features", self.features, (n, None), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """The result of the pipeline for one frame: one row per visible person.

    Attributes:
        timestamp: Media time of the frame, s.
        track_id: (O,) int64.
        xyxy: (O, 4) float32, px.
        confidence: (O,) float32, confidence of the face detection in [0, 1].
        probs: (O, C) float32, newest output of the model for this face. Rows sum to 1.
        smoothed: (O, C) float32, smoothed over time. Rows sum to 1.
        emotion: (O,) int64, index of the shown label. -1 means "uncertain".
        classified: (O,) bool, whether the face was classified in this frame. If not, ``probs`` is older.
        low_quality: (O,) bool, whether the face is too small, too blurred or turned too far for a reliable result.
        seen: (S, 4) float32, px, boxes of all faces, with or without a row: those detected in this frame, and the
            predicted boxes of those that were lost a moment ago. Anonymization hides all of them.
        shot: Number of cuts in the source before this frame, since its newest connection.
        person_id: (O,) int64, number of the person, which a person who comes back gets again. Equal to ``track_id`` if
            it is not given, and until the person is recognized; see ``leaf_rt.recognition.people``.
        pose: (O, 3) float32, degrees, yaw, pitch and roll of the head; see ``leaf_rt.faces.pose``. (O, 0) if it was not
            asked for.
        quality: (O,) float32, how much the newest classified picture of the face can tell, from 0 to 1; see
            ``leaf_rt.faces.quality``. NaN if it was not measured.
        blendshapes: (O, B) float32, movements of the face in the order of ``leaf_rt.labels.BLENDSHAPES``, 0 to 1; NaN
            where they could not be measured. (O, 0) if they were not asked for.
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
    shot: int = 0
    person_id: I64 = field(default_factory=lambda: _SAME_AS_TRACK)
    pose: F32 = field(default_factory=lambda: _NOT_ASKED)
    quality: F32 = field(default_factory=lambda: _NO_QUALITY)
    blendshapes: F32 = field(default_factory=lambda: _NOT_ASKED)

    def __post_init__(self) -> None:
        if self.person_id is _SAME_AS_TRACK:
            object.__setattr__(self, "person_id", self.track_id)
        o = len(self.track_id)
        for name in ("pose", "blendshapes"):
            if getattr(self, name) is _NOT_ASKED:
                object.__setattr__(self, name, np.zeros((o, 0), np.float32))
        if self.quality is _NO_QUALITY:
            object.__setattr__(self, "quality", np.full(o, np.nan, np.float32))
        _check("Estimates", "quality", self.quality, (o,), np.float32)
        _check("Estimates", "pose", self.pose, (o, None), np.float32)
        _check("Estimates", "blendshapes", self.blendshapes, (o, None), np.float32)
        _check("Estimates", "track_id", self.track_id, (None,), np.int64)
        _check("Estimates", "person_id", self.person_id, (o,), np.int64)
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
