"""Still pictures: read any of them as BGR, write an annotated one.

Knows files and OpenCV's codecs; must not know detectors, models or terminals.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from leaf_rt.errors import CodecError, NoPermission, NotAVideo, NotFound, OutputError
from leaf_rt.media.decoding import decode_image
from leaf_rt.system.files import write_whole
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import U8


def read_picture(path: Path) -> U8:
    """Read a picture the way a viewer shows it.

    Turned as its EXIF note says; grey becomes colour, 16 bit becomes 8 bit, and what is transparent lies on white.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        NotFound: There is no such file.
        NoPermission: It may not be read.
        NotAVideo: It is a folder, empty, or holds no picture.
        CodecError: It is a picture, but damaged, too large, or of numbers without a scale.
    """
    data = _read(path)
    try:
        with suppress_native_stderr():
            image, raw = decode_image(data)
    except cv2.error as e:
        if "CV_IO_MAX_IMAGE" in str(e):
            raise CodecError(f"{path}: the picture has more pixels than can be decoded (2^30); make it smaller") from e
        raise CodecError(f"{path}: the picture is damaged and cannot be decoded; get a fresh copy of it") from e
    if image is None:
        if raw is not None:
            kind = f"{raw.dtype.itemsize * 8}-bit {'float' if raw.dtype.kind == 'f' else 'integer'}"
            raise CodecError(
                f"{path}: is a {kind} picture, which does not say what is black and what is white; save it with 8 or "
                "16 bits per channel"
            )
        if cv2.haveImageReader(str(path)):
            raise CodecError(f"{path}: the picture is damaged and cannot be decoded; get a fresh copy of it")
        raise NotAVideo(f"{path}: no picture that can be read; give a JPEG, PNG, WebP, TIFF or BMP file")
    return image


def write_picture(path: Path, image: U8) -> None:
    """Write a picture in the format that the name's ending asks for, whole or not at all.

    Raises:
        NoPermission, OutputError: It cannot be written there.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 93] if path.suffix.lower() in (".jpg", ".jpeg") else []
    fine, encoded = cv2.imencode(path.suffix, image, options)
    if not fine:
        raise OutputError(
            f"{path}: OpenCV cannot write a {path.suffix} picture of {image.shape[1]}x{image.shape[0]} px"
        )
    write_whole(path, encoded.tobytes())


def _read(path: Path) -> bytes:
    if re.match(r"[a-z]{2,}:/", str(path)):  # its text may hold a password
        raise NotAVideo("an address is no picture file; fetch the picture first, then give the file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such file") from e
    except IsADirectoryError as e:
        raise NotAVideo(f"{path}: is a folder; give the pictures in it, as in {path}/*.jpg") from e
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it") from e
    except OSError as e:
        raise CodecError(f"{path}: cannot be read ({e.strerror})") from e
    if not data:
        raise NotAVideo(f"{path}: the file is empty (0 bytes)")
    return data
