"""Remembers which faces the last frames showed, to tell whether all of them are gone.

Knows detections. Does not know tracks, pictures or times.
"""

from __future__ import annotations

from leaf_rt.faces.tracker import TrackOptions
from leaf_rt.geometry import same_face
from leaf_rt.types import Detections

FRAMES = 4  # that are remembered
SURE = TrackOptions().confirm_confidence  # of a face that counts when it was seen once


class LastFaces:
    """The faces of the last frames of one source. Like the tracker, it counts a doubtful face that was seen twice."""

    def __init__(self) -> None:
        self._frames: list[Detections] = []  # the newest first

    def reset(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def add(self, detections: Detections) -> None:
        """Take note of the faces of the next frame."""
        self._frames = [detections, *self._frames[: FRAMES - 1]]

    def are_gone(self, detections: Detections) -> bool:
        """Whether the last frame showed faces, and the next one, with these detections, shows none of them."""
        if not self._frames:
            return False
        last, *before = self._frames
        counts = last.confidence >= SURE
        for older in before:
            counts |= same_face(last.xyxy, older.xyxy).any(axis=1)
        boxes = last.xyxy[counts]
        return len(boxes) > 0 and not same_face(boxes, detections.xyxy).any()
