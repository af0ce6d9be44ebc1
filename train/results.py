"""The results of training, preparation and merging, and what a caller can watch meanwhile. Knows no other room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from train.data.crop_cache import CropSpec
    from train.reports.comparison import Comparison

CropProgress = Callable[[int, int], None]  # finished and total images


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A run that has ended or was stopped.

    Attributes:
        folder: Folder of the run.
        checkpoint: The model that represents the run; it may not exist yet if the run is not finished.
        finished: False if SIGINT or SIGTERM stopped the run; ``train(resume=folder)`` continues it.
        trained: Whether all steps are done. If a signal came after them, only comparison and report are missing.
        step: Number of finished steps.
        steps: Number of steps of the run.
        labels: C class names.
        accuracy: On the validation images, 0 to 1; None if there are none.
        balanced_accuracy: Mean recall on the validation images, 0 to 1; None if there are none.
        confusion: C rows of C counts on the validation images; row: label, column: answer. Empty if there are none.
        report: The HTML report of a finished run. None in all but the first of several processes.
        comparison: The model beside others on the test or held-out pictures, if the recipe asks for it.
        notes: Findings about the data and the recipe, one sentence each.
    """

    folder: Path
    checkpoint: Path
    finished: bool
    trained: bool
    step: int
    steps: int
    labels: tuple[str, ...]
    accuracy: float | None
    balanced_accuracy: float | None
    confusion: tuple[tuple[int, ...], ...]
    report: Path | None
    comparison: Comparison | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """The cropped faces of a data set.

    Attributes:
        name: Of the data set.
        labels: C class names.
        counts: Split to its number of images per class, C + 1 numbers; the last is of images without a label.
        crops: Geometry of the crops.
        aligned: Number of images whose face was found and aligned.
        whole: Number of images without a detected face, or without alignment; the crop is the whole image.
        unreadable: Names of the images that cannot be read.
        duplicates: Number of images that are exact copies of an earlier image.
        leaked: Number of training images that are exact copies of validation or test images.
        notes: Findings about the data, one sentence each.
    """

    name: str
    labels: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    crops: CropSpec
    aligned: int
    whole: int
    unreadable: tuple[str, ...]
    duplicates: int
    leaked: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A merged model.

    Attributes:
        checkpoint: The model; None if a run that comes first was stopped.
        finished: False if SIGINT or SIGTERM stopped a run that comes first.
    """

    checkpoint: Path | None
    finished: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What a caller can watch. The default shows nothing.

    Attributes:
        note: Called with each finding about the data and the recipe, one sentence.
        crops: Makes a context manager around the search for faces, whose value is called with finished and total
            images.
        finished: Called with the result of each run, also of those that another run or a merged model needs first.
        console: For the live view of the training; None shows none.
    """

    note: Callable[[str], None] = lambda text: None
    crops: Callable[[], AbstractContextManager[CropProgress]] = lambda: nullcontext(lambda done, total: None)
    finished: Callable[[TrainResult], None] = lambda result: None
    console: Console | None = None


SILENT = Progress()
