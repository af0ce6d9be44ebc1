"""Accuracy on pictures degraded as by a camera: the same faces blurred, small, compressed, noisy, dark and covered.

The picture itself is degraded, before the face is cut out; the keypoints are those of the clean picture. Larger
pictures are shrunk to 48 px first, the side of FER2013, so that a blur of 1 px means the same everywhere.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.faces.alignment import LEFT_EYE, MOUTH, RIGHT_EYE
from leaf_rt.models.calibration import Prior
from leaf_rt.types import F32, I64, U8
from train.data.cropper import FaceCropper
from train.data.dataset import labelled_of, open_crops
from train.data.formats import DatasetIndex
from train.metrics import flagged, measure
from train.recipes.schema import Data, Recipe
from train.reports.evaluation import PROTOCOLS, check_pictures, open_classifier

SIDE = 48  # px, longest side of the pictures that are degraded
COVER = 0.6  # height of the bar over eyes or mouth, in distances of the eyes
_GREY = 128
# Eyes, nose, mouth and ears where no face was found, as shares of the picture's sides.
_TYPICAL = np.array([[0.32, 0.39], [0.68, 0.39], [0.5, 0.55], [0.5, 0.77], [0.0, 0.4], [1.0, 0.4]])


@dataclass(frozen=True, slots=True)
class DegradedRow:
    """Accuracy under one kind of damage.

    Attributes:
        name: The damage, such as "blur 2 px"; "clean" for none.
        accuracy: Share of correct answers, 0 to 1.
        balanced_accuracy: Mean recall of the classes that occur, 0 to 1.
        calibration_error: Expected calibration error, 0 to 1.
        flagged_wrong: Share of the wrong answers that are "uncertain"; None if no answer is wrong.
        flagged_right: Share of the right answers that are "uncertain"; None if no answer is right.
    """

    name: str
    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    flagged_wrong: float | None
    flagged_right: float | None


@dataclass(frozen=True, slots=True)
class DegradedResult:
    """Accuracy of a model under each kind of damage.

    Attributes:
        model: Path as given.
        data: Path of the data set.
        split: "validation", "test" or "all".
        protocol: Which pictures count; see ``evaluation.PROTOCOLS``.
        n: Number of pictures.
        stride: Every such picture was taken, in the order of the data set.
        rows: One for each kind of damage, the clean pictures first.
    """

    model: str
    data: str
    split: str
    protocol: str
    n: int
    stride: int
    rows: tuple[DegradedRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``leaf-rt evaluate --degraded --json``."""
        return dataclasses.asdict(self)


def evaluate_degraded(
    model: Path,
    recipe: Recipe,
    split: str,
    *,
    backend: str = "auto",
    flip: bool = True,
    protocol: str = "all",
    prior: Prior = "natural",
    stride: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DegradedResult:
    """Measure a model on degraded pictures.

    Args:
        model: An exported model, a run's folder or a checkpoint.
        recipe: Its section "data" says where the images are.
        split: "validation", "test" or "all", as the data set brings it.
        backend: For exported models, see ``open_backend``.
        flip: For checkpoints: average over mirror images, as exported models do.
        protocol: Which pictures count; see ``evaluation.PROTOCOLS``.
        prior: For exported models, see ``Calibration.shares``.
        stride: Take every such picture.
        progress: Called with finished and total pictures.

    Raises:
        LeafError: Model or data are missing or broken, or their classes differ.
        ValueError: There is no such split or protocol.
    """
    check_pictures(split, protocol)
    with open_classifier(model, recipe, backend, flip=flip, prior=prior) as classifier:
        data = classifier.data
        index, crops = open_crops(data, progress)
        rows = labelled_of(index, crops, split)
        rows = rows[index.agreement[rows] >= PROTOCOLS[protocol]][::stride]
        if not len(rows):
            raise DataError(f"--data {data.path}: this data has no {split} split of its own with such pictures")
        table = []
        for name, crops_of in degraded_crops(data, index, rows, progress).items():
            probs, label = classifier.answers(crops_of, index.labels), index.label[rows]
            metrics = measure(probs, label, index.labels)
            accuracy, balanced, error = (metrics[f] for f in ("accuracy", "balanced_accuracy", "calibration_error"))
            wrong, right = flagged(probs, label, classifier.calibration.uncertain_below)
            table.append(DegradedRow(name, accuracy, balanced, error, flagged_wrong=wrong, flagged_right=right))
    return DegradedResult(str(model), data.path, split, protocol, len(rows), stride, tuple(table))


def degraded_crops(
    data: Data,
    index: DatasetIndex,
    rows: I64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, U8]:
    """Cut the faces out of every degraded version of some pictures.

    Args:
        data: Geometry of the crops.
        index: The data set.
        rows: (N,) int64, rows of the index.
        progress: Called with finished and total pictures.

    Returns:
        Name of the damage to crops (N, 1 or 3, S, S).
    """
    degraded: dict[str, list[U8]] = {}
    with FaceCropper(data.side, data.margin, data.color, align=data.align, detector=data.detector) as cropper:
        for done, row in enumerate(rows.tolist(), 1):
            picture = cv2.imdecode(np.frombuffer(index.source.read(index.ids[row]), np.uint8), cv2.IMREAD_COLOR)
            image = _shrink(np.asarray(picture, np.uint8))
            keypoints = cropper.find(image)
            for name, version in degradations(image, keypoints, np.random.default_rng([0, done])):
                degraded.setdefault(name, []).append(cropper.cut(version, keypoints))
            progress(done, len(rows))
    return {name: _planes(versions) for name, versions in degraded.items()}


def degradations(image: U8, keypoints: F32 | None, rng: np.random.Generator) -> Iterator[tuple[str, U8]]:
    """The versions of a picture, with their names.

    Args:
        image: (H, W, 3) uint8 BGR.
        keypoints: (6, 2) float32 px, of the clean picture; None if no face was found: typical places are covered.
        rng: For the noise, which is the same in all channels.
    """
    height, width = image.shape[:2]
    yield "clean", image
    for sigma in (1, 2):
        yield f"blur {sigma} px", np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    for side in (24, 16):
        small = (max(1, round(side * width / max(width, height))), max(1, round(side * height / max(width, height))))
        shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        enlarged = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
        yield f"{side} px", np.asarray(enlarged, np.uint8)
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    yield "JPEG 20", np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    for sigma in (10, 25):
        noise = rng.normal(0, sigma, (height, width, 1))
        yield f"noise {sigma}", np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    for gain in (0.25, 0.1):
        yield f"light x{gain:g}", np.rint(image * gain).astype(np.uint8)
    if keypoints is None:
        keypoints = np.asarray(_TYPICAL * np.array([width, height]), np.float32)
    distance = float(np.linalg.norm(keypoints[LEFT_EYE] - keypoints[RIGHT_EYE]))
    for name, y in (
        ("mouth covered", float(keypoints[MOUTH, 1])),
        ("eyes covered", float(keypoints[[LEFT_EYE, RIGHT_EYE], 1].mean())),
    ):
        covered = image.copy()
        top, bottom = round(y - COVER / 2 * distance), round(y + COVER / 2 * distance)
        covered[max(top, 0) : max(bottom, 0)] = _GREY
        yield name, covered


def _shrink(image: U8) -> U8:
    """Shrink a picture to ``SIDE``, unless it is as small already."""
    scale = SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _planes(crops: list[U8]) -> U8:
    """Stack crops (S, S) or (S, S, 3) to (N, 1 or 3, S, S)."""
    stacked = np.stack(crops)
    return stacked[:, None] if stacked.ndim == 3 else np.ascontiguousarray(np.moveaxis(stacked, 3, 1))


def plot_degraded(result: DegradedResult) -> bytes:
    """Draw the accuracies as bars. Returns a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.32 * len(result.rows) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [row.name for row in result.rows]
    places = np.arange(len(names))
    for shift, label, color, values in (
        (-0.2, "accuracy", "#3b6ea5", [100 * row.accuracy for row in result.rows]),
        (0.2, "balanced accuracy", "#b8cbe0", [100 * row.balanced_accuracy for row in result.rows]),
    ):
        bars = axes.barh(places + shift, values, 0.38, label=label, color=color)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"% of {result.n} pictures, {result.split} split")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    return buffer.getvalue()
