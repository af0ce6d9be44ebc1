"""Reads, decodes and writes pictures. The only picture decoder of the runtime and of training."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from leaf_rt.credentials import mask
from leaf_rt.errors import CodecError, NoPermission, NotAVideo, NotFound, OutOfResources, OutputError, out_of_resources
from leaf_rt.system.files import write_whole
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.system.reading import MAX_PICTURE, UnreadableFile, read_regular
from leaf_rt.types import U8

MAX_PIXELS = 1 << 28  # of a picture: cameras have up to 200 megapixels, and a PNG of 1 MB can hold a thousand
# By the first bytes. Pillow knows many more, such as programs in EPS, and Image.open refuses 180 megapixels.
_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
}
_BAD = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError, struct.error)
_ROWS = 256  # that are put on white at a time: a large picture as float32 takes gigabytes


def read_picture(path: Path) -> U8:
    """Read a picture as an image viewer shows it.

    Applies the EXIF rotation, converts gray to color and 16 bits to 8, and puts transparent pixels on white.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        NotFound: The file does not exist.
        NoPermission: There is no permission to read the file.
        NotAVideo: It is a folder, empty, or not a picture.
        CodecError: It is a picture, but damaged, too large, or has a number format without a known range.
    """
    return decode_picture(_read(path), str(path))


def decode_picture(data: bytes, name: str) -> U8:
    """Decode a picture from memory, as ``read_picture`` does.

    Args:
        data: The content of the file.
        name: Name of the picture in error messages.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        NotAVideo: It is empty or not a picture.
        CodecError: See ``read_picture``.
    """
    if not data:
        raise NotAVideo(f"{name}: the file is empty (0 bytes)")
    with contextlib.suppress(NotAVideo):  # OpenCV knows more formats, and says what it does not know
        picture_size(data, name)
    encoded = np.frombuffer(data, np.uint8)
    is_jpeg = data.startswith(b"\xff\xd8")  # has no alpha channel
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # the errors below say what is wrong
    try:
        with suppress_native_stderr():
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            raw = None if is_jpeg else cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        if "CV_IO_MAX_IMAGE" in str(e):
            raise _too_large(name, "more than 2^30") from e
        if out_of_resources(e) is not None:
            raise OutOfResources(f"{name}: the memory is too small for this picture; make it smaller") from e
        raise CodecError(f"{name}: the picture is damaged and cannot be decoded; get a fresh copy of it") from e
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        if raw is not None:
            kind = f"{raw.dtype.itemsize * 8}-bit {'float' if raw.dtype.kind == 'f' else 'integer'}"
            raise CodecError(
                f"{name}: is a {kind} picture, in which the values of black and white are unknown; save it with 8 or "
                "16 bits per channel"
            )
        if _has_picture_format(data):
            raise CodecError(f"{name}: the picture is damaged and cannot be decoded; get a fresh copy of it")
        raise NotAVideo(f"{name}: not a picture that can be read; use a JPEG, PNG, WebP, TIFF or BMP file")
    picture = np.asarray(image, dtype=np.uint8)
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 and raw.shape[:2] == picture.shape[:2]:
        white = {"uint8": 255.0, "uint16": 65535.0}.get(raw.dtype.name, 1.0)
        for top in range(0, len(picture), _ROWS):
            rows = slice(top, top + _ROWS)
            alpha = np.clip(raw[rows, :, 3:].astype(np.float32) / white, 0.0, 1.0)
            picture[rows] = (picture[rows] * alpha + 255.0 * (1.0 - alpha) + 0.5).astype(np.uint8)
    return picture


def picture_size(data: bytes, name: str) -> tuple[int, int, str]:
    """Width, height and format of a picture, from its head. Nothing is decoded.

    Args:
        data: The content of the file.
        name: Name of the picture in error messages.

    Raises:
        NotAVideo: It is not a JPEG, PNG, WebP, TIFF, BMP or GIF picture.
        CodecError: It has more than ``MAX_PIXELS``.
    """
    for begin, reader in _READERS.items():
        if not data.startswith(begin):
            continue
        try:
            with warnings.catch_warnings(action="ignore"), reader(io.BytesIO(data)) as picture:
                width, height = picture.size
                kind = str(picture.format)
        except _BAD:
            continue
        except Image.DecompressionBombError as e:  # that of GIF asks by itself
            raise _too_large(name, "too many") from e
        if width * height > MAX_PIXELS:
            raise _too_large(name, f"{width}x{height}")
        return width, height, kind
    raise NotAVideo(f"{name}: not a picture that can be read; use a JPEG, PNG, WebP, TIFF or BMP file")


def _too_large(name: str, size: str) -> CodecError:
    most = MAX_PIXELS // 1_000_000
    return CodecError(f"{name}: the picture has {size} pixels, and at most {most} million are read; make it smaller")


def _has_picture_format(data: bytes) -> bool:
    """Whether the data is in a format that OpenCV knows, by its first bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data[:4096])
        file.flush()
        return bool(cv2.haveImageReader(file.name))


def write_picture(path: Path, image: U8) -> None:
    """Write a picture completely or not at all, in the format of the path's suffix.

    Raises:
        NoPermission, OutputError: It cannot be written.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 93] if path.suffix.lower() in (".jpg", ".jpeg") else []
    ok, encoded = cv2.imencode(path.suffix, image, options)
    if not ok:
        raise OutputError(
            f"{path}: OpenCV cannot write a {path.suffix} picture of {image.shape[1]}x{image.shape[0]} px"
        )
    write_whole(path, encoded.tobytes())


def _read(path: Path) -> bytes:
    name = mask(str(path))
    if re.match(r"[A-Za-z]{2,}:/", str(path)):
        raise NotAVideo(f"{name}: an address is not a picture file; download the picture first, then use the file")
    try:
        data = read_regular(path, MAX_PICTURE)
    except FileNotFoundError as e:
        raise NotFound(f"{name}: no such file; check the name and the folder") from e
    except IsADirectoryError as e:
        raise NotAVideo(f"{path}: is a folder; name the pictures in it, as in {path}/*.jpg") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it") from e
    except UnreadableFile as e:
        raise NotAVideo(f"{path}: {e.strerror}; save the picture in a file first") from e
    except OSError as e:
        raise CodecError(f"{name}: cannot be read ({e.strerror}); check its name and its folder") from e
    return data
