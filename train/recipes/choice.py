"""The recipe of a new run, if the user names none or changes the start of one.

Knows recipes. It must not know tensors or the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.recipes.loading import load_recipe
from train.recipes.schema import BUNDLED, BUNDLED_BACKBONE, Recipe

DEFAULT_RECIPES = {"cuda": "own", "cpu": "own-cpu"}
# What the recipes for own faces change where they cannot start from the bundled network: a network that knows no
# expression yet needs larger steps, and batch norm.
OTHER_START: Mapping[str, Any] = {
    "model.fold_batch_norm": False,
    "optim.lr": 5e-4,
    "optim.head_lr": 1.0,
}


def choose(source: Recipe | str | Path | None, overrides: Mapping[str, Any], device: str) -> tuple[Recipe, list[str]]:
    """The recipe of a new run, with notes on what was chosen.

    Args:
        source: See ``load_recipe``; None selects one of ``DEFAULT_RECIPES``.
        overrides: See ``load_recipe``.
        device: "cuda" or "cpu".

    Raises:
        NotFound, DataError: See ``load_recipe``.
    """
    notes = []
    if source is None:
        source = DEFAULT_RECIPES[device]
        if device == "cpu":
            large = DEFAULT_RECIPES["cuda"]
            notes.append(f"no GPU here: recipe {source}, smaller than {large}; --recipe {large} selects that one")
    if is_for_own_faces(source):
        overrides = _with_other_start(source, overrides, notes)
    recipe = load_recipe(source, overrides)
    if recipe.method.weak_views and "run.batch" in overrides and "run.batch_unlabelled" not in overrides:
        usual = load_recipe(source, {k: v for k, v in overrides.items() if k != "run.batch"}).run
        scaled = max(1, round(usual.batch_unlabelled * recipe.run.batch / usual.batch))
        if scaled != recipe.run.batch_unlabelled:
            notes.append(f"run.batch_unlabelled is {scaled}, in the recipe's proportion to --batch")
            recipe = load_recipe(source, {**overrides, "run.batch_unlabelled": scaled})
    return recipe, notes


def is_for_own_faces(source: Recipe | str | Path | None) -> bool:
    """Whether a recipe, by name or by default, is one for a user's own faces."""
    return source is None or str(source) in DEFAULT_RECIPES.values()


def supervised_instead(recipe: Recipe) -> Recipe:
    """The same run without unlabelled images."""
    return load_recipe(recipe, {"method.name": "supervised"})


def _with_other_start(
    source: Recipe | str | Path | None, overrides: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The overrides, with those that follow from a start that is not the bundled network."""
    given = dict(overrides)
    usual = load_recipe(source).model
    backbone = str(given.get("model.backbone", usual.backbone))
    if "model.weights" not in given and usual.weights == BUNDLED and backbone != BUNDLED_BACKBONE:
        given["model.weights"] = ""
        notes.append(f"the bundled network is a {BUNDLED_BACKBONE}; {backbone} cannot start from it")
    if given.get("model.weights", usual.weights) != BUNDLED:
        given = {**OTHER_START, **given}
    return given
