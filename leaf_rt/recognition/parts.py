"""The parts of a pipeline that can be exchanged, as protocols."""

from __future__ import annotations

from typing import Protocol

from leaf_rt.faces.landmarks import Landmarks
from leaf_rt.types import F32, U8, Detections, Frame, Tracks


class Detector(Protocol):
    """Finds faces in the frames of one source. ``VideoFaceDetector`` implements it.

    Attributes:
        lag: Seconds since the known face that waits longest was last looked for, as of the newest frame. 0 if all
            known faces were looked for in that frame.
    """

    lag: float

    def detect(self, frame: Frame) -> Detections:
        """Find the faces in the next frame."""
        ...

    def reduce_effort(self, level: int) -> float:
        """Skip ``level`` more frames between two searches; 0 restores full effort.

        Returns:
            How many times longer than at full effort a face now waits between two searches.
        """
        ...

    def reset(self) -> None:
        """Forget all faces, after a reconnect."""
        ...

    def close(self) -> None:
        """Free resources."""
        ...


class Tracker(Protocol):
    """Assigns ids to faces. ``FaceTracker`` implements it."""

    def update(self, detections: Detections, timestamp: float) -> Tracks:
        """Return all living tracks at this time, including those out of sight. A missing id is gone for good."""
        ...

    def reset(self) -> None:
        """Drop all tracks. Ids continue to count up."""
        ...


class Encoder(Protocol):
    """Describes faces, so that a person can be recognized. ``FaceEncoder`` implements it."""

    def encode(self, image: U8, keypoints: F32) -> F32:
        """Return unit vectors (N, D) of the faces with these keypoints, (N, 6, 2)."""
        ...


class Landmarker(Protocol):
    """Measures details of faces. ``FaceLandmarker`` implements it."""

    def measure(self, image: U8, xyxy: F32, keypoints: F32) -> Landmarks:
        """Return blendshapes and head pose of the faces with these boxes, (N, 4), and keypoints, (N, 6, 2)."""
        ...
