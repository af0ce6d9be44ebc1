"""A finished run beside the bundled model, and beside a supervised run, on pictures that it did not learn from.

All models see the same pictures, each in crops of its own geometry, and all average over a face and its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.types import F32, I64, U8
from train.data.dataset import labelled_of, load_split, load_validation, open_crops
from train.loop.training import SPLIT
from train.metrics import chance, measure
from train.recipes.schema import Data, Recipe
from train.reports.evaluation import open_classifier

SURE = 0.05  # p value below which a difference counts as more than chance
SHOWN = 24  # wrong pictures that a report shows
BUNDLED_NAME = "the bundled model"
SUPERVISED_NAME = "a supervised run of the same labels"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another model on the same pictures.

    Attributes:
        name: In words.
        accuracy: Share of its right answers, 0 to 1.
        balanced_accuracy: Its mean recall of the classes that occur, 0 to 1.
        gained: Pictures that only the new model gets right.
        lost: Pictures that only the other model gets right.
        p: How likely at least so uneven a difference between equally good models is; see ``metrics.chance``.
    """

    name: str
    accuracy: float
    balanced_accuracy: float
    gained: int
    lost: int
    p: float


@dataclass(frozen=True, slots=True)
class WrongPicture:
    """A picture that the new model gets wrong.

    Attributes:
        name: Of the file.
        label: Its class.
        answer: The class that the model gave.
        share: The share of that class, 0 to 1.
        crop: (S, S) or (S, S, 3) BGR uint8, what the model saw.
    """

    name: str
    label: str
    answer: str
    share: float
    crop: U8


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a finished run does on test or held-out pictures.

    Attributes:
        pictures: What they are, in words.
        n: Their number.
        accuracy: Share of right answers, 0 to 1.
        balanced_accuracy: Mean recall of the classes that occur, 0 to 1.
        confusion: C rows of C counts; row: label, column: answer.
        rivals: Other models on the same pictures.
        wrong: The pictures with a wrong answer, those with the largest share first, at most ``SHOWN``.
        missing: Why there is no comparison with the bundled model; "" if there is one.
    """

    pictures: str
    n: int
    accuracy: float
    balanced_accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    rivals: tuple[Rival, ...]
    wrong: tuple[WrongPicture, ...]
    missing: str = ""

    def sentences(self) -> list[str]:
        """The result in plain words, one line for each model."""
        lines = [
            f"on {self.n} {self.pictures}: the new model is right on {100 * self.accuracy:.1f} % "
            f"(balanced over the classes {100 * self.balanced_accuracy:.1f} %)"
        ]
        for rival in self.rivals:
            points = 100 * (self.accuracy - rival.accuracy)
            likely = "more than chance" if rival.p < SURE else "which may be chance"
            verdict = f"the new model is {abs(points):.1f} points {'better' if points > 0 else 'worse'}, {likely}"
            if rival.gained == rival.lost:
                verdict = "no difference"
            lines.append(
                f"{rival.name}: {100 * rival.accuracy:.1f} % ({100 * rival.balanced_accuracy:.1f} %); {verdict} "
                f"(p = {rival.p:.2g}; {rival.gained} pictures gained, {rival.lost} lost)"
            )
        if self.missing:
            lines.append(self.missing)
        bundled = next((rival for rival in self.rivals if rival.name == BUNDLED_NAME), None)
        if bundled is not None and bundled.p >= SURE:
            lines.append("for a clear answer put more labelled pictures into a folder test/ beside the class folders")
        elif bundled is not None and bundled.lost > bundled.gained:
            lines.append("the bundled model serves you better than this run; use it, or label more pictures")
        return lines


class _Pictures(NamedTuple):
    """N labelled pictures."""

    labels: tuple[str, ...]  # the C classes
    names: list[str]  # of the N files
    truth: I64  # (N,), the class of each
    crops: U8  # (N, 1 or 3, S, S)
    where: str  # what they are, in words


def compare(
    run: Path, recipe: Recipe, supervised: Path | None, progress: Callable[[int, int], None]
) -> Comparison | None:
    """Measure a finished run and its rivals on the test pictures of its data, or else on those that it held out.

    Args:
        run: Folder of the run.
        recipe: Of the run.
        supervised: Folder of a supervised run of the same labels, if there is one.
        progress: Called with finished and total images while faces are cropped.

    Returns:
        None if there is neither a test picture nor a held-out picture.

    Raises:
        LeafError: A model or the data cannot be read.
    """
    with open_classifier(run, recipe) as new:
        found = _pictures(new.data, recipe, run, progress)
        if found is None:
            return None
        labels, truth, crops = found.labels, found.truth, found.crops
        probs = new.answers(crops, labels)
    answer = probs.argmax(1)
    metrics = measure(probs, truth, labels)
    rivals, missing = [], ""

    def rival(name: str, others: F32) -> Rival:
        right, other = answer == truth, others.argmax(1) == truth
        gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
        theirs = measure(others, truth, labels)
        return Rival(name, theirs["accuracy"], theirs["balanced_accuracy"], gained, lost, chance(gained, lost))

    if DEFAULT_MODEL.is_file():
        with open_classifier(DEFAULT_MODEL, recipe, "onnxruntime") as bundled:
            unknown = bundled.unknown(labels)
            if unknown:
                missing = f"no comparison with {BUNDLED_NAME}: it does not know the class {', '.join(unknown)}"
            else:
                same = found if bundled.data == new.data else _pictures(_beside(bundled.data), recipe, run, progress)
                if same is not None:
                    rivals.append(rival(BUNDLED_NAME, bundled.answers(same.crops, labels)))
    if supervised is not None:
        with open_classifier(supervised, recipe) as other:
            rivals.append(rival(SUPERVISED_NAME, other.answers(crops, labels)))
    wrong = np.flatnonzero(answer != truth)
    wrong = wrong[np.argsort(-probs[wrong, answer[wrong]], kind="stable")][:SHOWN]
    return Comparison(
        found.where,
        len(truth),
        metrics["accuracy"],
        metrics["balanced_accuracy"],
        tuple(tuple(row) for row in metrics["confusion"]),
        tuple(rivals),
        tuple(
            WrongPicture(
                found.names[i], labels[truth[i]], labels[answer[i]], float(probs[i, answer[i]]), _image(crops[i])
            )
            for i in wrong.tolist()
        ),
        missing,
    )


def _pictures(data: Data, recipe: Recipe, run: Path, progress: Callable[[int, int], None]) -> _Pictures | None:
    """The test pictures, or else the held-out pictures, always in the same order; None if there is neither."""
    index, crops = open_crops(data, progress)
    if len(labelled_of(index, crops, "test")):
        loaded, where = load_split(data, "test"), "test pictures"
    else:
        try:
            loaded, _ = load_validation(data, recipe.split, run / SPLIT)
        except DataError:
            return None
        where = "held-out pictures"
    labels, images, samples = loaded
    name_of = dict(zip(crops.row.tolist(), index.ids, strict=True))
    names = [name_of[row] for row in samples.row.tolist()]
    return _Pictures(labels, names, samples.label, images[samples.row], where)


def _beside(data: Data) -> Data:
    """The same data with a cache of its own, if the user chose a folder: a cache holds crops of one geometry."""
    return replace(data, cache=f"{data.cache}-bundled") if data.cache else data


def _image(crop: U8) -> U8:
    """A crop (1 or 3, S, S) RGB as a picture (S, S) or (S, S, 3) BGR."""
    return crop[0] if len(crop) == 1 else np.ascontiguousarray(np.moveaxis(crop[::-1], 0, 2))
