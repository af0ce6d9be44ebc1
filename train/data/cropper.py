"""One face out of a training picture: found by the runtime's detector model, cut by the runtime's geometry.

Training pictures are mostly tight crops already, too tight for the detector: they get a border first, as wide as what
the runtime's close-ups show round a face. A photograph in which that finds nobody is searched as the runtime does.
Knows ``leaf_rt.faces.mediapipe_detector`` and ``leaf_rt.faces.alignment``; must not know labels or files.
"""

from __future__ import annotations

from types import TracebackType

import cv2
import numpy as np

from leaf_rt.faces.alignment import crop_faces, crop_plain
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.mediapipe_detector import MediaPipeDetector
from leaf_rt.types import F32, U8, Detections

BORDER = 0.25  # of the picture's longer side, replicated on every side
DETECTION_SIDE = 192  # px of the bordered picture's longer side that the detector sees
MIN_CONFIDENCE = 0.3


class FaceCropper:
    """Crops of side ``side``, margin ``margin``; a context manager where ``align`` is on.

    Args:
        side: px.
        margin: See ``leaf_rt.faces.alignment.template``.
        color: "grey": (side, side); "rgb": (side, side, 3) in the order R, G, B.
        align: Find and align the face; otherwise, and where none is found, the whole picture is the crop.
    """

    def __init__(self, side: int, margin: float, color: str, *, align: bool = True) -> None:
        self.side, self.margin, self.color = side, margin, color
        self._align = align
        self._detector: MediaPipeDetector | None = None  # opened for the first picture: a full cache needs none
        self._search: ImageFaceDetector | None = None

    def __enter__(self) -> FaceCropper:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        for detector in (self._detector, self._search):
            if detector is not None:
                detector.close()

    def crop(self, image: U8) -> tuple[U8, bool]:
        """The crop of a BGR picture (H, W, 3), and whether a face was found."""
        keypoints = self.find(image)
        if self.color == "grey":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        if keypoints is None:
            out = crop_plain(image, self.side, self.margin)
        else:
            out = crop_faces(image, keypoints[None], self.side, self.margin)[0]
        if self.color == "rgb":
            out = np.ascontiguousarray(out[..., ::-1])
        return out, keypoints is not None

    def find(self, image: U8) -> F32 | None:
        """Keypoints (6, 2) in px of the largest, surest face of a BGR picture, or None."""
        if not self._align:
            return None
        if self._detector is None:
            self._detector = MediaPipeDetector("short", min_confidence=MIN_CONFIDENCE)
        height, width = image.shape[:2]
        border = round(BORDER * max(height, width))
        bordered = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        scale = DETECTION_SIDE / max(bordered.shape[:2])
        size = (max(1, round(bordered.shape[1] * scale)), max(1, round(bordered.shape[0] * scale)))
        how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        seen = np.asarray(cv2.resize(bordered, size, interpolation=how), np.uint8)
        found = self._detector.find(seen)
        if not len(found):
            return self._searched(image) if max(height, width) > 2 * DETECTION_SIDE else None
        best = _largest_surest(found)
        back = np.divide((bordered.shape[1], bordered.shape[0]), size)
        return np.asarray(found.keypoints[best] * back - border, np.float32)

    def _searched(self, image: U8) -> F32 | None:
        """``find`` by the runtime's search for faces of any size."""
        if self._search is None:
            self._search = ImageFaceDetector()
        found = self._search.detect(image)
        if not len(found):
            return None
        return np.asarray(found.keypoints[_largest_surest(found)], np.float32)


def _largest_surest(found: Detections) -> int:
    return int(np.argmax(found.confidence * (found.xyxy[:, 2] - found.xyxy[:, 0])))
