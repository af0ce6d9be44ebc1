"""A picture as a source of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leaf_rt.media.images import read_picture
from leaf_rt.sources.base import SourceOptions
from leaf_rt.system.closing import Closing
from leaf_rt.types import Frame, SourceInfo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class PictureSource(Closing):
    """One picture; see ``Source``. It is read when it is opened.

    Raises:
        LeafError: As ``read_picture``.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.warnings: list[str] = []
        self.damaged = 0
        self.decode_time: float | None = None
        image = read_picture(path)
        self._image = np.ascontiguousarray(image[:, ::-1]) if options.mirror else image
        height, width = self._image.shape[:2]
        name = options.name or path.name
        self.info = SourceInfo(name, str(path), "picture", width, height, None, 1, 0.0, False, "OpenCV", path=path)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the only frame."""
        yield Frame(self._image, 0, 0.0, self.info.name)
