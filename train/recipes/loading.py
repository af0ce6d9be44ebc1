"""Recipes from TOML files and options, and back to TOML.

The value of an option is, from weak to strong: its default, the preset of the method, the recipe file, an override.
Knows files. It must not know tensors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaf_rt.errors import DataError, NotFound
from leaf_rt.system.parsing import read_toml
from train.recipes.presets import preset
from train.recipes.schema import ALIASES, OPTIONS, SECTIONS, Method, Recipe

RECIPES = Path(__file__).parent


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(source: Recipe | str | Path | None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe and apply overrides.

    Args:
        source: A recipe, the name of a recipe in the package, the path of a TOML file, or None for the defaults.
        overrides: "section.key" to a value or its text. Old names of options are accepted.

    Raises:
        NotFound: There is no such recipe.
        DataError: An option is unknown, or its type, choice or range is wrong.

    Example:
        >>> load_recipe("own", {"run.epochs": 5}).run.epochs
        5
    """
    if isinstance(source, Recipe):
        values, where = _flat(to_dict(source)), "recipe"
    elif source is None:
        values, where = {}, "defaults"
    else:
        path = _find(source)
        values, where = _current_names(_read(path), str(path)), str(path)
    given = _current_names(overrides or {}, "options")
    return resolve({**_without_old_method(values, given), **given}, where)


def resolve(values: Mapping[str, Any], where: str = "options") -> Recipe:
    """Make a recipe from "section.key" values; the method's preset and the defaults fill the rest.

    Args:
        values: Values or their texts.
        where: Source of the values, for errors.

    Raises:
        DataError: An option is unknown, or its type, choice or range is wrong.
    """
    typed = {key: _convert(key, value, where) for key, value in _current_names(values, where).items()}
    if "split.kind" not in typed:
        kind = "balanced" if typed.get("split.labels") else "share" if typed.get("split.share") else "all"
        typed["split.kind"] = kind
    typed = {**{f"method.{name}": value for name, value in preset(typed).items()}, **typed}
    tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key, value in typed.items():
        tables[OPTIONS[key].section][OPTIONS[key].name] = value
    recipe = Recipe(**{section: SECTIONS[section](**table) for section, table in tables.items()})
    _check(recipe)
    return recipe


def to_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The sections as plain values, as JSON and TOML hold them; tuples become lists."""
    tables: dict[str, dict[str, Any]] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return tables


def shareable(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """``to_dict`` with names in place of the paths on this machine, for files that are passed on."""
    tables = to_dict(recipe)
    for option in OPTIONS.values():
        if option.local:
            tables[option.section][option.name] = Path(tables[option.section][option.name]).name
    return tables


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML text; ``load_recipe`` reads the same recipe from it."""
    lines = []
    for section, table in to_dict(recipe).items():
        lines.append(f"[{section}]")
        # Texts, numbers, booleans and lists of these are written in TOML as in JSON.
        lines.extend(f"{name} = {json.dumps(value)}" for name, value in table.items())
        lines.append("")
    return "\n".join(lines)


def changed_options(old: Recipe, new: Recipe) -> list[str]:
    """Keys of the options whose values differ, in the order of the schema."""
    before, after = _flat(to_dict(old)), _flat(to_dict(new))
    return [key for key in OPTIONS if before[key] != after[key]]


def _flat(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, table in tables.items() for name, value in table.items()}


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix != ".toml" and not path.is_file():
        path = RECIPES / f"{source}.toml"
    if not path.is_file():
        raise NotFound(f"recipe {source}: no such file or name; there are {', '.join(recipe_names())}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        tables = read_toml(path)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e})") from e
    except ValueError as e:
        raise DataError(f"{path}: not valid TOML ({e})") from e
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise DataError(f"{path}: {name} is outside of a section; put it under one of [{', '.join(SECTIONS)}]")
    return _flat(tables)


def _current_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values under the current names of their options."""
    for old, new in ALIASES.items():
        if old in values and new in values:
            raise DataError(f"{where}: {old} is the old name of {new}; remove one of them")
    return {ALIASES.get(key, key): value for key, value in values.items()}


def _without_old_method(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file without those of its method's preset, if the overrides select another method.

    The recipe of a run holds every value. Without this, the new method would keep all values of the old one.
    """
    selectors = ("method.name", "method.mode")
    if all(key not in given or given[key] == values.get(key) for key in selectors):
        return values
    usual = Method(**preset(values))

    def from_preset(key: str, value: Any) -> bool:
        value = tuple(value) if isinstance(value, list) else value
        return bool(value == getattr(usual, key.partition(".")[2], None))

    return {
        key: value
        for key, value in values.items()
        if key in selectors or not key.startswith("method.") or not from_preset(key, value)
    }


def _convert(key: str, value: Any, where: str) -> Any:
    if key not in OPTIONS:
        section = key.partition(".")[0]
        near = [known for known, option in OPTIONS.items() if option.section == section]
        known = ", ".join(near) if near else f"sections {', '.join(SECTIONS)}"
        raise DataError(f"{where}: there is no option {key}; known: {known}")
    return OPTIONS[key].convert(value, where)


def _check(recipe: Recipe) -> None:
    """Check ranges, and options that depend on each other."""
    for option in OPTIONS.values():
        option.check_range(getattr(getattr(recipe, option.section), option.name))
    method, split, optim, run = recipe.method, recipe.split, recipe.optim, recipe.run
    if run.stop > run.epochs:
        raise DataError(f"run.stop: wanted 0 to {run.epochs} (run.epochs), got {run.stop}")
    if len(run.input_sizes) not in (1, run.epochs):
        raise DataError(f"run.input_sizes: wanted 1 size or {run.epochs}, one per epoch, got {len(run.input_sizes)}")
    if not 1 <= method.k <= method.experts:
        raise DataError(f"method.k: wanted 1 to {method.experts} (method.experts), got {method.k}")
    if method.lambda_c > 0 and method.weak_views == 1:
        raise DataError("method.lambda_c: compares two weak views, but method.weak_views is 1; set it to 2")
    if run.batch % optim.accumulate:
        raise DataError(f"optim.accumulate: wanted a divisor of run.batch ({run.batch}), got {optim.accumulate}")
    if method.name != "supervised" and run.batch_unlabelled % optim.accumulate:
        raise DataError(
            f"optim.accumulate: wanted a divisor of run.batch_unlabelled ({run.batch_unlabelled}), "
            f"got {optim.accumulate}"
        )
    if split.folds == 1:
        raise DataError("split.folds: wanted 2 or more, or 0 for none, got 1")
    if split.folds and not 0 <= split.fold < split.folds:
        raise DataError(f"split.fold: wanted 0 to {split.folds - 1}, got {split.fold}")
