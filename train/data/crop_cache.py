"""The crop cache: every picture decoded, searched and cut once, kept as uint8 under the hash of its bytes.

Knows crops and hashes; must not know labels, splits or models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from leaf_rt.errors import DataError, OutputError
from leaf_rt.system.files import make_folder, save_json, write_whole
from leaf_rt.system.user_cache import user_cache
from leaf_rt.types import I64, U8
from train.data.cropper import FaceCropper
from train.data.image_store import Source, decode

VERSION = 1
BLOCK = 4096  # new pictures, at least, between two saves


@dataclass(frozen=True, slots=True)
class CropSpec:
    """What a cached crop is; see ``FaceCropper``."""

    side: int
    margin: float
    color: str
    align: bool


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """The crops of a list of pictures.

    Attributes:
        images: (U, C, side, side) uint8, one entry per different file; C is 1 (grey) or 3 (RGB). Memory-mapped.
        row: (N,) int64, the entry of each picture, -1 where it cannot be read.
        found: (U,) bool, whether a face was found and aligned.
        pixels: U texts, the hash of each entry's decoded pixels: equal pictures, equal hash.
        unreadable: Ids of the pictures that cannot be read.
    """

    images: U8
    row: I64
    found: np.ndarray[tuple[int], np.dtype[np.bool_]]
    pixels: tuple[str, ...]
    unreadable: tuple[str, ...]


def default_cache(path: Path, spec: CropSpec) -> Path:
    """The cache folder of a data set and geometry, in the user's cache folder."""
    key = json.dumps([str(path.resolve()), asdict(spec), VERSION])
    return user_cache("crops") / f"{path.resolve().name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def prepare(
    ids: Sequence[str],
    source: Source,
    folder: Path,
    spec: CropSpec,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Crops:
    """Bring a cache up to date and open it.

    A picture whose file is unchanged is not read again; one whose bytes are known is not decoded again. What was done
    before an interruption is kept.

    Args:
        ids: N names for ``source``.
        source: Reads them.
        folder: Of the cache; made if missing.
        spec: What the crops are.
        progress: Called with pictures done and pictures in all.

    Raises:
        DataError: The folder holds a cache of another kind of crops, or a damaged one.
        OutputError, NoPermission: It cannot be written.
    """
    row = np.full(len(ids), -1, np.int64)
    with ExitStack() as stack:
        store = _Store(folder, spec)
        stack.callback(store.close)
        cropper = stack.enter_context(FaceCropper(spec.side, spec.margin, spec.color, align=spec.align))
        try:
            for i, name in enumerate(ids):
                row[i] = store.row(name, source, cropper)
                progress(i + 1, len(ids))
        finally:
            store.save()
    found = np.zeros(len(store.images), np.bool_)
    pixels = [""] * len(store.images)
    for entry in store.entries.values():
        if entry.row >= 0:
            found[entry.row], pixels[entry.row] = entry.found, entry.pixels
    unreadable = tuple(name for name, r in zip(ids, row.tolist(), strict=True) if r < 0)
    return Crops(store.images, row, found, tuple(pixels), unreadable)


class _Entry(NamedTuple):
    """What is known of a file's bytes."""

    row: int  # of the crop, -1 where the bytes are no picture
    found: bool  # a face
    pixels: str  # hash


class _Store:
    """A cache's folder while it grows.

    New crops wait on the disk; ``save`` puts them behind the old ones. A kill between its two files leaves crops that
    no entry names, which do no harm.

    Attributes:
        images: (U, C, side, side) uint8, what is saved. Memory-mapped.
        entries: By the hash of a file's bytes.
    """

    def __init__(self, folder: Path, spec: CropSpec) -> None:
        self._meta_file, self._image_file = folder / "cache.json", folder / "images.npy"
        self._crops = {"version": VERSION, **asdict(spec)}
        self._shape = (1 if spec.color == "grey" else 3, spec.side, spec.side)
        self._files: dict[str, tuple[str, str]] = {}  # id -> stamp, hash of its bytes
        self.entries: dict[str, _Entry] = {}
        self.images: U8 = np.zeros((0, *self._shape), np.uint8)
        self._waiting: IO[bytes] | None = None
        self._new = 0  # crops that wait
        make_folder(folder, "--data.cache")
        self._clean()
        self._changed = not (self._meta_file.is_file() and self._image_file.is_file())
        if self._meta_file.is_file():
            self._open()

    def _clean(self) -> None:
        """Remove the halves of crop files that killed processes left; a cache has no other use for such names."""
        for part in self._image_file.parent.glob(f".{self._image_file.name}.*.part"):
            writer = re.fullmatch(r".*\.(\d{1,9})\.part", part.name)
            if writer is not None and not _is_running(int(writer[1])):
                with contextlib.suppress(OSError):  # it does no harm but to the space on the disk
                    part.unlink()

    def _open(self) -> None:
        folder = self._meta_file.parent
        try:
            meta = json.loads(self._meta_file.read_bytes())
            if meta["crops"] != self._crops:
                raise DataError(f"cache {folder}: holds other crops ({meta['crops']}); choose another --data.cache")
            if not self._image_file.is_file():
                return
            self.images = np.lib.format.open_memmap(self._image_file, mode="r")
            self._files = {name: (str(stamp), str(digest)) for name, (stamp, digest) in meta["files"].items()}
            self.entries = {d: _Entry(int(r), bool(f), str(p)) for d, (r, f, p) in meta["entries"].items()}
            last = max((entry.row for entry in self.entries.values()), default=-1)
            if self.images.dtype != np.uint8 or self.images.shape[1:] != self._shape or last >= len(self.images):
                raise ValueError(f"crops {self.images.shape} of {self.images.dtype}, the last one wanted is {last}")
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise DataError(
                f"cache {folder}: is damaged ({e}); delete its {self._meta_file.name} and {self._image_file.name}, and "
                f"it is made anew"
            ) from e

    def row(self, name: str, source: Source, cropper: FaceCropper) -> int:
        """Of a picture's crop, made if it is new; -1 where it cannot be read."""
        stamp = source.stamp(name)
        before = self._files.get(name)
        if before is not None and stamp and before[0] == stamp and before[1] in self.entries:
            return self.entries[before[1]].row
        try:
            data = source.read(name)
        except (OSError, KeyError):
            data, stamp = b"", ""  # looked for again next time
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.entries:
            self.entries[digest] = self._add(data, cropper)
            self._changed = True
        if before != (stamp, digest):
            self._files[name] = (stamp, digest)
            self._changed = True
        if self._new >= max(BLOCK, len(self.images)):  # so that all saves together write no more than twice the whole
            self.save()
        return self.entries[digest].row

    def _add(self, data: bytes, cropper: FaceCropper) -> _Entry:
        image = decode(data)
        if image is None:
            return _Entry(-1, found=False, pixels="")
        crop, found = cropper.crop(image)
        channels_first = crop[None] if crop.ndim == 2 else np.moveaxis(crop, 2, 0)
        try:
            if self._waiting is None:
                self._waiting = tempfile.TemporaryFile(dir=self._image_file.parent)  # noqa: SIM115 - see close()
            self._waiting.write(channels_first.tobytes())
        except OSError as e:
            raise OutputError(f"cache {self._image_file.parent}: could not be written ({e})") from e
        self._new += 1
        same = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        return _Entry(len(self.images) + self._new - 1, found, same)

    def save(self) -> None:
        """Write what came since the last save; nothing where nothing did.

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
        if self._waiting is not None:
            self._waiting.seek(0)
            shutil.copyfileobj(self._waiting, f, 1 << 20)

    def close(self) -> None:
        """Forget the crops that wait."""
        if self._waiting is not None:
            with contextlib.suppress(OSError):  # of the last write to a full disk; what waits is thrown away
                self._waiting.close()
        self._waiting, self._new = None, 0


def _is_running(process: int) -> bool:
    """Whether another process of this number is alive; this one does not write yet."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
