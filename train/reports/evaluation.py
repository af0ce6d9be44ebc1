"""Accuracy of a run or of an exported model on labelled images.

Only this part of training reads a test split. Exported models run in the runtime's own backends, on crops with the
model's own geometry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leaf_rt.backends.opening import open_backend
from leaf_rt.errors import DataError
from leaf_rt.labels import match
from leaf_rt.models.calibration import Calibration, Prior
from leaf_rt.models.spec import load_spec
from leaf_rt.recognition.images import judge
from leaf_rt.types import F32, U8
from train.augment.views import Views
from train.data.dataset import EvaluationData, Images, load_split, load_validation, trained_on
from train.data.formats import MAJORITY, NO_VOTES, STRICT_MAJORITY
from train.loop.checkpoint import load_model
from train.loop.distributed import pick_device
from train.loop.inference import predict
from train.loop.training import SPLIT
from train.metrics import flagged, measure, reliability, risk_coverage
from train.recipes.loading import load_recipe
from train.recipes.schema import RECIPE, Augment, Data, Recipe

MODELS = (".onnx", ".plan", ".xml")  # exported models
# Which pictures count, by the agreement of their annotators. Published figures of FERPlus are of "majority".
PROTOCOLS = {"all": NO_VOTES, "majority": MAJORITY, "strict": STRICT_MAJORITY}
PROTOCOL_RULES = {
    "all": "every labelled picture",
    "majority": "pictures whose leading class has more than half of the votes, single votes dropped (FERPlus code)",
    "strict": "pictures of which more than half of all votes are for one class",
}


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How well a model classifies the images of a split.

    Attributes:
        model: Path as given.
        data: Path of the data set.
        split: "validation", "test" or "all".
        pictures: The split in words.
        protocol: Which pictures of the split count: "all", "majority" or "strict"; see ``PROTOCOLS``.
        labels: C class names.
        n: Number of images.
        accuracy: Share of correct answers, 0 to 1.
        balanced_accuracy: Mean recall of the classes that occur, 0 to 1.
        calibration_error: Expected calibration error, 0 to 1.
        uncertain_below: An answer with a smaller share is "uncertain".
        flagged_wrong: Share of the wrong answers that are "uncertain", 0 to 1; None if no answer is wrong.
        flagged_right: Share of the right answers that are "uncertain", 0 to 1; None if no answer is right.
        reliability: Mean share, accuracy and number of the answers of each of 15 equal ranges of the share.
        risk_coverage: Share of the answers that are kept, the surest first, and the share of errors among them.
        recall: Class to recall, 0 to 1; None for a class that does not occur.
        confusion: C rows of C counts; row: label, column: answer.
        details: Facts of the run: "backend", "sha256" and "precision" of exported models; "flip" and "amp" of others.
    """

    model: str
    data: str
    split: str
    pictures: str
    protocol: str
    labels: tuple[str, ...]
    n: int
    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    uncertain_below: float
    flagged_wrong: float | None
    flagged_right: float | None
    reliability: tuple[tuple[float, float, int], ...]
    risk_coverage: tuple[tuple[float, float], ...]
    recall: Mapping[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    details: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``leaf-rt evaluate --json``."""
        fields = dataclasses.asdict(self)
        for name in ("labels", "details"):
            fields.pop(name)
        head = {name: fields.pop(name) for name in ("model", "data", "split", "pictures", "protocol")}
        return {**head, **self.details, **fields, "confusion": [list(row) for row in self.confusion]}


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model that is ready to classify crops.

    Attributes:
        path: Of the model.
        labels: Its class names.
        data: Where the images are, with crops of the model's own geometry.
        predict: Maps crops (N, 1 or 3, S, S) uint8 to probabilities (N, C) float32, calibrated as in the runtime.
        calibration: Of an exported model.
        training: Recipe and data of its training.
        run: Split file of the run; None for an exported model.
        details: See ``EvaluationResult``.
    """

    path: Path
    labels: tuple[str, ...]
    data: Data
    predict: Callable[[U8], F32]
    calibration: Calibration
    training: Mapping[str, Any]
    run: Path | None
    details: Mapping[str, Any]

    def answers(self, crops: U8, labels: tuple[str, ...]) -> F32:
        """Probabilities (N, C) of the classes of a data set.

        Raises:
            DataError: The model does not know one of the classes.
        """
        if missing := self.unknown(labels):
            raise DataError(
                f"{self.path}: does not know the class {', '.join(missing)} of the data; "
                f"it knows {', '.join(self.labels)}"
            )
        return self.predict(crops)[:, [place for place in match(labels, self.labels) if place is not None]]

    def unknown(self, labels: tuple[str, ...]) -> list[str]:
        """The classes of a data set that the model does not know, by name or synonym."""
        places = match(labels, self.labels)
        return [label for label, place in zip(labels, places, strict=True) if place is None]


def check_pictures(split: str, protocol: str) -> None:
    """Check the names of a split and of a protocol.

    Raises:
        ValueError: There is no such split or protocol.
    """
    if split not in ("validation", "test", "all"):
        raise ValueError(f"split: wanted 'validation', 'test' or 'all', got {split!r}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: wanted {', '.join(map(repr, PROTOCOLS))}, got {protocol!r}")


def recipe_of_model(model: str | Path, recipe: Recipe | str | Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The given recipe, or that of the run, with other values of some options."""
    path = Path(model)
    own = (path if path.is_dir() else path.parent) / RECIPE
    if recipe is None and own.is_file() and path.suffix not in MODELS:
        recipe = own
    return load_recipe(recipe, overrides)


@contextmanager
def open_classifier(
    model: Path, recipe: Recipe, backend: str = "auto", *, flip: bool = True, prior: Prior = "natural"
) -> Iterator[Classifier]:
    """Open a model to measure it.

    Args:
        model: An exported model, a run's folder or a checkpoint.
        recipe: Its section "data" says where the images are.
        backend: For exported models, see ``open_backend``.
        flip: For checkpoints: average over mirror images, as exported models do unless their description says no.
        prior: For exported models: how frequent the classes are taken to be; see ``Calibration.shares``.

    Raises:
        LeafError: The model is missing or broken.
    """
    if model.suffix in MODELS:
        spec = load_spec(model)
        opened = open_backend(
            model, backend, precision=spec.precision
        )  # exactly this file, no faster variant beside it
        details = {"backend": opened.name, "sha256": opened.spec.sha256, "precision": opened.spec.precision}
        data = recipe.data.with_crops(spec.side, spec.margin, spec.color)

        def infer(crops: U8) -> F32:
            images = bgr(crops)
            return judge(opened, images, prior=prior)[0]

        try:
            yield Classifier(model, spec.labels, data, infer, Calibration.of(spec), spec.training, None, details)
        finally:
            opened.close()
        return
    if backend != "auto":
        raise DataError(
            f"--backend {backend}: {model} is no exported model; runs and checkpoints are evaluated with PyTorch"
        )
    network, meta = load_model(model)
    g = meta.geometry
    device = pick_device(recipe.run.device)
    views = Views(Augment(), device, channels_last=True)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(crops: U8) -> F32:
        rows = np.arange(len(crops))
        return predict(network, Images(crops, device), rows, g.net_side, views, "off", flip=flip)

    data = recipe.data.with_crops(g.side, g.margin, g.color)
    split = (model if model.is_dir() else model.parent) / SPLIT
    facts: dict[str, Any] = {"flip": flip, "amp": "off"}
    yield Classifier(model, meta.labels, data, run, Calibration(), meta.training, split, facts)


def evaluate(
    model: Path,
    recipe: Recipe,
    split: str,
    *,
    backend: str = "auto",
    flip: bool = True,
    protocol: str = "all",
    prior: Prior = "natural",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationResult:
    """Measure a model.

    Args:
        model: An exported model, a run's folder or a checkpoint.
        recipe: Its section "data" says where the images are; crops have the model's own geometry.
        split: "validation" (if the data has none: the images that the run held out), "test" or "all".
        backend: For exported models, see ``open_backend``.
        flip: For checkpoints: average over mirror images, as exported models do unless their description says no.
        protocol: Which pictures count; see ``PROTOCOLS``.
        prior: For exported models, see ``Calibration.shares``.
        progress: Called with finished and total images while faces are cropped.

    Raises:
        LeafError: Model or data are missing or broken, or their classes differ.
        ValueError: There is no such split or protocol.
    """
    check_pictures(split, protocol)
    with open_classifier(model, recipe, backend, flip=flip, prior=prior) as classifier:
        (labels, images, samples), pictures = _pictures(classifier, recipe, split, protocol, progress)
        probs, label = classifier.answers(images[samples.row], labels), samples.label
        metrics = measure(probs, label, labels)
        below = classifier.calibration.uncertain_below
    confusion = tuple(tuple(row) for row in metrics.pop("confusion"))
    details = classifier.details
    wrong, right = flagged(probs, label, below)
    return EvaluationResult(
        str(model), recipe.data.path, split, pictures, protocol, labels, confusion=confusion, details=details,
        uncertain_below=below, flagged_wrong=wrong, flagged_right=right, reliability=tuple(reliability(probs, label)),
        risk_coverage=tuple(risk_coverage(probs, label)), **metrics,
    )  # fmt: skip


def _pictures(
    classifier: Classifier, recipe: Recipe, split: str, protocol: str, progress: Callable[[int, int], None]
) -> tuple[EvaluationData, str]:
    """The images to measure on, and what they are in words."""
    data, agreement = classifier.data, PROTOCOLS[protocol]
    if split == "validation" and agreement == NO_VOTES and classifier.run is not None and classifier.run.is_file():
        loaded, held = load_validation(data, recipe.split, classifier.run, progress)
        return loaded, "the validation pictures that the run held out" if held else split
    loaded = load_split(data, split, progress, agreement)
    if split != "all":
        return loaded, split
    among = "training pictures among them"
    known = trained_on(data, classifier.training.get("data", ""))
    return loaded, f"all labelled pictures, {among if known else f'perhaps {among}'}"


def bgr(images: U8) -> U8:
    """Convert cached crops (N, 1 or 3, S, S) to the runtime's (N, S, S, 3) BGR."""
    planes = np.repeat(images, 3, 1) if images.shape[1] == 1 else images[:, ::-1]
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))
