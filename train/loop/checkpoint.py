"""Checkpoints: files of tensors and plain values that torch loads with ``weights_only``, and a readable JSON.

A run writes ``last.pt`` and, if it selects by validation, ``best.pt``. A file is written completely or not at all.
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
from train.models.weights import Unreadable, mismatch, read_file
from train.recipes.schema import RECIPE

FORMAT = 1
LAST = "last.pt"
BEST = "best.pt"
META = "meta.json"


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a face is cropped for the model.

    Attributes:
        side: Of the crop, px.
        margin: See ``leaf_rt.faces.alignment.template``.
        color: "grey" or "rgb".
        net_side: Side in px that the crop is resized to for the network.
    """

    side: int
    margin: float
    color: str
    net_side: int


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """Description of a checkpoint.

    Attributes:
        labels: C class names, in the order of the logits.
        geometry: Of the crops.
        mean: Of each channel, for normalising values in [0, 1].
        std: Of each channel, likewise.
        model: Arguments of ``build_model``.
        training: Recipe, progress and data of the run.
        metrics: Of the validation split.
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
        """The fields as a checkpoint stores them."""
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
    """Write a checkpoint and, if it is the one that ``find`` returns for the run, ``meta.json`` beside it.

    Args:
        path: The .pt file.
        meta: Description of the checkpoint.
        state: "ema" and "student" (state dicts) and all that resuming needs: tensors and plain values only.

    Raises:
        NoPermission, OutputError: A file cannot be written.
    """
    write_whole(path, lambda f: torch.save({**meta.payload(), **state}, f), parents=True)
    if find(path.parent) == path:
        save_json(path.with_name(META), {**meta.payload(), "checkpoint": path.name})


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        NotFound: The file is missing.
        ModelError: The file is damaged, is not a checkpoint, or has another format.
    """
    if not path.is_file():
        if path.name == LAST and (path.parent / RECIPE).is_file():
            raise NotFound(f"{path.parent}: the run has no checkpoint yet; start it again with --out {path.parent}")
        raise NotFound(f"checkpoint {path}: no such file; give the folder of a run or its {LAST}")
    try:
        content = read_file(path)
    except Unreadable as e:
        raise ModelError(f"checkpoint {path}: cannot be loaded: {e}") from e
    required = {"format", "labels", "geometry", "normalise", "model", "ema"}
    if not isinstance(content, dict) or not required <= set(content):
        raise ModelError(f"checkpoint {path}: is not a checkpoint of `leaf-rt train`")
    if content["format"] != FORMAT:
        raise ModelError(f"checkpoint {path}: has format {content['format']}, this version reads format {FORMAT}")
    return content


def find(path: Path) -> Path:
    """The result of a run, ``best.pt`` if there is one, else ``last.pt``; a path of a file is returned as it is."""
    if path.is_dir():
        best = path / BEST
        return best if best.is_file() else path / LAST
    return path


def load_model(path: Path) -> tuple[FaceModel, CheckpointMeta]:
    """The EMA model of a run, in eval mode, on the CPU, float32.

    Args:
        path: Folder of a run, or a checkpoint.

    Raises:
        NotFound, ModelError: See ``load``; also if the weights do not fit the description.
    """
    path = find(path)
    content = load(path)
    meta = describe(content, path)
    model = build_model(**meta.model)
    load_weights(model, content["ema"], path)
    return model.eval().float(), meta


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights into a model.

    Raises:
        ModelError: Keys are missing, unexpected or of another shape. The message names them.
    """
    if difference := mismatch(model.state_dict(), state):
        raise ModelError(f"checkpoint {path}: its weights do not fit its description ({difference})")
    model.load_state_dict(state)


def unfinished(meta: CheckpointMeta) -> str:
    """The progress of an incomplete run, as "step 1 of 30"; empty if the run is complete or its state is unknown.

    The progress is read from the latest checkpoint of the run. The best one may be from before the end, so a copy of it
    without the run does not show the progress.
    """
    training, latest = meta.training, meta.path.with_name(LAST)
    if meta.path != latest:
        try:
            training = load(latest).get("training", {})
        except (NotFound, ModelError):  # unknown
            training = {}
    step, steps = training.get("step"), training.get("steps")
    return f"step {step} of {steps}" if step is not None and steps is not None and step < steps else ""


def describe(content: dict[str, Any], path: Path) -> CheckpointMeta:
    """The description in a loaded checkpoint."""
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
