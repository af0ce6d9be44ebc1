"""The crop cache: every image is decoded and cropped once, and kept as uint8 under the hash of its file.

Knows crops and hashes; must not know labels, splits or models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np

from leaf_rt.errors import CodecError, DataError, NotAVideo, OutputError
from leaf_rt.media.images import decode_picture
from leaf_rt.system.files import make_folder, save_json, write_whole
from leaf_rt.system.parsing import parse_json
from leaf_rt.system.user_cache import user_cache
from leaf_rt.types import I64, U8
from train.data.cropper import FaceCropper
from train.data.image_store import ImageStore

VERSION = 1
Progress = Callable[[int, int], None]  # called with the number of finished images and of all images

MIN_NEW = 4096  # new images between two saves, at least


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How images are cropped, see ``FaceCropper``."""

    side: int
    margin: float
    color: str
    align: bool


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """The crops of N images.

    Attributes:
        images: (U, C, side, side) uint8, one crop per distinct file; C is 1 (grey) or 3 (RGB). Memory-mapped.
        row: (N,) int64, the crop of each image, -1 if the image cannot be read.
        found: (U,) bool, whether a face was found and aligned.
        pixels: U hashes of the decoded pixels: equal images have equal hashes.
        unreadable: Ids of the images that cannot be read.
    """

    images: U8
    row: I64
    found: np.ndarray[tuple[int], np.dtype[np.bool_]]
    pixels: tuple[str, ...]
    unreadable: tuple[str, ...]


def default_cache(path: Path, spec: CropSpec) -> Path:
    """The cache folder of a data set and its crops, in the user's cache folder."""
    key = json.dumps([str(path.resolve()), asdict(spec), VERSION])
    return user_cache("crops") / f"{path.resolve().name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def prepare(
    ids: Sequence[str],
    source: ImageStore,
    folder: Path,
    spec: CropSpec,
    progress: Progress = no_progress,
    detector: str = "auto",
) -> Crops:
    """Bring a cache up to date and open it.

    Images whose file is unchanged are not read again, and images with known bytes are not decoded again. After an
    interruption the finished work is kept.

    Args:
        ids: N names for ``source``.
        source: Reads the images.
        folder: Of the cache; created if missing.
        spec: How the images are cropped.
        progress: Called after every image.
        detector: See ``FaceCropper``.

    Raises:
        DataError: The folder holds a cache of other crops, or a damaged cache.
        OutputError, NoPermission: The cache cannot be written.
    """
    row = np.full(len(ids), -1, np.int64)
    with ExitStack() as stack:
        cache = _CacheFolder(folder, spec)
        stack.callback(cache.close)
        cropper = stack.enter_context(
            FaceCropper(spec.side, spec.margin, spec.color, align=spec.align, detector=detector)
        )
        try:
            for i, name in enumerate(ids):
                row[i] = cache.row(name, source, cropper)
                progress(i + 1, len(ids))
        finally:
            cache.save()
    found = np.zeros(len(cache.images), np.bool_)
    pixels = [""] * len(cache.images)
    for entry in cache.entries.values():
        if entry.row >= 0:
            found[entry.row], pixels[entry.row] = entry.found, entry.pixels
    unreadable = tuple(name for name, r in zip(ids, row.tolist(), strict=True) if r < 0)
    return Crops(cache.images, row, found, tuple(pixels), unreadable)


class _Entry(NamedTuple):
    """What the cache knows about the bytes of a file."""

    row: int  # of the crop, -1 if the bytes are not an image
    found: bool  # whether a face was found
    pixels: str  # hash of the decoded pixels


class _CacheFolder:
    """The folder of a cache while it grows.

    New crops are collected in a temporary file; ``save`` appends them to the saved ones. If the process is killed
    between the two files that ``save`` writes, some saved crops have no entry, which does no harm.

    Attributes:
        images: (U, C, side, side) uint8, the saved crops. Memory-mapped.
        entries: By the hash of a file's bytes.
    """

    def __init__(self, folder: Path, spec: CropSpec) -> None:
        self._meta_file, self._image_file = folder / "cache.json", folder / "images.npy"
        self._crops = {"version": VERSION, **asdict(spec)}
        self._shape = (1 if spec.color == "grey" else 3, spec.side, spec.side)
        self._files: dict[str, tuple[str, str]] = {}  # id -> stamp, hash of the bytes
        self.entries: dict[str, _Entry] = {}
        self.images: U8 = np.zeros((0, *self._shape), np.uint8)
        self._pending: IO[bytes] | None = None
        self._new = 0  # number of pending crops
        make_folder(folder, "--data.cache")
        self._clean()
        self._changed = not (self._meta_file.is_file() and self._image_file.is_file())
        if self._meta_file.is_file():
            self._open()

    def _clean(self) -> None:
        """Remove the incomplete crop files that killed processes left behind."""
        for part in self._image_file.parent.glob(f".{self._image_file.name}.*.part"):
            writer = re.fullmatch(r".*\.(\d{1,9})\.part", part.name)
            if writer is not None and not _is_running(int(writer[1])):
                with contextlib.suppress(OSError):  # the file only takes up space
                    part.unlink()

    def _open(self) -> None:
        folder = self._meta_file.parent
        try:
            meta = parse_json(self._meta_file.read_bytes())
            if meta["crops"] != self._crops:
                raise DataError(f"cache {folder}: holds other crops ({meta['crops']}); choose another --data.cache")
            if not self._image_file.is_file():
                return
            self.images = np.lib.format.open_memmap(self._image_file, mode="r")
            self._files = {name: (str(stamp), str(digest)) for name, (stamp, digest) in meta["files"].items()}
            self.entries = {d: _Entry(int(r), bool(f), str(p)) for d, (r, f, p) in meta["entries"].items()}
            last = max((entry.row for entry in self.entries.values()), default=-1)
            if self.images.dtype != np.uint8 or self.images.shape[1:] != self._shape or last >= len(self.images):
                raise ValueError(f"crops {self.images.shape} of {self.images.dtype}, last entry {last}")
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise DataError(
                f"cache {folder}: is damaged ({e}); delete its {self._meta_file.name} and {self._image_file.name} "
                f"to rebuild it"
            ) from e

    def row(self, name: str, source: ImageStore, cropper: FaceCropper) -> int:
        """The row of an image's crop, which is made if it is new; -1 if the image cannot be read."""
        stamp = source.stamp(name)
        before = self._files.get(name)
        if before is not None and stamp and before[0] == stamp and before[1] in self.entries:
            return self.entries[before[1]].row
        try:
            data = source.read(name)
        except (OSError, KeyError):
            data, stamp = b"", ""  # so that the next run tries again
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.entries:
            self.entries[digest] = self._add(data, cropper)
            self._changed = True
        if before != (stamp, digest):
            self._files[name] = (stamp, digest)
            self._changed = True
        if self._new >= max(MIN_NEW, len(self.images)):  # all saves together write at most twice the final size
            self.save()
        return self.entries[digest].row

    def _add(self, data: bytes, cropper: FaceCropper) -> _Entry:
        image = decode(data)
        if image is None:
            return _Entry(-1, found=False, pixels="")
        crop, found = cropper.crop(image)
        channels_first = crop[None] if crop.ndim == 2 else np.moveaxis(crop, 2, 0)
        try:
            if self._pending is None:
                self._pending = TemporaryFile(dir=self._image_file.parent)  # noqa: SIM115 - see close()
            self._pending.write(channels_first.tobytes())
        except OSError as e:
            raise OutputError(f"cache {self._image_file.parent}: cannot be written ({e})") from e
        self._new += 1
        pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        return _Entry(len(self.images) + self._new - 1, found, pixels)

    def save(self) -> None:
        """Write what changed since the last save.

        Raises:
            OutputError, NoPermission: See ``write_whole``.
        """
        if not self._changed:
            return
        if self._new or not self._image_file.is_file() or not len(self.images):
            write_whole(self._image_file, self._write, parents=True)
            self.images = np.lib.format.open_memmap(self._image_file, mode="r")
            self.close()
        save_json(self._meta_file, {"crops": self._crops, "files": self._files, "entries": self.entries})
        self._changed = False

    def _write(self, f: IO[bytes]) -> None:
        shape = (len(self.images) + self._new, *self._shape)
        np.lib.format.write_array_header_1_0(f, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for start in range(0, len(self.images), 256):
            f.write(self.images[start : start + 256].tobytes())
        if self._pending is not None:
            self._pending.seek(0)
            shutil.copyfileobj(self._pending, f, 1 << 20)

    def close(self) -> None:
        """Discard the pending crops."""
        if self._pending is not None:
            with contextlib.suppress(OSError):  # closing repeats a write that failed
                self._pending.close()
        self._pending, self._new = None, 0


def decode(data: bytes) -> U8 | None:
    """The pixels (H, W, 3) uint8 BGR of an image file, or None if it cannot be decoded."""
    try:
        return decode_picture(data, "")
    except (NotAVideo, CodecError):  # reported by the caller
        return None


def _is_running(process: int) -> bool:
    """Whether another process with this id is alive. This process has not written yet."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # only checks
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True
