"""The pictures on which the recognizers are compared, with one box per face. Knows the data sets; no peers."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.types import F32, U8, Detections
from train.data.cropper import FaceCropper
from train.data.formats import MAJORITY, NO_VOTES, SPLITS, STRICT_MAJORITY, read_index
from train.data.image_store import FolderStore, ImageStore, ZipStore

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")  # what every peer answers
PROTOCOLS = {"all": NO_VOTES, "majority": MAJORITY, "strict": STRICT_MAJORITY}
INNER = 10.0  # px, on every side of a FERPlus picture for the second crop: what fer adds around a box
WIDER = 0.15  # of the sides of a box, added on every side for the second crop of a photograph

Box: TypeAlias = list[float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with one face.

    Attributes:
        name: Of the file in the data set.
        label: One of ``CLASSES``.
        agreement: How far the annotators agree; see ``train.data.formats``.
        file: Where ``write`` put it.
        boxes: What a peer may cut out, [left, top, right, bottom] in px; its best counts.
        keypoints: Six [x, y] in px, or None if no face was found.
    """

    name: str
    label: str
    agreement: int
    file: Path
    boxes: list[Box]
    keypoints: list[list[float]] | None


def ferplus(folder: Path, split: str, every: int, work: Path, notify: Callable[[str], None]) -> list[Picture]:
    """Every such picture of a split of FERPlus with one of the seven labels.

    The pictures are cut to the face already, which is what most peers were trained on: their box is the whole picture,
    or what is left inside of ``INNER``.

    Raises:
        DataError: The data are missing or broken.
    """
    index = read_index("ferplus", folder)
    rows = [
        row
        for row in np.flatnonzero((index.split == SPLITS.index(split)) & (index.label >= 0)).tolist()
        if index.labels[index.label[row]] in CLASSES
    ][::every]
    notify(f"FERPlus {split}: {len(rows)} pictures")
    out: list[Picture] = []
    with FaceCropper(64, 0.0, "rgb") as cropper:
        for row in rows:
            image = _read(index.source, index.ids[row])
            keypoints = cropper.find(image)
            height, width = image.shape[:2]
            file = _write(image, work / "ferplus", index.ids[row])
            points = None if keypoints is None else keypoints.tolist()
            boxes = [[0.0, 0.0, float(width), float(height)], [INNER, INNER, width - INNER, height - INNER]]
            label, agreement = index.labels[index.label[row]], int(index.agreement[row])
            out.append(Picture(index.ids[row], label, agreement, file, boxes, points))
    return out


def photographs(folder: Path, per_class: int, work: Path, notify: Callable[[str], None]) -> list[Picture]:
    """Photographs with a file ``labels.csv`` (path, label) beside ``images.zip`` or the unpacked pictures.

    At most ``per_class`` of each class, evenly spaced in the order of the file, with the largest face that leaf-rt
    finds: its box and a wider one. Pictures without a face are left out.

    Raises:
        DataError: The data are missing or broken.
    """
    table = folder / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8") as f:
            rows = [(row["path"], row["label"]) for row in csv.DictReader(f)]
    except (OSError, KeyError, UnicodeDecodeError) as e:
        raise DataError(f"{table}: wanted a CSV file with the columns path and label ({e})") from e
    archive = folder / "images.zip"
    store: ImageStore = ZipStore(archive) if archive.is_file() else FolderStore(folder)
    out: list[Picture] = []
    with ImageFaceDetector() as detector:
        for label in CLASSES:
            names = [name for name, own in rows if own == label]
            chosen = np.linspace(0, len(names) - 1, min(per_class, len(names))).round().astype(int)
            for name in (names[i] for i in chosen):
                image = _read(store, name)
                found = detector.detect(image)
                if not len(found):
                    continue
                box, keypoints = _largest(found)
                boxes = list(_boxes(box))
                file = _write(image, work / "photographs", name)
                out.append(Picture(name, label, NO_VOTES, file, boxes, keypoints.tolist()))
    notify(f"{folder.name}: {len(out)} pictures with a face")
    return out


def _largest(found: Detections) -> tuple[F32, F32]:
    size = found.xyxy[:, 2:] - found.xyxy[:, :2]
    best = int(np.argmax(size.prod(axis=1)))
    return found.xyxy[best], found.keypoints[best]


def _boxes(box: F32) -> Iterator[Box]:
    yield [float(v) for v in box]
    border = WIDER * (box[2:] - box[:2])
    yield [float(v) for v in (*(box[:2] - border), *(box[2:] + border))]


def _read(store: ImageStore, name: str) -> U8:
    try:
        picture = cv2.imdecode(np.frombuffer(store.read(name), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, KeyError, cv2.error) as e:
        raise DataError(f"{name}: cannot be read ({e})") from e
    if picture is None:
        raise DataError(f"{name}: is not a picture")
    return np.asarray(picture, np.uint8)


def _write(image: U8, folder: Path, name: str) -> Path:
    """Write a picture as PPM, which OpenCV reads and a few lines of JavaScript can."""
    file = (folder / name.replace("/", "_")).with_suffix(".ppm")
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)
    return file
