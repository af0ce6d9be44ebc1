"""Face detection in single images."""

from __future__ import annotations

from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.regions import non_max_suppression, tiles
from leaf_rt.faces.search import MIN_SIDE, DetectorRange, FaceSearch, SearchStep
from leaf_rt.system.closing import Closing
from leaf_rt.types import U8, Detections


class ImageFaceDetector(Closing):
    """Finds the faces in single images. Keeps no state from one image to the next.

    Args:
        range: See ``VideoFaceDetector``.
        min_confidence: Mean confidence in [0, 1] of proposal and close-up that a face needs.
        detector: What runs the networks; see ``choose_detector``.

    Raises:
        BackendError: See ``choose_detector``.
        ModelError: A bundled model is missing or damaged.
        ValueError: An argument is out of range.

    Example:
        >>> with ImageFaceDetector() as detector:
        ...     faces = detector.detect(cv2.imread("group.jpg"))
    """

    def __init__(
        self,
        range: DetectorRange = "auto",  # noqa: A002 - the name of the command-line option
        min_confidence: float = 0.6,
        detector: str = "auto",
    ) -> None:
        self._search = FaceSearch(choose_detector(detector).open, range, min_confidence)

    def detect(self, image: U8) -> Detections:
        """Find all faces in an image. Searches the whole image and two levels of overlapping tiles.

        Args:
            image: (H, W, 3) uint8 BGR.
        """
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE:
            return Detections.empty()
        whole = (0, 0, width, height)
        steps: list[SearchStep] = []
        if self._search.range != "full":
            steps.append(("short", whole))
        if self._search.range != "short":
            steps += [("full", region) for region in [whole, *tiles(height, width, levels=2)]]
        proposals = self._search.propose(image, steps)
        proposals = proposals[non_max_suppression(proposals, min_iou=0.5)]
        return self._search.confirm(image, proposals, per_image=1)  # one per image: speed matters less than in a video

    def close(self) -> None:
        """Free the models. May be called twice."""
        self._search.close()
