"""Finds places for the labels and the bars of faces. Pure geometry in px: does not know pictures, fonts or colors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in px, inside the picture

_MAX_BARS = 3  # faces with bars
_HOLD = 1.3  # a face must be this much larger than one that has bars to take them over
_SETTLE = 1.0  # s for which a better place must have been free before a label moves back to it
_MEMORY = 1.0  # s for which the place of a face that is out of sight is kept

# Places of a label around its face, best first.
_NEAR = ("above-left", "above-right", "above-middle", "below-left", "below-right", "below-middle")
_BESIDE = ("right-top", "left-top", "right-bottom", "left-bottom")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in px that are the same for all faces of a picture.

    Attributes:
        width: Width of the picture.
        height: Height of the picture.
        line: Width of the lines of a box.
        stripe: Height of the stripe below a face without bars.
        bars: Width and height of the bars of one face.
        gap: Distance between a face and its bars.
    """

    width: int
    height: int
    line: int
    stripe: int
    bars: tuple[int, int]
    gap: int


@dataclass(frozen=True, slots=True)
class Face:
    """A face that needs a label.

    Attributes:
        track_id: Its number.
        box: Its box.
        texts: What the label may say, from the longest text to the shortest; as many in every frame.
        text_width: Returns the width of the label with a text.
        text_height: Height of the label.
    """

    track_id: int
    box: Box
    texts: tuple[str, ...]
    text_width: Callable[[str], int]
    text_height: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the label and the bars of a face go.

    Attributes:
        text: What the label says.
        tag: The label.
        bars: The bars; None if there is no room, or if other faces are larger.
    """

    text: str
    tag: Box
    bars: Box | None


@dataclass(slots=True)
class _Memory:
    """What a layout remembers of a face."""

    seen: float  # s
    spot: tuple[int, str] | None = None  # how much its text was shortened, and the place of its label
    better_since: float | None = None  # s, since when a better place is free
    corner: int | None = None  # number of the place of its bars


@dataclass(slots=True)
class Layout:
    """Places labels and bars so that they cover neither each other nor a face, and do not jump.

    Faces choose in the order of their numbers, so that a new face does not push away the label of an old one. A label
    keeps its place beside its face while that is free. It moves back to a better place only after that has been free
    for a second. Use one layout for all frames of a source.
    """

    _known: dict[int, _Memory] = field(default_factory=dict)

    def arrange(self, faces: Sequence[Face], sizes: Sizes, timestamp: float) -> list[Place]:
        """Place everything that belongs to one frame.

        If a label fits nowhere, even with its shortest text, it goes where it covers least.

        Args:
            faces: The faces, in any order.
            sizes: See ``Sizes``.
            timestamp: Media time, s.

        Returns:
            One place per face, in the same order.
        """
        self._known = {t: m for t, m in self._known.items() if 0 <= timestamp - m.seen <= _MEMORY}
        for face in faces:
            self._known.setdefault(face.track_id, _Memory(timestamp)).seen = timestamp
        taken = [_with_edge(face.box, sizes) for face in faces]  # then the labels, then the bars
        tags: dict[int, tuple[str, Box]] = {}
        for row in sorted(range(len(faces)), key=lambda row: faces[row].track_id):
            others = np.array([*taken[:row], *taken[row + 1 :]], np.int64).reshape(-1, 4)
            tags[row] = self._tag(faces[row], others, sizes, timestamp)
            taken.append(_with_stripe(tags[row][1], faces[row].box, sizes))
        bars: dict[int, Box] = {}
        for row in self._largest(faces, sizes):
            others = np.array([*taken[:row], *taken[row + 1 :]], np.int64).reshape(-1, 4)
            spot = self._bars(faces[row], others, sizes)
            if spot is not None:
                bars[row] = spot
                taken.append(spot)
        for row, face in enumerate(faces):
            if row not in bars:
                self._known[face.track_id].corner = None
        return [Place(*tags[row], bars.get(row)) for row in range(len(faces))]

    def _tag(self, face: Face, others: NDArray[np.int64], sizes: Sizes, now: float) -> tuple[str, Box]:
        """Return the text and the place of the label of a face."""
        memory = self._known[face.track_id]
        kept = _try(face, memory.spot, others, sizes) if memory.spot is not None else None
        if kept is None and memory.spot is not None:  # a shorter text moves less than another place does
            for form in range(1 - len(face.texts), -1):
                shorter = form, memory.spot[1]
                kept = _try(face, shorter, others, sizes)
                if kept is not None:
                    memory.spot = shorter
                    break
        for spot in _spots(face):
            found = kept if spot == memory.spot else _try(face, spot, others, sizes)
            if found is None:
                continue
            if kept is not None and spot != memory.spot:
                memory.better_since = now if memory.better_since is None else memory.better_since
                if now - memory.better_since < _SETTLE:
                    return kept
            memory.spot, memory.better_since = spot, None
            return found
        memory.spot, memory.better_since = None, None
        return _least_covering(face, others, sizes)

    def _largest(self, faces: Sequence[Face], sizes: Sizes) -> list[int]:
        """Return the rows of the faces that get bars if there is room, largest first. Faces with bars count more."""

        def size(row: int) -> float:
            x0, y0, x1, y1 = faces[row].box
            holds = self._known[faces[row].track_id].corner is not None
            return (x1 - x0) * (y1 - y0) * (_HOLD if holds else 1.0)

        large = [row for row, face in enumerate(faces) if (face.box[3] - face.box[1]) * 2 >= sizes.bars[1]]
        return sorted(large, key=lambda row: (-size(row), faces[row].track_id))[:_MAX_BARS]

    def _bars(self, face: Face, others: NDArray[np.int64], sizes: Sizes) -> Box | None:
        """Find room for the bars next to a face; None if there is none."""
        memory = self._known[face.track_id]
        x0, y0, x1, y1 = face.box
        width, height = sizes.bars
        top = _clip(y0, sizes.height - height)
        left = _clip(x0, sizes.width - width)
        above = y0 - sizes.gap - face.text_height - sizes.line - 2 - height
        corners = [(x1 + sizes.gap, top), (x0 - sizes.gap - width, top), (left, y1 + sizes.gap), (left, above)]
        order = sorted(range(len(corners)), key=lambda corner: corner != memory.corner)
        for corner in order:
            x, y = corners[corner]
            spot = (x, y, x + width, y + height)
            if _is_free(spot, others, sizes):
                memory.corner = corner
                return spot
        return None


def shortened(name: str) -> str:
    """Return a name of at most four characters: its first three letters and a point, if it is longer."""
    return name if len(name) <= 4 else f"{name[:3]}."


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes have px in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _spots(face: Face) -> list[tuple[int, str]]:
    """Return all places of a label, best first: index of the text from the end, and place.

    The last text, the number alone, comes last: it says least.
    """
    last = len(face.texts) - 1
    forms = [form - len(face.texts) for form in range(len(face.texts))]
    named = [(form, place) for places in (_NEAR, _BESIDE) for form in forms[:last] for place in places]
    return named + [(-1, place) for place in (*_NEAR, *_BESIDE)]


def _try(face: Face, spot: tuple[int, str], others: NDArray[np.int64], sizes: Sizes) -> tuple[str, Box] | None:
    """Return the text and the box of a label at a place; None if it is not free."""
    form, place = spot
    if -form > len(face.texts):
        return None
    text = face.texts[form]
    tag = _tag_box(face, text, place, sizes)
    return (text, tag) if _is_free(_with_stripe(tag, face.box, sizes), others, sizes) else None


def _tag_box(face: Face, text: str, place: str, sizes: Sizes) -> Box:
    """Return the box of a label at a place, moved into the picture from left and right."""
    x0, y0, x1, y1 = face.box
    width, height = face.text_width(text), face.text_height
    side, anchor = place.split("-")
    if side in ("above", "below"):
        top = y0 - height - sizes.line - 2 if side == "above" else y1 + sizes.line + 3
        starts = {"left": x0 - sizes.line, "right": x1 + sizes.line - width, "middle": (x0 + x1 - width) // 2}
        left = _clip(starts[anchor], sizes.width - width)
    else:
        left = x1 + sizes.line + 3 if side == "right" else x0 - sizes.line - 3 - width
        top = _clip(y0 if anchor == "top" else y1 - height, sizes.height - height)
    return left, top, left + width, top + height


def _least_covering(face: Face, others: NDArray[np.int64], sizes: Sizes) -> tuple[str, Box]:
    """Return the text and the box of a label that has no room: inside the picture, covering least of the others."""
    best: tuple[int, str, Box] | None = None
    for text in face.texts:
        for place in ("below-left", "above-left"):
            left, top, right, bottom = _tag_box(face, text, place, sizes)
            height = bottom - top
            top = _clip(top, sizes.height - height)
            tag = (left, top, right, top + height)
            covered = _covered(tag, others)
            if best is None or covered < best[0]:
                best = covered, text, tag
    if best is None:
        raise ValueError("Face.texts: wanted at least one text, got none")
    return best[1:]


def _is_free(box: Box, others: NDArray[np.int64], sizes: Sizes) -> bool:
    """Whether a box is inside the picture and covers nothing."""
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= sizes.width and box[3] <= sizes.height
    return inside and _covered(box, others) == 0


def _covered(box: Box, others: NDArray[np.int64]) -> int:
    """Return how many px of the other boxes (N, 4) a box covers."""
    low = np.maximum(others[:, :2], box[:2])
    high = np.minimum(others[:, 2:], box[2:])
    return int(np.maximum(high - low, 0).prod(axis=1).sum())


def _with_edge(box: Box, sizes: Sizes) -> Box:
    """Return what a face takes: its box with the lines around it and the stripe below."""
    x0, y0, x1, y1 = box
    return x0 - sizes.line, y0 - sizes.line, x1 + sizes.line, y1 + sizes.line + 2 + sizes.stripe


def _with_stripe(tag: Box, box: Box, sizes: Sizes) -> Box:
    """Return what a label takes: below a face, also the stripe below the label."""
    below = tag[1] >= box[3]
    return tag[0], tag[1], tag[2], tag[3] + (2 + sizes.stripe if below else 0)


def _clip(value: int, high: int) -> int:
    return max(0, min(value, high))
