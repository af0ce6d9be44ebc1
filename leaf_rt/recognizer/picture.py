"""Loads pictures in any form that callers have, and shows plots in notebooks."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from leaf_rt.errors import CodecError
from leaf_rt.media.images import decode_picture, read_picture
from leaf_rt.sources.arrays import as_bgr
from leaf_rt.system.files import write_whole
from leaf_rt.types import U8

if TYPE_CHECKING:
    from PIL.Image import Image

    PictureLike: TypeAlias = str | os.PathLike[str] | bytes | U8 | Image


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing as a PNG file in memory; a notebook shows it.

    Attributes:
        png: Bytes of the PNG file.
    """

    png: bytes = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the PNG file.

        Raises:
            NoPermission, OutputError: It cannot be written there.
        """
        write_whole(Path(path), self.png)
        return Path(path)

    def _repr_png_(self) -> bytes:
        return self.png


def load_picture(picture: PictureLike) -> U8:
    """Any form of a picture as (H, W, 3) uint8 BGR.

    Args:
        picture: Path, bytes of a picture file, PIL image, or NumPy array: (H, W, 3) uint8 BGR or (H, W) uint8 grey.

    Raises:
        NotFound, NoPermission, NotAVideo, CodecError: A file or its bytes cannot be read as a picture.
        TypeError: None of these types.
        ValueError: An array of the wrong shape or dtype.
    """
    if isinstance(picture, str | os.PathLike):
        return read_picture(Path(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode_picture(bytes(picture), f"picture of {len(picture)} bytes")
    if isinstance(picture, np.ndarray):
        return as_bgr(picture, "picture")
    if any(kind.__module__.startswith("PIL.") for kind in type(picture).__mro__):  # without importing Pillow
        return _from_pil(picture)
    raise TypeError(f"picture: wanted a path, bytes, a PIL image or a NumPy array, got {type(picture).__name__}")


def _from_pil(image: Any) -> U8:
    """The same picture that ``read_picture`` reads from the file: turned by EXIF, transparent parts on white."""
    from PIL import Image, ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        image.load()
    except OSError as e:
        raise CodecError("picture: the PIL image is damaged and cannot be decoded; get a fresh copy") from e
    if image.mode.startswith("I;16"):
        return as_bgr((np.asarray(image) // 256).astype(np.uint8), "picture")
    if image.mode in ("I", "F"):
        raise CodecError(
            f"picture: PIL mode {image.mode} does not say what is black and what is white; convert it to RGB first"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return as_bgr(np.asarray(image.convert("RGB"))[..., ::-1], "picture")


def encoded(image: U8, ending: str = ".jpg") -> bytes:
    """A picture (H, W, 3) uint8 BGR as the bytes of a file."""
    return bytes(cv2.imencode(ending, image)[1].tobytes())


def shrunk(image: U8, width: int) -> U8:
    """The picture, at most ``width`` px wide."""
    scale = width / image.shape[1]
    if scale >= 1:
        return image
    size = (width, max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
