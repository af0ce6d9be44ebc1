"""Records of many frames as columns: one NumPy array per field. Knows estimates and NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaf_rt.types import F32, I64, Estimates, Frame

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_FIRST_SIZE = 1024  # rows; the buffer doubles when it is full


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """One row per face and frame, in the order of the frames. docs/records.md explains the fields.

    Attributes:
        frame_index: (N,) int64.
        time: (N,) float64, media time, s; ``pts_s`` in records.
        captured_at: (N,) float64, s since 1970, UTC; NaN for files.
        generation: (N,) int64.
        shot: (N,) int64.
        track_id: (N,) int64.
        person_id: (N,) int64, of the whole track.
        xyxy: (N, 4) float32, px; ``box`` in records.
        confidence: (N,) float32.
        emotion: (N,) int64, index of the shown label; -1 is "uncertain".
        probs: (N, C) float32, newest answer of the model.
        smoothed: (N, C) float32, filtered over time.
        classified: (N,) bool.
        low_quality: (N,) bool; ``poor`` in records.
        latency: (N,) float64, s; ``latency_ms`` in records.
        pose: (N, 3) float32, degrees, yaw, pitch and roll; (N, 0) if they were not asked for.
        quality: (N,) float32, how much the picture of the face can tell, 0 to 1.
        blendshapes: (N, B) float32, in the order of ``leaf_rt.labels.BLENDSHAPES``; (N, 0) if they were not asked for.
    """

    frame_index: I64
    time: NDArray[np.float64]
    captured_at: NDArray[np.float64]
    generation: I64
    shot: I64
    track_id: I64
    person_id: I64
    xyxy: F32
    confidence: F32
    emotion: I64
    probs: F32
    smoothed: F32
    classified: NDArray[np.bool_]
    low_quality: NDArray[np.bool_]
    latency: NDArray[np.float64]
    pose: F32
    quality: F32
    blendshapes: F32

    def __len__(self) -> int:
        return len(self.track_id)

    def frames(self, source: str) -> Iterator[tuple[Frame, Estimates, float]]:
        """The frames that show a face, without their pictures: frame, estimates, latency in s.

        Args:
            source: Name of the source that the frames get.
        """
        if len(self) == 0:
            return
        changes = np.flatnonzero(np.diff(self.frame_index) | np.diff(self.generation)) + 1
        bounds = [0, *changes.tolist(), len(self)]
        for start, stop in itertools.pairwise(bounds):
            time, captured = float(self.time[start]), float(self.captured_at[start])
            frame = Frame(
                _NO_IMAGE, int(self.frame_index[start]), time, source, int(self.generation[start]),
                None if np.isnan(captured) else captured,
            )  # fmt: skip
            rows = slice(start, stop)
            estimates = Estimates(
                time, self.track_id[rows], self.xyxy[rows], self.confidence[rows], self.probs[rows],
                self.smoothed[rows], self.emotion[rows], self.classified[rows], self.low_quality[rows],
                self.xyxy[rows], int(self.shot[start]), self.person_id[rows], self.pose[rows],
                self.quality[rows], self.blendshapes[rows],
            )  # fmt: skip
            yield frame, estimates, float(self.latency[start])


class ColumnBuilder:
    """Collects frames into ``Columns``; about 160 bytes per face and frame, 360 with blendshapes."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._rows = self._empty(0, 0)
        self._count = 0

    def _empty(self, angles: int, blendshapes: int) -> NDArray[np.void]:
        """Return a buffer for rows with so many angles and blendshapes."""
        shape = (self._num_classes,)
        return np.zeros(_FIRST_SIZE, [
            ("frame_index", np.int64), ("time", np.float64), ("captured_at", np.float64), ("generation", np.int64),
            ("shot", np.int64), ("track_id", np.int64), ("person_id", np.int64),
            ("xyxy", np.float32, (4,)), ("confidence", np.float32), ("emotion", np.int64),
            ("probs", np.float32, shape), ("smoothed", np.float32, shape), ("classified", np.bool_),
            ("low_quality", np.bool_), ("latency", np.float64), ("quality", np.float32),
            ("pose", np.float32, (angles,)), ("blendshapes", np.float32, (blendshapes,)),
        ])  # fmt: skip

    def add(self, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Append a row per face.

        Args:
            frame: The frame; its picture is not kept.
            estimates: Its faces.
            latency: s.
        """
        if len(estimates) == 0:
            return
        if self._count == 0:
            self._rows = self._empty(estimates.pose.shape[1], estimates.blendshapes.shape[1])
        end = self._count + len(estimates)
        if end > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(max(len(self._rows), end), self._rows.dtype)])
        rows = self._rows[self._count : end]
        rows["frame_index"], rows["time"], rows["generation"] = frame.index, frame.timestamp, frame.generation
        rows["captured_at"] = np.nan if frame.captured_at is None else frame.captured_at
        rows["latency"], rows["shot"] = latency, estimates.shot
        fields: Sequence[str] = (
            "track_id", "person_id", "xyxy", "confidence", "emotion", "probs", "smoothed", "classified", "low_quality",
            "quality", "pose", "blendshapes",
        )  # fmt: skip
        for name in fields:
            rows[name] = getattr(estimates, name)
        self._count = end

    def build(self) -> Columns:
        """All rows so far. Every row has the final person of its track."""
        rows = self._rows[: self._count]
        columns = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
        _, last, track = np.unique(rows["track_id"][::-1], return_index=True, return_inverse=True)
        columns["person_id"] = rows["person_id"][::-1][last][track][::-1].copy()
        return Columns(**columns)
