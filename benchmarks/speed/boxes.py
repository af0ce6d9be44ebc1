"""Finds the faces on which the recognizers alone are measured, with the face detector of leaf-rt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from leaf_rt.errors import NoFrames
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.sources.opening import open_source

Boxes: TypeAlias = dict[str, dict[str, Any]]  # number of the frame to "boxes" and "keypoints", see scripts/peer.py


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A clip and some of its faces.

    Attributes:
        width: px.
        height: px.
        frames: Number of frames.
        fps: Frames per second of the clip.
        boxes: Faces of some frames.
    """

    width: int
    height: int
    frames: int
    fps: float
    boxes: Boxes


def clip_boxes(clip: Path, count: int) -> ClipFacts:
    """Read a clip and find the faces in ``count`` frames, evenly spaced.

    Raises:
        LeafError: The clip cannot be read.
    """
    with open_source(str(clip)) as source:
        info = source.info
        times = [frame.timestamp for frame in source]
    if len(times) < 2:
        raise NoFrames(f"{clip}: wanted a clip of two frames or more")
    wanted = set(np.linspace(0, len(times) - 1, min(count, len(times))).round().astype(int).tolist())
    boxes: Boxes = {}
    with open_source(str(clip)) as source, ImageFaceDetector() as detector:
        for index, frame in enumerate(source):
            if index not in wanted:
                continue
            found = detector.detect(frame.image)
            if len(found):
                boxes[str(index)] = {"boxes": found.xyxy.tolist(), "keypoints": found.keypoints.tolist()}
    fps = (len(times) - 1) / (times[-1] - times[0])
    return ClipFacts(info.width, info.height, len(times), fps, boxes)
