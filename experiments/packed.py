"""Training and validation faces, and the start weights, in one file for a machine that has neither data nor network.

The file is a zip archive of NumPy arrays. Knows data sets; must not know methods.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.errors import DataError, NotFound
from leaf_rt.system.files import write_whole
from leaf_rt.system.parsing import parse_json, read_arrays
from leaf_rt.types import I64, U8
from train.data.dataset import Samples, TrainingData, load_data
from train.data.splits import Partition, partition
from train.recipes.schema import Recipe, Split

LIMIT = 50_000_000  # bytes
WEIGHTS = "weights.pt"
_ARRAYS = ("images", "label", "validation_images", "validation_label")
_MAX_CONTENT = 4 << 30  # bytes of the arrays


def pack(recipe: Recipe, out: Path, training: int = 20000, validation: int = 3500) -> dict[str, int]:
    """Write the packed file of a recipe: a random choice of its images, at the size of the network's input.

    Args:
        recipe: Its data, split and start weights are used. The split must be of kind "all" or "balanced".
        out: The file.
        training: Number of training images, labelled ones and others.
        validation: Number of validation images.

    Returns:
        "training", "validation" and "bytes" of the file.

    Raises:
        DataError: The file would be larger than ``LIMIT``.
        LeafError: See ``load_data`` and ``write_whole``.
    """
    data = load_data(recipe.data, recipe.split)
    rng = np.random.default_rng(0)
    known = np.concatenate([data.labelled.row, data.unlabelled.row])
    labels = np.concatenate([data.labelled.label, data.unlabelled.label])
    chosen = np.sort(rng.permutation(len(known))[:training])
    held = np.sort(rng.permutation(len(data.validation))[:validation])
    side = recipe.run.input_sizes[0]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        arrays = {
            "images": _resized(data, known[chosen], side),
            "label": labels[chosen],
            "validation_images": _resized(data, data.validation.row[held], side),
            "validation_label": data.validation.label[held],
        }
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as f:
                np.save(f, array)
        archive.writestr("labels.json", json.dumps(data.labels))
        if recipe.model.weights:
            archive.write(recipe.model.weights, WEIGHTS)
    size = content.tell()
    if size > LIMIT:
        raise DataError(f"{out}: would have {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}; pack fewer --pictures")
    write_whole(out, content.getvalue(), parents=True)
    return {"training": len(chosen), "validation": len(held), "bytes": size}


def load_packed(path: Path, split: Split) -> TrainingData:
    """The images of a packed file, with labels shown as ``split`` says.

    Raises:
        NotFound: The file is missing.
        DataError: It is no packed file, or has fewer labels than the split wants.
    """
    try:
        images, label, held, held_label = read_arrays(path, _ARRAYS, _MAX_CONTENT)
        with _open(path) as archive:
            labels = tuple(parse_json(archive.read("labels.json")))
        if not all(isinstance(name, str) for name in labels):
            raise ValueError("its labels are no names")
        for some, classes in ((images, label), (held, held_label)):
            _check(some, classes, len(labels))
    except FileNotFoundError as e:
        raise _missing(path) from e
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as e:
        raise _damaged(path, e) from e
    ids = [f"{n:06d}" for n in range(len(images))]
    hash_ = hashlib.sha256(images.tobytes() + label.tobytes()).hexdigest()
    parts: Partition = partition(ids, label, labels, split, 0.0, hash_)

    def samples(rows: I64, classes: I64) -> Samples:
        known = classes[:, None] == np.arange(len(labels))
        return Samples(rows, known.astype(np.float32), classes)

    def part(names: tuple[str, ...]) -> Samples:
        rows = np.array([int(name) for name in names], np.int64)
        return samples(rows, label[rows])

    validation = samples(np.arange(len(images), len(images) + len(held)), held_label)
    joined = np.concatenate([images, held])
    return TrainingData(labels, joined, part(parts.labelled), part(parts.unlabelled), validation, parts, ())


def digest(path: Path) -> str:
    """SHA-256 of a packed file, as hexadecimal digits."""
    with _open(path):  # checks that it is one
        return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack_weights(path: Path, folder: Path) -> str:
    """Write the start weights of a packed file into a folder, and return their path; empty if it has none."""
    with _open(path) as archive:
        if WEIGHTS not in archive.namelist():
            return ""
        target = folder / WEIGHTS
        if not target.is_file() or target.stat().st_size != archive.getinfo(WEIGHTS).file_size:
            write_whole(target, archive.read(WEIGHTS), parents=True)
    return str(target)


def _check(images: U8, classes: I64, count: int) -> None:
    """Check that an array holds pictures, and another one a class for each of them; -1 is unknown."""
    if images.dtype != np.uint8 or images.ndim != 4 or classes.shape != images.shape[:1] or classes.dtype.kind != "i":
        raise ValueError("its pictures and labels do not fit together")
    if len(classes) and not -1 <= classes.min() <= classes.max() < count:
        raise ValueError("it has labels without a name")


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as e:
        raise _missing(path) from e
    except (zipfile.BadZipFile, OSError) as e:
        raise _damaged(path, e) from e


def _missing(path: Path) -> NotFound:
    return NotFound(f"--packed {path}: no such file; make it with python -m experiments pack")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"--packed {path}: is no packed file ({error}); make it with python -m experiments pack")


def _resized(data: TrainingData, rows: I64, side: int) -> U8:
    """The crops (N, C, side, side) of some rows."""
    crops = [np.moveaxis(np.asarray(data.images[row]), 0, 2) for row in rows.tolist()]
    resized = [cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops]
    channels = data.images.shape[1]
    return np.array([np.moveaxis(c.reshape(side, side, channels), 2, 0) for c in resized], np.uint8)
