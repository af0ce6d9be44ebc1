"""Distillation: a finished model, the teacher, helps to label the training images.

Labelled images keep a part of their own targets, so that the teacher only smooths the few votes that each has.
Unlabelled images get the teacher's probabilities and are trained on like labelled ones ("noisy student", Xie et al.,
2020, arXiv 1911.04252): the teacher sees the plain image, the student a distorted one.
Knows recipes, data and models; must not know losses.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from leaf_rt.system.files import write_whole
from leaf_rt.system.parsing import read_arrays
from leaf_rt.types import F32, I64
from train.augment.views import Views
from train.data.dataset import Images, Samples, TrainingData
from train.loop.checkpoint import load_model
from train.loop.inference import predict
from train.models.backbones import build_backbone, fold_batch_norm
from train.models.bundled import load_bundled
from train.models.face_model import FaceModel, build_model
from train.recipes.schema import BUNDLED, BUNDLED_BACKBONE, Recipe

ANSWERS = "teacher.npz"  # in the folder of a run
MOST_REPEATS = 5  # of an unlabelled image in one pass
_MAX_ANSWERS = 1 << 30  # bytes


def distilled(recipe: Recipe, data: TrainingData, images: Images, views: Views, out: Path) -> TrainingData:
    """The training data with the teacher's probabilities in its targets, and no unlabelled image left.

    Args:
        recipe: Its section ``distill`` names the teacher.
        data: The images of the run.
        images: The crops of ``data``.
        views: Normalises the crops.
        out: Folder of the run. It keeps the teacher's answers, so that a resumed run does not wait for them again.

    Raises:
        NotFound, ModelError: The teacher cannot be read.
        NoPermission, OutputError: The answers cannot be written.
        DataError: The teacher has other classes than the data.
    """
    options, unlabelled = recipe.distill, data.unlabelled
    n = len(data.labelled)
    rows = np.concatenate([data.labelled.row, unlabelled.row])
    answers = _kept(out / ANSWERS, rows, len(data.labels))
    if answers is None:
        teacher, labels, side = _teacher(recipe)
        if labels != data.labels:
            raise DataError(
                f"distill.teacher {options.teacher}: knows {', '.join(labels)}; the data has {', '.join(data.labels)}"
            )
        teacher.to(images.device, memory_format=views.format)  # type: ignore[call-overload]
        answers = predict(teacher, images, rows, side, views, "off", flip=True)
        _keep(out / ANSWERS, rows, answers)
    own = data.labelled.targets
    labelled = replace(data.labelled, targets=(1 - options.weight) * own + options.weight * answers[:n])
    if len(unlabelled):
        probs = answers[n:]
        order = np.repeat(np.arange(len(probs)), repeats(probs, options.balance))
        labelled = Samples(
            np.concatenate([labelled.row, unlabelled.row[order]]),
            np.concatenate([labelled.targets, probs[order]]),
            np.concatenate([labelled.label, probs[order].argmax(1)]),
        )
    nothing = Samples(unlabelled.row[:0], unlabelled.targets[:0], unlabelled.label[:0])
    return replace(data, labelled=labelled, unlabelled=nothing)


def repeats(probs: F32, balance: float) -> I64:
    """(N,) int64: how often each unlabelled image occurs in a pass, so that rare classes occur more often.

    An image of class c, the most likely one of its probabilities (N, C), occurs (n_max / n_c) ** balance times,
    rounded, and at most ``MOST_REPEATS`` times; n_c is the number of images of the class.
    """
    label = probs.argmax(1)
    counts = np.bincount(label, minlength=probs.shape[1])
    wanted = (counts.max() / np.maximum(counts, 1)) ** balance
    times = np.minimum(np.round(wanted), MOST_REPEATS).astype(np.int64)
    of_image: I64 = times[label]
    return of_image


def _kept(path: Path, rows: I64, classes: int) -> F32 | None:
    """The answers (N, C) that a file holds for these rows (N,); None without the file or with other rows."""
    try:
        probs, found = read_arrays(path, ("probs", "rows"), _MAX_ANSWERS)
    except (OSError, ValueError):  # none yet, or damaged: the teacher is asked again
        return None
    fits = probs.dtype == np.float32 and probs.shape == (len(rows), classes) and bool(np.isfinite(probs).all())
    return probs if fits and np.array_equal(found, rows) else None


def _keep(path: Path, rows: I64, probs: F32) -> None:
    write_whole(path, lambda f: np.savez(f, rows=rows, probs=probs), parents=True)


def _teacher(recipe: Recipe) -> tuple[FaceModel, tuple[str, ...], int]:
    """The teacher in eval mode, its class names, and the side of its input in px."""
    if recipe.distill.teacher != BUNDLED:
        model, meta = load_model(Path(recipe.distill.teacher))
        return model, meta.labels, meta.geometry.net_side
    labels = load_spec(DEFAULT_MODEL).labels
    encoder = build_backbone(BUNDLED_BACKBONE)
    fold_batch_norm(encoder.eval())
    model = build_model(BUNDLED_BACKBONE, len(labels), folded=True)
    load_bundled(model.encoder, model.classifier, labels)
    return model.eval(), labels, recipe.run.input_sizes[-1]
