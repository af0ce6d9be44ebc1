"""Draws boxes, emotions and probabilities on a frame. Does not know sources, files, windows or time."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.render.anonymize import Anonymizer, blur_faces
from leaf_rt.render.placement import Box, Face, Layout, Sizes, shortened
from leaf_rt.types import F32, U8, Estimates

_INK = (24, 24, 24)  # BGR, dark text and panels
_PAPER = (245, 245, 245)  # BGR, light text


def color_of(label: str) -> tuple[int, int, int]:
    """Return the BGR color of a label."""
    red, green, blue = rgb(label)
    return blue, green, red


def annotate(image: U8, estimates: Estimates, labels: Sequence[str], blur: bool = False) -> U8:
    """Return a copy of an image with everything drawn on it; see ``draw_estimates``."""
    canvas = image.copy()
    draw_estimates(canvas, estimates, labels, blur)
    return canvas


def draw_estimates(
    canvas: U8, estimates: Estimates, labels: Sequence[str], blur: bool = False, layout: Layout | None = None
) -> None:
    """Draw all faces with their emotions on an image, in place.

    Each box carries the number of the person and the emotion, in the color of the emotion. A face of low quality has
    a hollow label. Bars beside the largest faces show all probabilities if there is room; else a stripe below the face
    does. In a crowd labels are shortened, and placed so that they cover neither each other nor a face.

    Args:
        canvas: (H, W, 3) uint8 BGR.
        estimates: The faces.
        labels: Names of the C classes.
        blur: Whether to hide all faces first.
        layout: Where labels were in the frames before, so that they do not jump. None for a single picture.

    Raises:
        ValueError: The number of labels is not C.
    """
    if estimates.probs.shape[1] != len(labels):
        raise ValueError(f"labels: wanted {estimates.probs.shape[1]} names, got {len(labels)}")
    if blur:
        blur_faces(canvas, estimates.seen)
    pen = _Pen(canvas)
    boxes = [pen.clip(box) for box in estimates.xyxy]
    names = [labels[shown] if shown >= 0 else UNCERTAIN for shown in estimates.emotion.tolist()]
    visible = [row for row, (x0, y0, x1, y1) in enumerate(boxes) if x1 - x0 >= 2 and y1 - y0 >= 2]
    for row in visible:
        pen.brackets(boxes[row], color_of(names[row]))
    faces = [pen.face(estimates, row, names[row], boxes[row]) for row in visible]
    layout = Layout() if layout is None else layout
    places = layout.arrange(faces, pen.sizes(len(labels)), estimates.timestamp)
    for row, place in zip(visible, places, strict=True):
        if place.bars is not None:
            pen.panel(place.bars, estimates.smoothed[row], labels, int(estimates.emotion[row]))
        else:
            pen.stripe(boxes[row], estimates.smoothed[row], labels, place.tag)
    for row, place in zip(visible, places, strict=True):  # last, so that nothing covers a label
        size = pen.tag_size(boxes[row])
        pen.tag(place.tag, place.text, size, color_of(names[row]), hollow=bool(estimates.low_quality[row]))


class FrameAnnotator:
    """Annotates the frames of one source.

    Args:
        blur: Whether to hide the faces first, also those that were lost a moment ago; see ``Anonymizer``.
    """

    def __init__(self, blur: bool) -> None:
        self._anonymizer = Anonymizer() if blur else None
        self._layout = Layout()

    def draw(self, canvas: U8, estimates: Estimates, labels: Sequence[str]) -> U8:
        """Draw on the next frame, (H, W, 3) uint8 BGR, in place, and return it."""
        if self._anonymizer is not None:
            self._anonymizer.hide(canvas, estimates)
        draw_estimates(canvas, estimates, labels, layout=self._layout)
        return canvas


class _Pen:
    """Draws on one canvas. All sizes follow the size of the canvas."""

    def __init__(self, canvas: U8) -> None:
        self.canvas = canvas
        self.font = cv2.FontFace("sans")  # part of OpenCV; one per drawing, because several threads draw
        self.height, self.width = canvas.shape[:2]
        side = min(self.height, self.width)
        self.size = int(np.clip(round(side / 27), 10, 40))  # px, of text
        self.line = max(1, round(side / 300))  # px
        self.row = round(self.size * 1.3)  # px, of one bar in a panel

    def clip(self, box: NDArray[np.float32]) -> Box:
        """Round a box to whole px and clip it to the image. Empty if it is outside or not finite."""
        if not np.isfinite(box).all():
            return 0, 0, 0, 0
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        limit_x, limit_y = self.width - 1, self.height - 1
        return max(0, x0), max(0, y0), min(limit_x, x1), min(limit_y, y1)

    def text(self, text: str, x: int, baseline: int, color: tuple[int, int, int], size: int, weight: int) -> None:
        """Draw text that starts at ``x`` and stands on ``baseline``."""
        cv2.putText(self.canvas, text, (x, baseline), color, self.font, size, weight)

    def text_width(self, text: str, size: int, weight: int) -> int:
        """Return the width of a text, px."""
        return int(cv2.getTextSize((0, 0), text, (0, 0), self.font, size, weight)[2])

    def brackets(self, box: Box, color: tuple[int, int, int]) -> None:
        """Draw the four rounded corners of a box, with a dark edge that keeps them visible on any background."""
        x0, y0, x1, y1 = box
        arm = max(3, min(round(min(x1 - x0, y1 - y0) * 0.22), 5 * self.size))
        radius = max(1, min(arm // 3, self.size))
        corners = ((x0, y0, 1, 1, 180), (x1, y0, -1, 1, 270), (x1, y1, -1, -1, 0), (x0, y1, 1, -1, 90))
        for tint, thickness in ((_INK, self.line + 2), (color, self.line)):
            for x, y, sx, sy, angle in corners:
                at = (x, y + sy * radius)
                cv2.line(self.canvas, at, (x, y + sy * arm), tint, thickness, cv2.LINE_AA)
                cv2.line(self.canvas, (x + sx * radius, y), (x + sx * arm, y), tint, thickness, cv2.LINE_AA)
                center = (x + sx * radius, y + sy * radius)
                cv2.ellipse(self.canvas, center, (radius, radius), angle, 0, 90, tint, thickness, cv2.LINE_AA)

    def sizes(self, rows: int) -> Sizes:
        """Return the sizes of what is drawn beside the faces, with ``rows`` bars per face."""
        bars = round(self.size * 11.5), rows * self.row + round(self.size * 0.6)
        return Sizes(self.width, self.height, self.line, max(3, self.line * 2), bars, round(self.size * 0.6))

    def face(self, estimates: Estimates, row: int, name: str, box: Box) -> Face:
        """Return what the layout needs to know of a face."""
        size = self.tag_size(box)

        def width(text: str) -> int:
            return self.text_width(text, size, 600) + 2 * _padding(size)

        texts = _tag_texts(estimates, row, name, box)
        return Face(int(estimates.track_id[row]), box, texts, width, round(size * 1.5))

    def tag(self, tag: Box, text: str, size: int, color: tuple[int, int, int], hollow: bool) -> None:
        """Draw a label: dark or light text on the color, or, if hollow, colored text on a dark background."""
        if hollow:
            self.shade(tag, _INK, 0.7)
            ink = color
        else:
            self.rounded(tag, color, round(size * 0.3))
            ink = _INK if np.dot(color, (0.114, 0.587, 0.299)) > 120 else _PAPER
        self.text(text, tag[0] + _padding(size), tag[1] + round(size * 1.08), ink, size, 600)

    def tag_size(self, box: Box) -> int:
        """Return the text size of the label, px. Small faces get smaller labels."""
        return int(np.clip(round((box[2] - box[0]) / 6), min(11, self.size), self.size))

    def rounded(self, box: Box, color: tuple[int, int, int], radius: int) -> None:
        """A filled rectangle with round corners."""
        x0, y0, x1, y1 = box
        cv2.rectangle(self.canvas, (x0 + radius, y0), (x1 - radius, y1), color, -1)
        cv2.rectangle(self.canvas, (x0, y0 + radius), (x1, y1 - radius), color, -1)
        for x in (x0 + radius, x1 - radius):
            for y in (y0 + radius, y1 - radius):
                cv2.circle(self.canvas, (x, y), radius, color, -1, cv2.LINE_AA)

    def shade(self, box: Box, color: tuple[int, int, int], alpha: float) -> None:
        """Draw a translucent rectangle."""
        x0, y0, x1, y1 = box
        part = self.canvas[max(0, y0) : y1, max(0, x0) : x1]
        if part.size:
            cv2.addWeighted(part, 1 - alpha, np.full_like(part, color), alpha, 0, dst=part)

    def panel(self, spot: Box, probs: F32, labels: Sequence[str], shown: int) -> None:
        """Draw all probabilities (C,) as bars with names and percentages."""
        left, top, right, _ = spot
        self.shade(spot, _INK, 0.62)
        size = round(self.size * 0.82)
        pad = round(self.size * 0.5)
        bar_left = left + pad + round(self.size * 5.2)
        bar_right = right - pad - self.text_width("100", size, 700) - round(size * 0.4)
        half = max(2, round(self.size * 0.24))
        for row, (name, p) in enumerate(zip(labels, probs.tolist(), strict=True)):
            middle = top + round(self.size * 0.3) + row * self.row + self.row // 2
            baseline = middle + round(size * 0.36)
            weight, ink = (700, (255, 255, 255)) if row == shown else (400, (205, 205, 205))
            self.text(name, left + pad, baseline, ink, size, weight)
            cv2.rectangle(self.canvas, (bar_left, middle - half), (bar_right, middle + half), (70, 70, 70), -1)
            end = bar_left + round((bar_right - bar_left) * min(1.0, max(0.0, p)))
            if end > bar_left:
                cv2.rectangle(self.canvas, (bar_left, middle - half), (end, middle + half), color_of(name), -1)
            percent = f"{p * 100:.0f}"
            self.text(percent, right - pad - self.text_width(percent, size, weight), baseline, ink, size, weight)

    def stripe(self, box: Box, probs: F32, labels: Sequence[str], tag: Box) -> None:
        """Draw all probabilities (C,) as a stripe of colors below a box, or below its label if that is there."""
        x0, _, x1, y1 = box
        height = max(3, self.line * 2)
        top = (tag[3] if tag[1] >= y1 else y1 + self.line) + 2
        if top + height > self.height:
            return
        edges = x0 + np.round(np.cumsum(np.concatenate([[0.0], probs])) * (x1 - x0)).astype(int)
        for name, start, end in zip(labels, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            self.canvas[top : top + height, start:end] = color_of(name)


def _tag_texts(estimates: Estimates, row: int, name: str, box: Box) -> tuple[str, ...]:
    """Return what a label may say, longest first: number and emotion, with its probability if the face is large.

    These are always four texts, some of them equal, so that a label is as long after a change as it was before.
    """
    shown, number = int(estimates.emotion[row]), str(estimates.person_id[row])
    named = f"{number}  {name}"
    large = shown >= 0 and box[2] - box[0] >= 64
    full = f"{named} {estimates.smoothed[row, shown] * 100:.0f}%" if large else named
    return full, named, f"{number}  {shortened(name)}", number


def _padding(size: int) -> int:
    return max(2, round(size * 0.45))
