"""More unlabelled images beside a data set: all images of a folder or of a zip archive.

Knows files and names; must not know labels, crops or models.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import is_zipfile

from leaf_rt.errors import DataError, NotFound
from train.data.formats.folders import IMAGE_SUFFIXES
from train.data.formats.index import is_valid_name
from train.data.image_store import FolderStore, ImageStore, ZipStore


def read_unlabelled(path: Path) -> tuple[tuple[str, ...], ImageStore]:
    """The names of all images of a folder, with its subfolders, or of a zip archive; and what reads them.

    Raises:
        NotFound: The path is missing.
        DataError: It is neither a folder nor a complete zip archive, or holds no image.
    """
    names: list[str]
    source: ImageStore
    if path.is_dir():
        source = FolderStore(path)
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif path.is_file():
        if not is_zipfile(path):
            raise DataError(f"--data.unlabelled {path}: wanted a folder or a .zip archive of images")
        source = ZipStore(path)
        names = source.names()
    else:
        raise NotFound(f"--data.unlabelled {path}: no such file or folder")
    images = sorted(n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and is_valid_name(n))
    if not images:
        raise DataError(f"--data.unlabelled {path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return tuple(images), source
