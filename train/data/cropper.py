"""Finds and crops one face in a training image, with the detector and the geometry of the runtime.

Most training images are tight crops of a face, too tight for the detector, so they get a border first. If that finds
no face in a larger photograph, the photograph is searched the way the runtime searches an image.
Knows ``leaf_rt.faces``; must not know labels or files.
"""

from __future__ import annotations

from types import TracebackType

import cv2
import numpy as np

from leaf_rt.faces.alignment import crop_faces, crop_plain
from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.search import DetectionModel
from leaf_rt.types import F32, U8, Detections

BORDER = 0.25  # of the longer side of the image, replicated on every side
DETECTION_SIDE = 192  # longer side, in px, of the bordered image that the detector sees
MIN_CONFIDENCE = 0.3


class FaceCropper:
    """Crops faces. A context manager that closes the detectors.

    Args:
        side: Of the crops, px.
        margin: See ``leaf_rt.faces.alignment.template``.
        color: "grey": (side, side); "rgb": (side, side, 3) in the order R, G, B.
        align: Find and align the face. Without it, and if no face is found, the whole image is the crop.
        detector: What runs the networks of the face detector; see ``choose_detector``.
    """

    def __init__(self, side: int, margin: float, color: str, *, align: bool = True, detector: str = "auto") -> None:
        self.side, self.margin, self.color = side, margin, color
        self._align, self._name = align, detector
        self._detector: DetectionModel | None = None  # opened for the first image: a complete cache needs none
        self._search: ImageFaceDetector | None = None

    def __enter__(self) -> FaceCropper:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        for detector in (self._detector, self._search):
            if detector is not None:
                detector.close()

    def crop(self, image: U8) -> tuple[U8, bool]:
        """The crop of a BGR image (H, W, 3), and whether a face was found."""
        keypoints = self.find(image)
        return self.cut(image, keypoints), keypoints is not None

    def cut(self, image: U8, keypoints: F32 | None) -> U8:
        """The crop of a BGR image (H, W, 3) around keypoints (6, 2), px; of the whole image without keypoints."""
        if self.color == "grey":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        if keypoints is None:
            out = crop_plain(image, self.side, self.margin)
        else:
            out = crop_faces(image, keypoints[None], self.side, self.margin)[0]
        if self.color == "rgb":
            out = np.ascontiguousarray(out[..., ::-1])
        return out

    def find(self, image: U8) -> F32 | None:
        """Keypoints (6, 2) in px of the most prominent face (confidence times width) of a BGR image, or None."""
        if not self._align:
            return None
        if self._detector is None:
            self._detector = choose_detector(self._name).open("short", MIN_CONFIDENCE)
        height, width = image.shape[:2]
        border = round(BORDER * max(height, width))
        bordered = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        scale = DETECTION_SIDE / max(bordered.shape[:2])
        size = (max(1, round(bordered.shape[1] * scale)), max(1, round(bordered.shape[0] * scale)))
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        resized = np.asarray(cv2.resize(bordered, size, interpolation=interpolation), np.uint8)
        (found,) = self._detector.find([resized])
        if not len(found):
            return self._search_image(image) if max(height, width) > 2 * DETECTION_SIDE else None
        best = _most_prominent(found)
        scale_back = np.divide((bordered.shape[1], bordered.shape[0]), size)
        return np.asarray(found.keypoints[best] * scale_back - border, np.float32)

    def _search_image(self, image: U8) -> F32 | None:
        """As ``find``, with the runtime's search for faces of any size."""
        if self._search is None:
            self._search = ImageFaceDetector(detector=self._name)
        found = self._search.detect(image)
        if not len(found):
            return None
        return np.asarray(found.keypoints[_most_prominent(found)], np.float32)


def _most_prominent(found: Detections) -> int:
    return int(np.argmax(found.confidence * (found.xyxy[:, 2] - found.xyxy[:, 0])))
