"""Where picture bytes come from: files, a zip archive, memory; and how they become pixels.

Knows files and OpenCV's decoder; must not know labels.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.types import U8


class Source(Protocol):
    """Reads pictures by id."""

    def read(self, name: str) -> bytes:
        """The bytes of a picture file. Raises OSError where it is missing or damaged."""
        ...

    def stamp(self, name: str) -> str:
        """A text that changes when the file does, without reading it; empty where there is none."""
        ...


class Files:
    """Files under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """See ``Source``."""
        try:
            return (self.root / name).read_bytes()
        except ValueError as e:  # no file can have such a name
            raise OSError(str(e)) from e

    def stamp(self, name: str) -> str:
        """Size and time of change."""
        try:
            stat = (self.root / name).stat()
        except (OSError, ValueError):
            return ""
        return f"{stat.st_size}-{stat.st_mtime_ns}"


class Zip:
    """Members of a zip archive.

    Raises:
        DataError: It is no zip archive, or a truncated one.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        # damaged, its table or a member's name (UnicodeDecodeError); of a version that is unknown here
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as e:
            raise DataError(f"{path}: is no whole zip archive ({e}); download it again") from e
        self._members = {i.filename: i for i in self._zip.infolist()}

    def read(self, name: str) -> bytes:
        """See ``Source``."""
        try:
            return self._zip.read(self._members[name])
        # missing; damaged in its header, name, data or end; encrypted, or packed in a way that is unknown here
        except (KeyError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as e:
            raise OSError(f"{name}: {e}") from e

    def stamp(self, name: str) -> str:
        """Size and checksum."""
        member = self._members.get(name)
        return f"{member.file_size}-{member.CRC:08x}" if member else ""


class Memory:
    """Pictures in memory."""

    def __init__(self, pictures: dict[str, bytes]) -> None:
        self._pictures = pictures

    def read(self, name: str) -> bytes:
        """See ``Source``."""
        return self._pictures[name]

    def stamp(self, name: str) -> str:
        """None: the bytes are at hand."""
        return ""


def decode(data: bytes) -> U8 | None:
    """A picture file's pixels (H, W, 3) uint8 BGR, or None where it cannot be read.

    Grey is repeated, 16 bit shrunk to 8, and what is transparent lies on white.
    """
    encoded = np.frombuffer(data, np.uint8)
    if encoded.size == 0:
        return None
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # the caller reports what cannot be read
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        raw = None if data.startswith(b"\xff\xd8") else cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        return None
    picture = np.asarray(image, np.uint8)
    if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 and raw.shape[:2] == picture.shape[:2]:
        alpha = raw[..., 3:].astype(np.float32) / (65535.0 if raw.dtype == np.uint16 else 255.0)
        picture = (picture * alpha + 255.0 * (1.0 - alpha) + 0.5).astype(np.uint8)
    return picture
