"""Makes a model honest: fits its calibration, and the quality of faces, on the validation split and degraded copies.

``python -m engines calibrate`` writes the calibration into the descriptions of the model and of its variants, and the
weights of the quality into the package. The test split is not touched. Knows answers and measures of crops; must not
know how models are trained or exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.evaluation_faces import predict
from engines.false_faces import find_false_faces, fit_face_score
from leaf_rt.backends.base import ProgressCallback, silent
from leaf_rt.backends.opening import open_backend
from leaf_rt.errors import DataError, LeafError
from leaf_rt.faces.quality import measure, quality_of, terms
from leaf_rt.models.calibration import LARGEST, SMALLEST, TEMPERATURES, Calibration, normalized
from leaf_rt.models.quality import QualityWeights, load_weights
from leaf_rt.models.spec import ModelSpec, load_spec, save_spec, variant_path
from leaf_rt.types import F32, I64, U8
from train.data.dataset import labelled_of, open_crops
from train.metrics import calibration_error, flagged
from train.recipes.schema import Data
from train.reports.degraded import degraded_crops
from train.reports.evaluation import bgr

F64: TypeAlias = NDArray[np.float64]

STRIDE = 5  # every such validation picture is degraded
RIGHT_FLAGGED = 0.12  # share of the right answers that may become "uncertain" on clean validation pictures
CLEAN_WEIGHT = 0.8  # of the clean pictures among all
PENALTY = 1e-3  # of the squared weights of the quality
CLEAR = 0.5  # share of the clean pictures that have the best quality
LEAST_NEUTRAL = 0.5  # share of neutral in the answers for faces that rest
BALANCES = tuple(round(0.1 * k, 1) for k in range(1, 11))  # powers of the prior that are tried
CLEAN = "clean"
DARKEST = 0.03  # of the light; without pictures that are too dark to tell anything, dark ones would seem too good


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model says about pictures of one kind.

    Attributes:
        probs: (N, C) float32, of the network.
        features: (N, D) float32, of the network.
        measured: (N, M) float32, see ``leaf_rt.faces.quality.measure``.
        label: (N,) int64.
    """

    probs: F32
    features: F32
    measured: F32
    label: I64


def calibrate(
    model: Path,
    data: Data,
    *,
    backgrounds: Path | None = None,
    fit_quality: bool = False,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notify: ProgressCallback = silent,
) -> tuple[Calibration, list[Path]]:
    """Fit the calibration of a model, and write it into the descriptions of the model and its variants.

    Args:
        model: The fp32 .onnx file.
        data: A data set with a training and a validation split.
        backgrounds: Folder of pictures and clips in which to look for things that are taken for faces. Without it the
            model does not learn to tell them from faces.
        fit_quality: Fit the weights of the quality too, and store them in the package.
        threads: As for ``open_backend``.
        progress: Called with finished and total degraded pictures.
        notify: Called with one sentence about each step.

    Returns:
        The calibration, and the models whose descriptions were written.

    Raises:
        LeafError: Model or data cannot be read.
    """
    spec = load_spec(model)
    false_faces = None if backgrounds is None else find_false_faces(backgrounds, spec.side, spec.margin)
    answers, training, others = collect(model, spec, data, false_faces, threads, progress, notify)
    if fit_quality:
        fit_weights(answers).save()
        load_weights.cache_clear()
    calibration = fit(answers, training, load_weights(), f"{data.layout}, validation", spec, others)
    written = []
    for path, described in _variants(model, spec):
        save_spec(replace(described, calibration=calibration.to_dict()), path)
        written.append(path)
    return calibration, written


def collect(
    model: Path,
    spec: ModelSpec,
    data: Data,
    false_faces: U8 | None,
    threads: int,
    progress: Callable[[int, int], None],
    notify: ProgressCallback,
) -> tuple[dict[str, Answers], I64, F32]:
    """Classify the validation pictures, degraded copies of some of them, and what is no face.

    Returns:
        Kind of the pictures to the answers; the number of training pictures of each class, (C,) int64; and the features
        of what is no face, (K, D) float32.

    Raises:
        LeafError: Model or data cannot be read.
    """
    data = data.with_crops(spec.side, spec.margin, spec.color)
    index, crops = open_crops(data)
    if set(index.labels) != set(spec.labels):
        raise DataError(f"--data {data.path}: its labels ({', '.join(index.labels)}) are not the model's")
    order = np.array([spec.labels.index(label) for label in index.labels], np.int64)
    rows = labelled_of(index, crops, "validation")
    if not len(rows):
        raise DataError(f"--data {data.path}: this data has no validation split with labels")
    training = np.bincount(order[index.label[labelled_of(index, crops, "train")]], minlength=len(spec.labels))
    opened = open_backend(model, threads=threads, precision=spec.precision)
    try:
        notify(f"classifying {len(rows)} clean pictures, {opened.reason}")

        def answer(images: Any, label: I64) -> Answers:
            faces = bgr(images)
            found = predict(opened.infer, faces)
            return Answers(found.probs, found.features, measure(faces), order[label])

        result = {CLEAN: answer(crops.images[crops.row[rows]], index.label[rows])}
        some = rows[::STRIDE]
        notify(f"degrading {len(some)} of them")
        for name, images in degraded_crops(data, index, some, progress).items():
            if name != CLEAN:
                result[name] = answer(images, index.label[some])
        dark = np.rint(crops.images[crops.row[some]] * DARKEST).astype(np.uint8)
        result[f"light x{DARKEST:g}"] = answer(dark, index.label[some])
        no_faces = np.zeros((0, spec.feature_dim), np.float32)
        if false_faces is not None:
            notify(f"classifying {len(false_faces)} things that are no faces")
            no_faces = predict(opened.infer, false_faces).features
    finally:
        opened.close()
    return result, training.astype(np.int64), no_faces


def fit_weights(answers: Mapping[str, Answers]) -> QualityWeights:
    """Fit how the measures of a picture show how far an answer can be trusted, by maximum likelihood.

    The logarithms of the shares are multiplied by exp(offset + terms @ weights), as by ``Calibration.shares``. Clean
    pictures count ``CLEAN_WEIGHT`` of all.

    Args:
        answers: See ``collect``.
    """
    measured = np.concatenate([part.measured for part in answers.values()])
    count = 2 * measured.shape[1]
    scaled = QualityWeights(measured.mean(0), np.maximum(measured.std(0), 1e-3), np.zeros(count, np.float32), 0.0, {})
    parts = [(np.log(np.maximum(a.probs, SMALLEST)), terms(a.measured, scaled), a.label) for a in answers.values()]
    logs, x, label = (np.concatenate([part[k] for part in parts]) for k in range(3))
    found = _fitted(logs, label, _importance(answers), x, np.zeros(x.shape[1]), PENALTY)
    clear = found[1:].astype(np.float32)
    best = float(np.quantile(terms(answers[CLEAN].measured, scaled) @ clear, 1.0 - CLEAR))
    pictures = {name: len(part.label) for name, part in answers.items()}
    return replace(scaled, clear=clear, clear_offset=round(-best, 5), fitted=pictures)


def fit(
    answers: Mapping[str, Answers], training: I64, weights: QualityWeights, name: str, spec: ModelSpec, others: F32
) -> Calibration:
    """Fit temperature, power of the quality, threshold and prior.

    Args:
        answers: See ``collect``.
        training: (C,) int64, number of training pictures of each class.
        weights: How the quality is computed.
        name: Of the pictures.
        spec: The model.
        others: (K, D) float32, features of what is no face; may be empty.
    """
    logs = np.concatenate([np.log(np.maximum(part.probs, SMALLEST)) for part in answers.values()])
    clear = {kind: quality_of(part.measured, weights) for kind, part in answers.items()}
    q = np.log(np.maximum(np.concatenate([*clear.values()]), SMALLEST))
    label = np.concatenate([part.label for part in answers.values()])
    found = _fitted(logs, label, _importance(answers), q[:, None], np.ones(1))
    temperature = float(np.clip(np.exp(-found[0]), *TEMPERATURES))  # the ends are for models that know nothing
    exponent = float(np.clip(found[1], 0.0, LARGEST))
    calibration = Calibration(temperature=round(temperature, 4), quality_exponent=round(exponent, 4))
    clean = answers[CLEAN]
    shares = calibration.shares(clean.probs, clear[CLEAN])
    right = shares.argmax(1) == clean.label
    below = float(np.quantile(shares.max(1)[right], RIGHT_FLAGGED))
    prior = np.maximum(training, 1) / np.maximum(training, 1).sum()
    calibration = replace(
        calibration,
        uncertain_below=round(below, 3),
        prior=tuple(round(float(share), 5) for share in prior),
        resting=_resting(shares, clean.label, spec),
        face=fit_face_score(np.concatenate([a.features for a in answers.values()]), clean.features, others)
        if len(others)
        else (),
    )
    calibration = replace(calibration, balance=_best_balance(calibration, clean, clear[CLEAN]))
    facts = {
        kind: _facts(calibration.shares(part.probs, clear[kind]), part.label, calibration.uncertain_below)
        for kind, part in answers.items()
    }
    return replace(calibration, fitted={"data": name, "things that are no faces": len(others), **facts})


def _fitted(logs: F32, label: I64, importance: F64, terms_of: F32, start: F64, penalty: float = 0.0) -> F64:
    """Fit offset and weights of the terms, whose exponential multiplies the logarithms of the shares.

    Args:
        logs: (N, C) float32, logarithms of the shares.
        label: (N,) int64.
        importance: (N,) float64, sums to 1.
        terms_of: (N, K) float32.
        start: (K,) float64, first weights.
        penalty: Of the squared weights.

    Returns:
        (1 + K,) float64: the offset and the weights with the greatest likelihood.
    """
    z, x, share = (torch.from_numpy(np.asarray(a, np.float64)) for a in (logs, terms_of, importance))
    target = torch.from_numpy(label)
    weights = torch.tensor([0.0, *start.tolist()], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_change=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        trust = (weights[0] + x @ weights[1:]).clamp(-5, 5).exp()
        losses = torch.nn.functional.cross_entropy(z * trust[:, None], target, reduction="none")
        loss = share @ losses + penalty * weights[1:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return np.asarray(weights.detach().numpy(), np.float64)


def _importance(answers: Mapping[str, Answers]) -> F64:
    """(N,) weights that sum to 1: ``CLEAN_WEIGHT`` for clean pictures, the rest for all degraded ones."""
    counts = {kind: len(part.label) for kind, part in answers.items()}
    degraded = sum(counts.values()) - counts[CLEAN]
    return np.concatenate([
        np.full(n, CLEAN_WEIGHT / n if kind == CLEAN else (1.0 - CLEAN_WEIGHT) / degraded) for kind, n in counts.items()
    ])  # fmt: skip


def _resting(shares: F32, label: I64, spec: ModelSpec) -> tuple[float, ...]:
    """Mean answer, of logarithms, for faces that are labelled neutral and look so; empty without such a class."""
    if "neutral" not in spec.labels:
        return ()
    neutral = spec.labels.index("neutral")
    rest = shares[(label == neutral) & (shares[:, neutral] >= LEAST_NEUTRAL)]
    if not len(rest):
        return ()
    mean = normalized(np.log(np.maximum(rest, SMALLEST)).mean(0, keepdims=True))[0]
    return tuple(round(max(float(share), SMALLEST), 6) for share in mean)


def _best_balance(calibration: Calibration, clean: Answers, clear: F32) -> float:
    """The power of the prior with the best sum of accuracy and mean recall on clean validation pictures."""
    present = np.unique(clean.label)

    def gain(balance: float) -> float:
        right = replace(calibration, balance=balance).shares(clean.probs, clear, "balanced").argmax(1) == clean.label
        return float(right.mean() + np.mean([right[clean.label == k].mean() for k in present]))

    return max(BALANCES, key=gain)


def _facts(shares: F32, label: I64, below: float) -> dict[str, Any]:
    wrong, right = flagged(shares, label, below)
    return {
        "pictures": len(label),
        "accuracy": round(float((shares.argmax(1) == label).mean()), 4),
        "calibration_error": round(calibration_error(shares, label), 4),
        "flagged_wrong": None if wrong is None else round(wrong, 4),
        "flagged_right": None if right is None else round(right, 4),
    }


def _variants(model: Path, spec: ModelSpec) -> Iterable[tuple[Path, ModelSpec]]:
    """The model and the files that were made from it, with their descriptions."""
    yield model, spec
    for precision, suffix in (("fp16", ".onnx"), ("int8", ".onnx"), ("int8", ".xml")):
        path = variant_path(model, precision, suffix)
        try:
            described = load_spec(path)
        except LeafError:
            continue
        if described.parent == spec.sha256:
            yield path, described
