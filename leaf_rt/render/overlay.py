"""What a person sees on a frame: boxes, the shown emotion, its probabilities; and faces made unrecognisable.

Knows OpenCV, the label colours and ``Estimates``; must not know sources, files, windows or time.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from leaf_rt.geometry import iou
from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.types import F32, U8, Estimates

_INK = (24, 24, 24)  # BGR, dark text and panels
_PAPER = (245, 245, 245)  # BGR, light text
_BLUR_CELLS = 6  # a hidden face keeps this many cells on its longer side
_SAME_PLACE = 0.3  # intersection over union from which on a face is taken for the one that was there before
_BLUR_MARGIN = 0.2  # share of the box added on every side before it is hidden: hair, chin and ears


def color_of(label: str) -> tuple[int, int, int]:
    """The BGR colour of a label."""
    red, green, blue = rgb(label)
    return blue, green, red


def annotate(image: U8, estimates: Estimates, labels: Sequence[str], blur: bool = False) -> U8:
    """A marked copy of a picture; see ``mark``."""
    canvas = image.copy()
    mark(canvas, estimates, labels, blur)
    return canvas


def mark(canvas: U8, estimates: Estimates, labels: Sequence[str], blur: bool = False) -> None:
    """Mark everybody on a picture, in place.

    A box carries its person's number and shown emotion in the emotion's colour; an untrustworthy face
    (``low_quality``) has a hollow label. Where the picture has room, all probabilities stand as bars beside the
    box, else as one stripe below it.

    Args:
        canvas: (H, W, 3) uint8 BGR.
        estimates: Who is on it.
        labels: Names of the C classes.
        blur: Hide every face in sight.

    Raises:
        ValueError: ``labels`` and ``estimates`` disagree about C.
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
    texts = {row: _tag_text(estimates, row, names[row], boxes[row]) for row in visible}
    tags = {row: pen.tag_box(boxes[row], texts[row]) for row in visible}
    taken = [*boxes, *tags.values()]
    for row in visible:
        spot = pen.panel_spot(boxes[row], len(labels), taken)
        if spot is not None:
            taken.append(spot)
            pen.panel(spot, estimates.smoothed[row], labels, int(estimates.emotion[row]))
        else:
            pen.stripe(boxes[row], estimates.smoothed[row], labels, tags[row])
    for row in visible:  # last, so that in a crowd nothing lies on a label but another label
        size = pen.tag_size(boxes[row])
        pen.tag(tags[row], texts[row], size, color_of(names[row]), hollow=bool(estimates.low_quality[row]))


def blur_faces(image: U8, xyxy: F32) -> None:
    """Make faces unrecognisable, in place: a few flat cells per face, from which nothing can be computed back.

    Args:
        image: (H, W, 3) uint8.
        xyxy: (N, 4) float32, px; parts outside the picture are ignored.
    """
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in xyxy[np.isfinite(xyxy).all(axis=1)].tolist():
        dx, dy = (x1 - x0) * _BLUR_MARGIN, (y1 - y0) * _BLUR_MARGIN
        left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
        right, bottom = min(width, int(np.ceil(x1 + dx))), min(height, int(np.ceil(y1 + dy)))
        if right <= left or bottom <= top:
            continue
        part = image[top:bottom, left:right]
        scale = _BLUR_CELLS / max(right - left, bottom - top)
        cells = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)


class Anonymizer:
    """Hides the faces of one source's frames, and for a while the places where faces were just lost.

    A detector misses a face now and then for a few frames; those must not show it. A face that has no row yet is hidden
    like any other.
    """

    def __init__(self, linger: float = 1.0) -> None:
        """Start with nobody; ``linger`` is the time in s for which the place of a lost face stays hidden."""
        self.linger = linger
        self._people: dict[int, tuple[float, F32]] = {}  # track -> time s, box (4,)
        self._others: list[tuple[float, F32]] = []  # of faces without a row

    def hide(self, canvas: U8, estimates: Estimates) -> None:
        """Make every face on the next frame, (H, W, 3) uint8, unrecognisable, in place."""
        now = estimates.timestamp
        for track_id, box in zip(estimates.track_id.tolist(), estimates.xyxy, strict=True):
            self._people[track_id] = (now, box)
        self._people = {k: (t, box) for k, (t, box) in self._people.items() if 0 <= now - t <= self.linger}
        present = np.concatenate([estimates.xyxy, estimates.seen])
        self._others = [
            (t, box)
            for t, box in self._others
            if 0 <= now - t <= self.linger and not (iou(box[None], present) > _SAME_PLACE).any()
        ]
        lost = [box for _, box in (*self._people.values(), *self._others)]
        blur_faces(canvas, np.concatenate([estimates.seen, np.array(lost, np.float32).reshape(-1, 4)]))
        known = (iou(estimates.seen, estimates.xyxy) > _SAME_PLACE).any(axis=1)
        self._others += [(now, box) for box in estimates.seen[~known]]


Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in px, inside the picture


class _Pen:
    """Draws on one canvas, with sizes that follow the picture's."""

    def __init__(self, canvas: U8) -> None:
        self.canvas = canvas
        self.font = cv2.FontFace("sans")  # comes inside OpenCV; one per drawing, for several threads draw
        self.height, self.width = canvas.shape[:2]
        side = min(self.height, self.width)
        self.size = int(np.clip(round(side / 27), 10, 40))  # px, of the text
        self.line = max(1, round(side / 300))  # px
        self.row = round(self.size * 1.3)  # px, of one bar in a panel

    def clip(self, box: NDArray[np.float32]) -> Box:
        """A box as whole pixels inside the picture; empty where it lies outside or is not finite."""
        if not np.isfinite(box).all():
            return 0, 0, 0, 0
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        limit_x, limit_y = self.width - 1, self.height - 1
        return max(0, x0), max(0, y0), min(limit_x, x1), min(limit_y, y1)

    def text(self, text: str, x: int, baseline: int, color: tuple[int, int, int], size: int, weight: int) -> None:
        """Text from ``x`` on, standing on ``baseline``."""
        cv2.putText(self.canvas, text, (x, baseline), color, self.font, size, weight)

    def text_width(self, text: str, size: int, weight: int) -> int:
        """Width of a text, px."""
        return int(cv2.getTextSize((0, 0), text, (0, 0), self.font, size, weight)[2])

    def brackets(self, box: Box, color: tuple[int, int, int]) -> None:
        """The four corners of a box, rounded, on a dark edge that keeps them visible on any ground."""
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

    def tag_box(self, box: Box, text: str) -> Box:
        """Where the label of a box lies: above it, below where there is no room above."""
        x0, y0, _, y1 = box
        size = self.tag_size(box)
        width, height = self.text_width(text, size, 600) + 2 * _padding(size), round(size * 1.5)
        left = int(np.clip(x0 - self.line, 0, max(0, self.width - width)))
        top = y0 - height - self.line - 2
        if top < 0:
            top = min(y1 + self.line + 3, self.height - height)
        return left, top, left + width, top + height

    def tag(self, tag: Box, text: str, size: int, color: tuple[int, int, int], hollow: bool) -> None:
        """A label at its place: on the colour, or in the colour on dark ground."""
        if hollow:
            self.shade(tag, _INK, 0.7)
            ink = color
        else:
            self.rounded(tag, color, round(size * 0.3))
            ink = _INK if np.dot(color, (0.114, 0.587, 0.299)) > 120 else _PAPER
        self.text(text, tag[0] + _padding(size), tag[1] + round(size * 1.08), ink, size, 600)

    def tag_size(self, box: Box) -> int:
        """Text size for a box, px: small faces in a crowd get smaller labels."""
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
        """A translucent rectangle."""
        x0, y0, x1, y1 = box
        part = self.canvas[max(0, y0) : y1, max(0, x0) : x1]
        if part.size:
            cv2.addWeighted(part, 1 - alpha, np.full_like(part, color), alpha, 0, dst=part)

    def panel_spot(self, box: Box, rows: int, taken: list[Box]) -> Box | None:
        """Room for the bars beside a box, clear of everything taken; None where there is none."""
        x0, y0, x1, y1 = box
        width, height = round(self.size * 11.5), rows * self.row + round(self.size * 0.6)
        gap = round(self.size * 0.6)
        if (y1 - y0) * 2 < height:  # a panel far larger than its face explains nothing
            return None
        tag = round(self.size * 1.5) + self.line + 2
        top = int(np.clip(y0, 0, max(0, self.height - height)))
        left = int(np.clip(x0, 0, max(0, self.width - width)))
        corners = ((x1 + gap, top), (x0 - gap - width, top), (left, y1 + gap), (left, y0 - gap - tag - height))
        for x, y in corners:
            spot = (x, y, x + width, y + height)
            inside = x >= 0 and y >= 0 and spot[2] <= self.width and spot[3] <= self.height
            if inside and not any(_overlap(spot, other) for other in taken if other is not box):
                return spot
        return None

    def panel(self, spot: Box, probs: F32, labels: Sequence[str], shown: int) -> None:
        """All probabilities (C,) as bars with names and per cent."""
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
        """All probabilities (C,) as one stripe of colours under a box, or under its label where that lies there."""
        x0, _, x1, y1 = box
        height = max(3, self.line * 2)
        top = (tag[3] if tag[1] >= y1 else y1 + self.line) + 2
        if top + height > self.height:
            return
        edges = x0 + np.round(np.cumsum(np.concatenate([[0.0], probs])) * (x1 - x0)).astype(int)
        for name, start, end in zip(labels, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            self.canvas[top : top + height, start:end] = color_of(name)


def _tag_text(estimates: Estimates, row: int, name: str, box: Box) -> str:
    """Number and shown emotion; with its probability where the face is large enough for so much text."""
    shown = int(estimates.emotion[row])
    sure = shown >= 0 and box[2] - box[0] >= 64
    percent = f" {estimates.smoothed[row, shown] * 100:.0f}%" if sure else ""
    return f"{estimates.track_id[row]}  {name}{percent}"


def _padding(size: int) -> int:
    return max(2, round(size * 0.45))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
