"""Checkpoints: one ``last.pt`` per run, whole or absent, loadable with ``weights_only``, and a JSON for people.

Knows files and state dicts; must not know data or losses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leaf_rt.errors import ModelError, NotFound
from leaf_rt.system.files import save_json, write_whole
from train.models.face_model import FaceModel, build_model
from train.models.weights import Unreadable, misfit, read
from train.recipes.schema import RECIPE

FORMAT = 1
LAST = "last.pt"
BEST = "best.pt"
META = "meta.json"


@dataclass(frozen=True, slots=True)
class Geometry:
    """Crops of ``side`` px with ``margin`` (``alignment.template``), "grey" or "rgb", resized to ``net_side`` px."""

    side: int
    margin: float
    color: str
    net_side: int


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """What a checkpoint says of itself.

    Attributes:
        labels: In the order of the logits.
        geometry: Of the crops.
        mean, std: Normalisation per channel, of values in [0, 1].
        model: Arguments of ``build_model``.
        training: Data, protocol, recipe and seed.
        metrics: Measured on the validation split.
        path: The file.
    """

    labels: tuple[str, ...]
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    path: Path

    def payload(self) -> dict[str, Any]:
        """The fields as a checkpoint keeps them."""
        return {
            "format": FORMAT,
            "labels": list(self.labels),
            "geometry": asdict(self.geometry),
            "normalise": {"mean": list(self.mean), "std": list(self.std)},
            "model": self.model,
            "training": self.training,
            "metrics": self.metrics,
        }


def save(path: Path, meta: CheckpointMeta, state: dict[str, Any]) -> None:
    """Write a checkpoint and, where it is the one that speaks for the run, ``meta.json`` beside it.

    Args:
        path: The .pt file.
        meta: What it says of itself.
        state: "ema" and "student" (state dicts), and the rest that resuming needs: tensors and plain values only.
    """
    write_whole(path, lambda f: torch.save({**meta.payload(), **state}, f), parents=True)
    if find(path.parent) == path:
        save_json(path.with_name(META), {**meta.payload(), "checkpoint": path.name})


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        NotFound: No such file.
        ModelError: Damaged, foreign, or of another format.
    """
    if not path.is_file():
        if path.name == LAST and (path.parent / RECIPE).is_file():
            raise NotFound(f"{path.parent}: the run has no checkpoint yet; start it again with --out {path.parent}")
        raise NotFound(f"checkpoint {path}: no such file; give a run's folder or its {LAST}")
    try:
        content = read(path)
    except Unreadable as e:
        raise ModelError(f"checkpoint {path}: damaged or foreign: {e}") from e
    wanted = {"format", "labels", "geometry", "normalise", "model", "ema"}
    if not isinstance(content, dict) or not wanted <= set(content):
        raise ModelError(f"checkpoint {path}: is no checkpoint of `leaf-rt train`")
    if content["format"] != FORMAT:
        raise ModelError(f"checkpoint {path}: format {content['format']}, this version reads {FORMAT}")
    return content


def find(path: Path) -> Path:
    """The checkpoint that speaks for a run: ``best.pt`` where the run selected by validation, else ``last.pt``."""
    if path.is_dir():
        best = path / BEST
        return best if best.is_file() else path / LAST
    return path


def load_model(path: Path) -> tuple[FaceModel, CheckpointMeta]:
    """The EMA model of a run, in eval mode, on the CPU, float32.

    Args:
        path: A run's folder or a checkpoint file.

    Raises:
        NotFound, ModelError: See ``load``; also where weights and description disagree.
    """
    path = find(path)
    content = load(path)
    meta = describe(content, path)
    model = build_model(**meta.model)
    load_weights(model, content["ema"], path)
    return model.eval().float(), meta


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """``load_state_dict`` with an error for people.

    Raises:
        ModelError: Keys are missing, unexpected or of another shape; the message names them.
    """
    if wrong := misfit(model.state_dict(), state):
        raise ModelError(f"checkpoint {path}: its weights do not fit its description ({wrong})")
    model.load_state_dict(state)


def unfinished(meta: CheckpointMeta) -> str:
    """How far the run of a checkpoint came, as "step 1 of 30"; empty where it came to its end, or nothing is known.

    The newest checkpoint of a run tells; the best one may lie before the end, so a copy of it tells nothing.
    """
    training, newest = meta.training, meta.path.with_name(LAST)
    if meta.path != newest:
        try:
            training = load(newest).get("training", {})
        except (NotFound, ModelError):  # then nothing is known
            training = {}
    step, steps = training.get("step"), training.get("steps")
    return f"step {step} of {steps}" if step is not None and steps is not None and step < steps else ""


def describe(content: dict[str, Any], path: Path) -> CheckpointMeta:
    """What a loaded checkpoint says of itself."""
    mean, std = (tuple(float(v) for v in content["normalise"][k]) for k in ("mean", "std"))
    return CheckpointMeta(
        labels=tuple(content["labels"]),
        geometry=Geometry(**content["geometry"]),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        model=content["model"],
        training=content.get("training", {}),
        metrics=content.get("metrics", {}),
        path=path,
    )
