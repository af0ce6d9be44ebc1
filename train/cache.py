"""The crop cache: every picture decoded, searched and cut once, kept as uint8 under the hash of its bytes.

Knows crops and hashes; must not know labels, splits or models.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.types import I64, U8
from train.checkpoint import save_json, write_whole
from train.faces import FaceCropper
from train.source import Source, decode

VERSION = 1


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
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "leaf-rt" / "crops" / f"{path.resolve().name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def prepare(
    ids: Sequence[str],
    source: Source,
    folder: Path,
    spec: CropSpec,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Crops:
    """Bring a cache up to date and open it.

    A picture whose file is unchanged is not read again; one whose bytes are known is not decoded again.

    Args:
        ids: N names for ``source``.
        source: Reads them.
        folder: Of the cache; made if missing.
        spec: What the crops are.
        progress: Called with pictures done and pictures in all.

    Raises:
        DataError: The folder holds a cache of another kind of crops.
        OutputError, NoPermission: It cannot be written.
    """
    meta_file, image_file = folder / "cache.json", folder / "images.npy"
    meta: dict[str, object] = {}
    files: dict[str, list[str]] = {}  # id -> stamp and hash of its bytes
    entries: dict[str, list[object]] = {}  # hash of bytes -> row, found, hash of pixels; row -1: unreadable
    old: U8 | None = None
    wanted = {"version": VERSION, **asdict(spec)}
    if meta_file.is_file():
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        if meta.get("crops") != wanted:
            raise DataError(f"cache {folder}: holds other crops ({meta.get('crops')}); choose another --data.cache")
        if image_file.is_file():
            old = np.load(image_file, mmap_mode="r")
            files, entries = meta["files"], meta["entries"]  # type: ignore[assignment]
    fresh: list[U8] = []
    row = np.full(len(ids), -1, np.int64)
    changed = False
    first = 0 if old is None else len(old)
    with FaceCropper(spec.side, spec.margin, spec.color, align=spec.align) as cropper:
        for i, name in enumerate(ids):
            stamp = source.stamp(name)
            known = files.get(name)
            if not (known and stamp and known[0] == stamp and known[1] in entries):
                changed = True
                try:
                    data = source.read(name)
                except (OSError, KeyError):
                    data = b""
                digest = hashlib.sha256(data).hexdigest()
                files[name] = known = [stamp, digest]
                if digest not in entries:
                    image = decode(data)
                    if image is None:
                        entries[digest] = [-1, False, ""]
                    else:
                        crop, found = cropper.crop(image)
                        same = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
                        entries[digest] = [first + len(fresh), found, same]
                        fresh.append(crop[None] if crop.ndim == 2 else np.moveaxis(crop, 2, 0))
            row[i] = entries[known[1]][0]  # type: ignore[call-overload]
            progress(i + 1, len(ids))
    if changed or old is None:
        channels = 1 if spec.color == "grey" else 3
        parts = [] if old is None else [old]
        parts.append(np.array(fresh, np.uint8).reshape(-1, channels, spec.side, spec.side))
        joined = np.concatenate(parts)
        if fresh or old is None:
            write_whole(image_file, lambda f: np.save(f, joined))
        save_json(meta_file, {"crops": wanted, "files": files, "entries": entries})
    images: U8 = np.load(image_file, mmap_mode="r")
    by_row = sorted((e for e in entries.values() if e[0] != -1), key=lambda e: int(e[0]))  # type: ignore[call-overload]
    return Crops(
        images=images,
        row=row,
        found=np.array([bool(e[1]) for e in by_row], np.bool_),
        pixels=tuple(str(e[2]) for e in by_row),
        unreadable=tuple(name for name, r in zip(ids, row.tolist(), strict=True) if r < 0),
    )
