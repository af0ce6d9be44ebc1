"""The two stages that find faces in an image: a search proposes places, a close-up confirms each of them.

The search runs a detection model on the whole image and on tiles of it. Every place that it proposes is then cut out
and shown to the short-range model, in which the face is large whatever its size in the image. So near and far faces
come with the same geometry, and a false detection has to pass both stages. Up to four close-ups share one
image of the model as a mosaic.

Knows detection models by their protocol. Does not know MediaPipe, tracks or time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, get_args

import cv2
import numpy as np

from leaf_rt.faces.regions import Mosaic, Region, Window, concatenate, non_max_suppression, transform
from leaf_rt.geometry import iou
from leaf_rt.system.closing import Closing
from leaf_rt.types import U8, Detections

DetectorRange: TypeAlias = Literal["auto", "short", "full"]
ModelKind: TypeAlias = Literal["short", "full"]
SearchStep: TypeAlias = tuple[ModelKind, Region]  # run this model on this part of the image

MIN_SIDE = 16  # px; smaller images are not searched
SEARCH_SIDE = 512  # px; larger parts of an image are first shrunk to this. The models see 128 or 192 px
MIN_PROPOSAL_CONFIDENCE = 0.5  # a proposal with less gets no close-up
MIN_AGREEMENT = 0.4  # intersection over union of a proposal and the face in its close-up


class DetectionModel(Protocol):
    """A face detection model; ``BlazeFace`` and ``MediaPipeDetector`` implement it.

    Attributes:
        close_up_side: Side of an image of close-ups that suits the model, px.
    """

    close_up_side: int

    def find(self, images: Sequence[U8]) -> list[Detections]:
        """Find the faces in images, with one call of the network where the runtime can.

        Args:
            images: Each (H, W, 3) uint8 BGR, of any size.

        Returns:
            The faces of each image, in px of the image.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class FaceSearch(Closing):
    """Searches single images with detection models, which it opens when they are first needed.

    Args:
        open_model: Opens a detection model.
        range: See ``VideoFaceDetector``.
        min_confidence: Mean confidence in [0, 1] of proposal and close-up that a new face needs.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        open_model: Callable[[ModelKind], DetectionModel],
        range: DetectorRange,  # noqa: A002 - the name of the command-line option
        min_confidence: float,
    ) -> None:
        if range not in get_args(DetectorRange):
            raise ValueError(f"face detector: range: wanted one of {', '.join(get_args(DetectorRange))}, got {range!r}")
        if not 0.0 <= min_confidence <= 1.0:
            raise ValueError(f"face detector: min_confidence: wanted 0 to 1, got {min_confidence!r}")
        self.range: DetectorRange = range
        self.min_confidence = min_confidence
        self._open_model = open_model
        self._models: dict[ModelKind, DetectionModel] = {}
        self._closed = False

    def close(self) -> None:
        """Free the models. May be called twice."""
        self._closed = True
        while self._models:
            self._models.popitem()[1].close()

    def warm_up(self) -> None:
        """Open the models that ``range`` needs."""
        for kind in get_args(ModelKind):
            if kind == "short" or self.range != "short":  # close-ups always need the short-range model
                self._model(kind)

    def propose(self, image: U8, steps: list[SearchStep]) -> Detections:
        """Run the first stage.

        Args:
            image: (H, W, 3) uint8 BGR.
            steps: Which model to run on which part of the image.

        Returns:
            Places that may show faces, in px of the image. Several of them may show the same face.
        """
        found: list[Detections] = []
        for kind in get_args(ModelKind):
            regions = [region for step, region in steps if step == kind]
            if regions:
                found += self._propose(image, kind, regions)
        return concatenate(found)

    def confirm(self, image: U8, proposals: Detections, per_image: int) -> Detections:
        """Run the second stage: return the faces that the close-ups of the proposals show, each face once.

        Args:
            image: (H, W, 3) uint8 BGR.
            proposals: See ``propose``.
            per_image: Close-ups that share one image, 1 to 4.
        """
        windows = [Window.around(box) for box in proposals.xyxy.tolist()]
        faces: list[Detections] = []
        for k, found in enumerate(self.look(image, windows, per_image)):
            overlap = iou(proposals.xyxy[[k]], found.xyxy)[0]
            mean = (found.confidence + proposals.confidence[k]) / 2
            found = found[
                (overlap >= MIN_AGREEMENT)
                & (found.confidence >= MIN_PROPOSAL_CONFIDENCE)
                & (mean >= self.min_confidence)
            ]
            if len(found):
                faces.append(found[[int(found.confidence.argmax())]])
        confirmed = concatenate(faces)
        return confirmed[non_max_suppression(confirmed)]

    def look(self, image: U8, windows: list[Window], per_image: int) -> list[Detections]:
        """Run the short-range model on close-ups.

        Args:
            image: (H, W, 3) uint8 BGR.
            windows: The close-ups.
            per_image: Close-ups that share one image, 1 to 4. With fewer, each is seen larger.

        Returns:
            The faces in each window, in px of the image.
        """
        if not windows:
            return []
        model = self._model("short")
        mosaics = [
            Mosaic.of(image, windows[start : start + per_image], model.close_up_side)
            for start in range(0, len(windows), per_image)
        ]
        found = model.find([mosaic.image for mosaic in mosaics])
        return [part for mosaic, faces in zip(mosaics, found, strict=True) for part in mosaic.split(faces)]

    def _model(self, kind: ModelKind) -> DetectionModel:
        if self._closed:
            raise ValueError("face detector: it is closed; create a new one")
        model = self._models.get(kind)
        if model is None:
            model = self._models[kind] = self._open_model(kind)
        return model

    def _propose(self, image: U8, kind: ModelKind, regions: list[Region]) -> list[Detections]:
        """Search regions of an image with one call of a model."""
        parts: list[U8] = []
        scales: list[float] = []
        for x0, y0, x1, y1 in regions:
            part = image[y0:y1, x0:x1]
            scale = max(max(part.shape[:2]) / SEARCH_SIDE, 1.0)
            if scale > 1.0:
                size = (max(round(part.shape[1] / scale), 1), max(round(part.shape[0] / scale), 1))
                part = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
            parts.append(part)
            scales.append(scale)
        return [
            transform(found[found.confidence >= MIN_PROPOSAL_CONFIDENCE], scale, np.array(region[:2], np.float32))
            for found, scale, region in zip(self._model(kind).find(parts), scales, regions, strict=True)
        ]
