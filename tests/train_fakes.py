"""A small data set whose classes can be learned in seconds, and the recipe that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leaf_rt import cli
from train.recipes.loading import resolve
from train.recipes.schema import Recipe

CLASSES = ("anger", "fear", "happiness", "sadness", "surprise")


def picture(kind: int, rng: np.random.Generator, side: int = 20) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Grey noise with horizontal stripes, whose width gives the class."""
    image = rng.integers(0, 90, (side, side), dtype=np.uint8)
    image[np.arange(side) // (kind + 1) % 2 == 0] += 120
    return image


def write_folder(root: Path, per_class: int = 12, unlabelled: int = 20, valid: int = 4) -> Path:
    """train/<class>, valid/<class>, test/<class> and unlabelled, all with different pictures."""
    rng = np.random.default_rng(0)
    for split, n in (("train", per_class), ("valid", valid), ("test", valid)):
        for c, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                cv2.imwrite(str(folder / f"{i:03d}.png"), picture(c, rng))
    (root / "unlabelled").mkdir()
    for i in range(unlabelled):
        cv2.imwrite(str(root / "unlabelled" / f"{i:03d}.png"), picture(i % len(CLASSES), rng))
    return root


def tiny(root: Path, **values: Any) -> Recipe:
    """A recipe for ``write_folder``; names as in method__name."""
    given = {
        "data.path": str(root / "data"),
        "data.cache": str(root / "cache"),
        "data.side": 20,
        "data.align": False,
        "split.kind": "balanced",
        "split.labels": 20,
        "model.backbone": "tiny",
        "run.input_sizes": [16],
        "run.batch": 8,
        "run.batch_unlabelled": 8,
        "run.epochs": 2,
        "run.steps": 3,
        "run.threads": 1,
        "run.device": "cpu",
        "run.amp": "off",
        "method.hidden": 8,
        "method.experts": 4,
    }
    return resolve(given | {k.replace("__", "."): v for k, v in values.items()})


def train_command(arguments: list[str]) -> int:
    """Run ``python -m train`` with arguments in this process; returns its exit code."""
    has_command = arguments[:1] and arguments[0] in ("train", "prepare", "evaluate", "merge")
    return cli.main(arguments if has_command else ["train", *arguments])
