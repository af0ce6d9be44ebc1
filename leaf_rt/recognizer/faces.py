"""Faces and frames as the caller gets them. Knows estimates, labels and drawing."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import BLENDSHAPES, UNCERTAIN, rgb
from leaf_rt.recognizer import tables
from leaf_rt.results.records import POSE
from leaf_rt.types import F32, I64, U8, Estimates

if TYPE_CHECKING:
    from leaf_rt.recognizer.picture import Plot

_HTML_WIDTH = 800  # px of the picture in a notebook
_THUMBNAIL = 72  # px


@dataclass(frozen=True, slots=True)
class Face:
    """One face.

    Attributes:
        track_id: Number of the person, from 1. In a video it stays the same while the face is tracked.
        xyxy: Left, top, right and bottom of the box, px.
        confidence: Confidence of the face detection, 0 to 1.
        emotion: The label to show, or "uncertain". In a video it is smoothed over time.
        probs: Newest answer of the model: label to probability; they sum to 1.
        smoothed: The same, filtered over time; equal to ``probs`` for pictures and crops.
        low_quality: Whether the face is too small, too blurred or turned too far for a reliable result.
        classified: Whether the face was classified in this frame. If not, ``probs`` is older (only in videos).
        detected: False if ``Recognizer.crops`` classified the whole crop, because it found or searched no face.
        person_id: In a video, number of the person, which a person who comes back gets again; final 0.5 s after the
            track began. Else ``track_id``.
        yaw: Degrees, positive if the face looks to the right of the picture. None without ``pose`` of ``Recognizer``.
        pitch: Degrees, positive if the face looks up.
        roll: Degrees, positive if the head is tilted clockwise in the picture.
        quality: How much the picture of the face can tell: 1 as much as a clear picture, 0 nothing, or it is no face.
            NaN if it was not measured.
        blendshapes: Movement of the face to how strong it is, 0 to 1; see ``leaf_rt.labels.BLENDSHAPES``. None without
            ``landmarks`` of ``Recognizer``, and where they could not be measured.
    """

    track_id: int
    xyxy: tuple[float, float, float, float]
    confidence: float
    emotion: str
    probs: dict[str, float]
    smoothed: dict[str, float]
    low_quality: bool
    classified: bool
    detected: bool
    person_id: int = 0
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    quality: float = math.nan
    blendshapes: dict[str, float] | None = None


class Faces(Sequence[Face]):
    """The faces of one picture, one video frame or a list of crops: a sequence of ``Face``, and arrays.

    Args:
        estimates: The faces.
        labels: Names of the C classes.
        image: The picture they are in, (H, W, 3) uint8 BGR; None for crops.
        crops: The crop of each face, if they come from crops.
        detected: (N,) bool, see ``Face.detected``; None means all.

    Attributes:
        labels: Names of the C classes, in the order of ``probs``.
        image: The picture, (H, W, 3) uint8 BGR, or None for crops.
        detected: (N,) bool, see ``Face.detected``.

    Example:
        >>> faces = recognizer.image("party.jpg")
        >>> [(face.emotion, face.probs["happiness"]) for face in faces]
        >>> faces.probs.mean(axis=0)
    """

    def __init__(
        self,
        estimates: Estimates,
        labels: Sequence[str],
        *,
        image: U8 | None = None,
        crops: Sequence[U8] | None = None,
        detected: NDArray[np.bool_] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self.image = image
        self.detected = np.ones(len(estimates), np.bool_) if detected is None else detected
        self._estimates, self._crops = estimates, crops

    def __len__(self) -> int:
        return len(self._estimates)

    @overload
    def __getitem__(self, index: int) -> Face: ...

    @overload
    def __getitem__(self, index: slice) -> Faces: ...

    def __getitem__(self, index: int | slice) -> Face | Faces:
        if isinstance(index, slice):
            crops = None if self._crops is None else self._crops[index]
            rows = _rows(self._estimates, index)
            return Faces(rows, self.labels, image=self.image, crops=crops, detected=self.detected[index])
        row = range(len(self))[index]
        found = self._estimates
        shown = int(found.emotion[row])
        x0, y0, x1, y1 = found.xyxy[row].tolist()
        return Face(
            track_id=int(found.track_id[row]),
            xyxy=(x0, y0, x1, y1),
            confidence=float(found.confidence[row]),
            emotion=self.labels[shown] if shown >= 0 else UNCERTAIN,
            probs=dict(zip(self.labels, found.probs[row].tolist(), strict=True)),
            smoothed=dict(zip(self.labels, found.smoothed[row].tolist(), strict=True)),
            low_quality=bool(found.low_quality[row]),
            classified=bool(found.classified[row]),
            detected=bool(self.detected[row]),
            person_id=int(found.person_id[row]),
            quality=float(found.quality[row]),
            blendshapes=_named(found.blendshapes[row]),
            **dict(zip(POSE, found.pose[row].tolist(), strict=False)),
        )

    def __repr__(self) -> str:
        return f"Faces({', '.join(f'{face.track_id} {face.emotion}' for face in self)})"

    @property
    def xyxy(self) -> F32:
        """Boxes, (N, 4) float32, px."""
        return self._estimates.xyxy

    @property
    def confidence(self) -> F32:
        """Confidence of the face detection, (N,) float32."""
        return self._estimates.confidence

    @property
    def track_id(self) -> I64:
        """Numbers of the people, (N,) int64."""
        return self._estimates.track_id

    @property
    def person_id(self) -> I64:
        """Numbers of the people, also after an absence, (N,) int64."""
        return self._estimates.person_id

    @property
    def probs(self) -> F32:
        """Newest outputs of the model, (N, C) float32, in the order of ``labels``."""
        return self._estimates.probs

    @property
    def smoothed(self) -> F32:
        """``probs`` filtered over time, (N, C) float32; equal to it for pictures and crops."""
        return self._estimates.smoothed

    @property
    def emotion(self) -> list[str]:
        """Label to show for each face, N names; "uncertain" if no class leads."""
        return tables.label_names(self._estimates.emotion, self.labels)

    @property
    def low_quality(self) -> NDArray[np.bool_]:
        """Whether each face is too small, too blurred or turned too far for a reliable result, (N,) bool."""
        return self._estimates.low_quality

    @property
    def quality(self) -> F32:
        """How much the picture of each face can tell, (N,) float32, 0 to 1."""
        return self._estimates.quality

    def annotated(self) -> U8:
        """A copy of the picture with boxes, labels and probabilities, (H, W, 3) uint8 BGR.

        Raises:
            ValueError: The faces come from crops, so there is no picture.
        """
        if self.image is None:
            raise ValueError("annotated(): these faces come from crops, so there is no picture to draw on")
        from leaf_rt.render.overlay import annotate

        return annotate(self.image, self._estimates, self.labels)

    def plot(self) -> Plot:
        """The annotated picture as a PNG, which a notebook shows and ``save`` writes.

        Raises:
            ValueError: See ``annotated``.
        """
        from leaf_rt.recognizer.picture import Plot, encoded

        return Plot(encoded(self.annotated(), ".png"))

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row per face; columns are named as in the CSV files.

        Raises:
            BackendError: pandas is not installed.
        """
        return tables.data_frame("pandas", self._columns())

    def to_polars(self) -> Any:
        """A ``polars.DataFrame``; see ``to_pandas``.

        Raises:
            BackendError: polars is not installed.
        """
        return tables.data_frame("polars", self._columns())

    def to_supervision(self) -> Any:
        """A ``supervision.Detections`` with a row per face.

        ``class_id`` counts in the order of ``labels``; the number after the last one means "uncertain". ``data``
        holds ``class_name`` and ``probs`` (N, C).

        Raises:
            BackendError: supervision is not installed.
        """
        library = tables.optional("supervision", "to_supervision()")
        emotion = self._estimates.emotion
        return library.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=np.where(emotion < 0, len(self.labels), emotion).astype(int),
            tracker_id=self.track_id.astype(int),
            data={"class_name": np.array(self.emotion, dtype=str), "probs": self.smoothed.copy()},
        )

    def _columns(self) -> dict[str, Any]:
        found = self._estimates
        return {
            "track_id": found.track_id,
            "person_id": found.person_id,
            **tables.box_columns(found.xyxy),
            "confidence": found.confidence,
            "emotion": self.emotion,
            **tables.share_columns("prob", found.probs, self.labels),
            **tables.share_columns("smoothed", found.smoothed, self.labels),
            "classified": found.classified,
            "poor": found.low_quality,
            "quality": found.quality,
            **tables.extra_columns(found.pose, found.blendshapes),
        }

    def _repr_html_(self) -> str:
        """The picture, and every face with its probabilities as bars, for notebooks."""
        picture = "" if self.image is None else _image_tag(self.annotated(), _HTML_WIDTH)
        rows = "".join(
            f'<tr><td>{_image_tag(self._thumbnail(row), _THUMBNAIL)}</td><td style="text-align:left">'
            f"<b>{face.track_id} {html.escape(face.emotion)}</b>{' (low quality)' if face.low_quality else ''}"
            f"</td><td>{_bars(face.smoothed)}</td></tr>"
            for row, face in enumerate(self)
        )
        return f"{picture}<table>{rows}</table>" if rows else f"{picture}<p>no face found</p>"

    def _thumbnail(self, row: int) -> U8:
        if self._crops is not None:
            return self._crops[row]
        if self.image is None:
            return np.zeros((1, 1, 3), np.uint8)
        x0, y0, x1, y1 = np.clip(np.round(self.xyxy[row]), 0, None).astype(int).tolist()
        part = self.image[y0:y1, x0:x1]
        return part if part.size else np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """One frame of a stream.

    Attributes:
        time: Media time of the frame, s; grows from frame to frame.
        index: Number of the frame in its source, from 0; gaps where frames were skipped or dropped.
        source: Name of the source, without user and password.
        faces: The faces in it.
        image: The frame, (H, W, 3) uint8 BGR.
        latency: s from capture (live sources) or from the start of processing (files) to the result.
        captured_at: When a live frame arrived, s since 1970, UTC; None for files.
        connection: Number of reconnects of the source before this frame; ``generation`` in records.
        shot: Number of cuts before this frame, since the newest connection.
    """

    time: float
    index: int
    source: str
    faces: Faces
    image: U8 = field(repr=False)
    latency: float
    captured_at: float | None
    connection: int
    shot: int = 0

    def annotated(self) -> U8:
        """A copy of the frame with boxes, labels and probabilities, (H, W, 3) uint8 BGR."""
        return self.faces.annotated()


def _rows(found: Estimates, rows: slice) -> Estimates:
    return Estimates(
        found.timestamp, found.track_id[rows], found.xyxy[rows], found.confidence[rows], found.probs[rows],
        found.smoothed[rows], found.emotion[rows], found.classified[rows], found.low_quality[rows], found.seen,
        found.shot, found.person_id[rows], found.pose[rows], found.quality[rows],
        found.blendshapes[rows],
    )  # fmt: skip


def _named(shapes: F32) -> dict[str, float] | None:
    return dict(zip(BLENDSHAPES, shapes.tolist(), strict=True)) if len(shapes) and np.isfinite(shapes).all() else None


def _image_tag(image: U8, width: int) -> str:
    from leaf_rt.recognizer.picture import encoded, shrunk

    data = base64.b64encode(encoded(shrunk(image, width))).decode("ascii")
    return f'<img style="max-width:{width}px" src="data:image/jpeg;base64,{data}">'


def _bars(shares: dict[str, float]) -> str:
    def bars() -> Iterator[str]:
        for label, share in shares.items():
            yield (
                f'<div style="display:flex;align-items:center;gap:6px;font-size:11px;line-height:13px">'
                f'<span style="width:70px;text-align:right">{html.escape(label)}</span>'
                f'<span style="width:{120 * share:.0f}px;height:8px;background:rgb{rgb(label)}"></span>'
                f"{share:.0%}</div>"
            )

    return "".join(bars())
