"""Where the bytes of images come from: a folder, a zip archive or memory.

Knows files; must not know labels or decode an image.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from leaf_rt.errors import DataError
from leaf_rt.system.reading import MAX_PICTURE, read_limited, read_regular


class ImageStore(Protocol):
    """Reads image files by id."""

    def read(self, name: str) -> bytes:
        """The content of an image file.

        Raises:
            OSError, KeyError: The file is missing or damaged.
        """
        ...

    def stamp(self, name: str) -> str:
        """A text that changes when the file changes, without reading the file; empty if there is none."""
        ...


class FolderStore:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """See ``ImageStore``."""
        try:
            return read_regular(self.root / name, MAX_PICTURE)
        except ValueError as e:  # the name cannot be a file name
            raise OSError(str(e)) from e

    def stamp(self, name: str) -> str:
        """Size and modification time."""
        try:
            stat = (self.root / name).stat()
        except (OSError, ValueError):
            return ""
        return f"{stat.st_size}-{stat.st_mtime_ns}"


class ZipStore:
    """Members of a zip archive.

    Raises:
        DataError: The file is not a zip archive, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        # The table or a member's name (UnicodeDecodeError) is damaged, or the version is not supported.
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as e:
            raise DataError(f"{path}: is not a complete zip archive ({e}); download it again") from e
        self._members = {i.filename: i for i in self._zip.infolist()}

    def names(self) -> list[str]:
        """The names of all members that are files."""
        return [name for name, member in self._members.items() if not member.is_dir()]

    def read(self, name: str) -> bytes:
        """See ``ImageStore``."""
        try:
            with self._zip.open(self._members[name]) as member:
                return read_limited(member, MAX_PICTURE, name)
        # The member is missing, damaged, encrypted, or compressed in a way that is not supported.
        except (KeyError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as e:
            raise OSError(f"{name}: {e}") from e

    def stamp(self, name: str) -> str:
        """Size and checksum."""
        member = self._members.get(name)
        return f"{member.file_size}-{member.CRC:08x}" if member else ""


class MemoryStore:
    """Image files in memory."""

    def __init__(self, images: dict[str, bytes]) -> None:
        self._images = images

    def read(self, name: str) -> bytes:
        """See ``ImageStore``."""
        return self._images[name]

    def stamp(self, name: str) -> str:
        """Empty: reading costs nothing."""
        return ""
