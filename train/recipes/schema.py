"""Recipes: everything a run depends on, as frozen dataclasses, from TOML files and options.

A value comes from, later ones winning: the defaults here, the preset of the chosen method, the recipe file, options.
Knows names and numbers; must not know tensors.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from leaf_rt.errors import DataError, NotFound
from train.recipes.limits import check_range

RECIPES = Path(__file__).parent
RECIPE = "recipe.toml"  # of a run, resolved, in its folder
LEVELS = ("semantic", "instance", "category")


@dataclass(frozen=True, slots=True)
class Data:
    """Which pictures, and how they become crops."""

    layout: str = "auto"  # auto looks; folder, list, ferplus, rafdb, affectnet7, affectnet8, fer2013
    path: str = ""  # folder or list file
    cache: str = ""  # folder of the crops; beside the data's name in the user's cache folder if empty
    side: int = 64  # px of the cached crops
    margin: float = 0.05  # see leaf_rt.faces.alignment.template
    color: str = "grey"  # grey or rgb
    align: bool = True  # find and align faces; False takes whole pictures
    targets: str = "hard"  # hard, or soft: the distribution of votes where the data has votes
    duplicates: str = "report"  # report, or drop: training copies of validation and test pictures
    validation: float = 0.1  # share of the training pictures held out where the layout has no validation split


@dataclass(frozen=True, slots=True)
class Split:
    """Which training pictures show their labels."""

    kind: str = "all"  # all, balanced, floor, uneven, longtail, share
    labels: int = 0  # how many; 0 with kind "all"
    share: float = 0.0  # of the training pictures, for kind "share"
    seed: int = 0
    folds: int = 0  # k: the training pictures in k folds, `fold` is the validation split
    fold: int = 0
    rare: str = "fear"  # the class that gets fewer in "uneven"
    imbalance: float = 10.0  # labels of the largest class over the smallest in "longtail"
    counts: tuple[str, ...] = ()  # "class=n" for chosen classes in "uneven", as published splits have them
    path: str = ""  # a saved split to use


@dataclass(frozen=True, slots=True)
class Model:
    """The network without the levels, which belong to the method."""

    backbone: str = "resnet18"  # resnet18, resnet14, mobilefacenet, vit_b16, timm:NAME
    weights: str = ""  # a checkpoint of the backbone to start from
    dropout: float = 0.5
    fold_batch_norm: bool = False  # fold batch norms into convolutions before training
    recalibrate: int = 0  # batches for new batch-norm statistics before folding
    zero_head: bool = False  # start the classifier at zero


@dataclass(frozen=True, slots=True)
class Augment:
    """How pictures are varied."""

    labelled: str = "weak"  # weak, or supervised: stronger, for training without unlabelled pictures
    strength: float = 1.0  # of the supervised view's ranges
    mixup: float = 0.0  # share of the steps whose labelled batch is mixed with itself
    mixup_alpha: float = 0.4
    crop_padding: float = 8 / 224  # of the side
    strong_operations: int = 3
    cutout: float = 0.5  # largest side of the hole, of the side


@dataclass(frozen=True, slots=True)
class Method:
    """What is learned from which view. `name` and `mode` choose a preset for the rest."""

    name: str = "leaf"  # supervised, fixmatch, freematch, adacm, leaf
    mode: str = "paper"  # paper or official; of leaf alone
    levels: tuple[str, ...] = ()  # of semantic, instance, category
    weak_views: int = 2
    unsupervised_start_step: int = 0  # before this step only labelled images are used
    teacher: str = "ema"  # ema, student, student-grad (the weight of the ambiguous loss carries a gradient)
    unsupervised: str = "both"  # hard, ambiguous, both, masked, scalar: see losses.unsupervised_loss
    threshold: str = "class"  # fixed, class (Ada-CM), adaptive (FreeMatch)
    p_cutoff: float = 0.8  # fixed threshold, or least class threshold
    min_confidence: float = 0.0  # least q1 for the ambiguous part
    weight: str = "concave"  # concave, linear, convex, none
    rescale: str = "weighted"  # plain (as published), weighted, none
    mass: float = 0.9  # probability that the positives and the next class together must reach
    max_positives: int = 3  # largest K
    temperature: float = 0.07
    lambda_x: float = 0.5
    lambda_u: float = 1.0
    lambda_s: float = 0.1
    fairness: float = 0.0
    balance: float = 0.01
    experts: int = 8
    k: int = 2
    hidden: int = 0  # of a semantic expert; 0 is half of the feature's length
    hidden_instance: int = 32
    shared: bool = False
    combine: str = "sum"  # sum or log
    noise: bool = True
    mlp_baseline: bool = False  # a residual MLP with as many parameters in place of the experts
    instance_on: str = "logits"  # logits or features
    unit_features: bool = False


@dataclass(frozen=True, slots=True)
class Optim:
    """The steps of the optimiser."""

    name: str = "adam"  # adam, adamw, sgd
    lr: float = 5e-4
    weight_decay: float = 0.0  # matrices and kernels only
    head_lr: float = 1.0  # learning rate of everything after the encoder, as a multiple of lr
    schedule: str = "constant"  # constant or cosine
    warmup: int = 0  # steps
    clip: float = 0.0  # largest gradient norm; 0 is off
    accumulate: int = 1  # micro-batches per step
    shrink: float = 0.0  # after each step every float entry of the student times (1 - shrink * lr)
    ema_decay: float = 0.999
    ema_ramp: bool = False  # start the decay low: min(decay, (step + 1) / (step + 10))


@dataclass(frozen=True, slots=True)
class Run:
    """How long, on what, and what is kept."""

    init_from: str = ""  # start from this EMA model: a checkpoint (.pt), or a recipe whose run then comes first
    epochs: int = 20
    stop: int = 0  # end after this epoch, while the schedule is that of all epochs; 0 is off
    steps: int = 0  # per epoch; 0 is one pass over the labelled pictures
    batch: int = 16  # labelled pictures per step, over all processes
    batch_unlabelled: int = 16
    input_sizes: tuple[int, ...] = (224,)  # px of the network's input: one, or one per epoch
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    amp: str = "off"  # off, bf16, fp16
    channels_last: bool = False
    compile: bool = False
    threads: int = 0  # CPU threads of torch; 0 leaves torch's choice
    select: str = "last"  # last: EMA of the last epoch; validation: best EMA on the validation split
    evaluate_every: int = 1  # epochs
    log_every: int = 50  # steps
    checkpoint_steps: int = 0  # steps between checkpoints within an epoch; 0 only at its end


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole run."""

    data: Data = field(default_factory=Data)
    split: Split = field(default_factory=Split)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    method: Method = field(default_factory=Method)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)


# Old names of options, still accepted in recipe files, in saved runs and on the command line.
ALIASES = {
    "method.control": "method.mlp_baseline",
    "method.floor": "method.min_confidence",
    "method.delay": "method.unsupervised_start_step",
    "run.before": "run.init_from",
    "run.sides": "run.input_sizes",
}
SECTIONS = {f.name: f.default_factory for f in dataclasses.fields(Recipe)}

_OFF = {"levels": (), "lambda_s": 0.0, "balance": 0.01, "unsupervised": "hard"}
PRESETS: dict[str, dict[str, Any]] = {
    "supervised": {**_OFF, "lambda_x": 1.0, "lambda_u": 0.0, "weak_views": 0, "threshold": "fixed"},
    # Sohn et al., 2020, arXiv 2001.07685
    "fixmatch": {
        **_OFF, "lambda_x": 1.0, "weak_views": 1, "teacher": "student", "threshold": "fixed", "p_cutoff": 0.95,
    },
    # Wang et al., 2023, arXiv 2205.07246
    "freematch": {
        **_OFF, "lambda_x": 1.0, "weak_views": 1, "teacher": "student", "threshold": "adaptive", "fairness": 0.01,
    },
    # Li et al., CVPR 2022, arXiv 2203.12341
    "adacm": {**_OFF, "teacher": "student", "threshold": "class", "lambda_s": 0.1},
    "leaf-paper": {"levels": LEVELS},
    "leaf-official": {
        "levels": LEVELS, "teacher": "student-grad", "unsupervised": "scalar", "rescale": "plain", "k": 1,
        "shared": True, "combine": "log", "balance": 0.0, "instance_on": "features", "unit_features": True,
    },
}  # fmt: skip

CHOICES: dict[str, tuple[str, ...]] = {
    "data.layout": ("auto", "folder", "list", "ferplus", "rafdb", "affectnet7", "affectnet8", "fer2013"),
    "data.color": ("grey", "rgb"),
    "data.targets": ("hard", "soft"),
    "data.duplicates": ("report", "drop"),
    "split.kind": ("all", "balanced", "floor", "uneven", "longtail", "share"),
    "augment.labelled": ("weak", "supervised"),
    "method.name": ("supervised", "fixmatch", "freematch", "adacm", "leaf"),
    "method.mode": ("paper", "official"),
    "method.teacher": ("ema", "student", "student-grad"),
    "method.unsupervised": ("hard", "ambiguous", "both", "masked", "scalar"),
    "method.threshold": ("fixed", "class", "adaptive"),
    "method.weight": ("concave", "linear", "convex", "none"),
    "method.rescale": ("plain", "weighted", "none"),
    "method.combine": ("sum", "log"),
    "method.instance_on": ("logits", "features"),
    "optim.name": ("adam", "adamw", "sgd"),
    "optim.schedule": ("constant", "cosine"),
    "run.device": ("auto", "cpu", "cuda"),
    "run.amp": ("off", "bf16", "fp16"),
    "run.select": ("last", "validation"),
}


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(p.stem for p in RECIPES.glob("*.toml"))


def load_recipe(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Resolve a recipe.

    Args:
        source: Name of a recipe of the package, path of a TOML file, or None for the defaults.
        overrides: "section.key" to a value, or to the text of one.

    Raises:
        NotFound: There is no such recipe.
        DataError: A section, key, type or choice that does not exist.
    """
    values: dict[str, Any] = {}
    where = "defaults"
    if source is not None:
        path = Path(source)
        if path.suffix != ".toml" and not path.is_file():
            path = RECIPES / f"{source}.toml"
        if not path.is_file():
            raise NotFound(f"recipe {source}: no such file or name; there are {', '.join(recipe_names())}")
        where = str(path)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise DataError(f"{path}: not valid TOML ({e})") from e
        for section, table in raw.items():
            if not isinstance(table, dict):
                raise DataError(f"{path}: {section} stands outside of a section; write it under one of [{_names()}]")
            values.update({f"{section}.{key}": value for key, value in table.items()})
    values = _current_names(values, where)
    given = _current_names(overrides or {}, "options")
    _forget_method(values, given)
    return resolve({**values, **given}, where)


def _current_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values under the current names of their options.

    Raises:
        DataError: An option is given under its old and its current name.
    """
    both = [f"{old} and {new}" for old, new in ALIASES.items() if old in values and new in values]
    if both:
        raise DataError(f"{where}: {both[0]} are two names of one option; keep the second")
    return {ALIASES.get(key, key): value for key, value in values.items()}


def _forget_method(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Where another method is asked for than a file's, take out of its values those that come from the file's method.

    The recipe of a run holds every value, so without this the new method would be the old one under a new name.
    """
    chosen = ("method.name", "method.mode")
    if all(key not in given or given[key] == values.get(key) for key in chosen):
        return
    usual = Method(**_preset(values))
    for key in [k for k in values if k.startswith("method.") and k not in chosen]:
        value = values[key]
        if (tuple(value) if isinstance(value, list) else value) == getattr(usual, key.partition(".")[2], None):
            del values[key]


def _preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the method that is named in "section.key" values brings along."""
    name = values.get("method.name", Method.__dataclass_fields__["name"].default)
    return PRESETS.get(f"leaf-{values.get('method.mode', 'paper')}" if name == "leaf" else name, {})


def resolve(values: Mapping[str, Any], where: str = "options") -> Recipe:
    """A recipe from "section.key" values over the preset of their method; errors name ``where``."""
    typed = {key: _convert(key, value, where) for key, value in _current_names(values, where).items()}
    if "split.kind" not in typed:  # who asks for some labels wants them chosen
        kind = "balanced" if typed.get("split.labels") else "share" if typed.get("split.share") else "all"
        typed["split.kind"] = kind
    typed = {**{f"method.{key}": value for key, value in _preset(typed).items()}, **typed}
    tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key, value in typed.items():
        section, _, option = key.partition(".")
        tables[section][option] = value
    recipe = Recipe(**{section: SECTIONS[section](**table) for section, table in tables.items()})  # type: ignore[operator]
    _check(recipe)
    return recipe


def to_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Sections of plain values, tuples as lists: what JSON and TOML hold."""
    tables: dict[str, dict[str, Any]] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return tables


def shareable(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """``to_dict`` without the folders of this machine: what a model file may say of its training wherever it goes."""
    tables = to_dict(recipe)
    for section, name in (
        ("data", "path"),
        ("data", "cache"),
        ("split", "path"),
        ("model", "weights"),
        ("run", "init_from"),
    ):
        tables[section][name] = Path(tables[section][name]).name
    return tables


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML text; ``load_recipe`` reads it back to the same recipe."""
    lines = []
    for section, table in to_dict(recipe).items():
        lines.append(f"[{section}]")
        # JSON's texts, numbers, booleans and lists of these are TOML's.
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in table.items())
        lines.append("")
    return "\n".join(lines)


def option_types() -> dict[str, Any]:
    """Every "section.key" with its type."""
    return {
        f"{section}.{name}": kind
        for section, cls in SECTIONS.items()
        for name, kind in get_type_hints(cls).items()  # the factories are the classes
    }


def _names() -> str:
    return ", ".join(SECTIONS)


def _convert(key: str, value: Any, where: str) -> Any:
    kinds = option_types()
    if key not in kinds:
        section = key.partition(".")[0]
        near = [k for k in kinds if k.startswith(section + ".")]
        known = ", ".join(near) if near else f"sections {_names()}"
        raise DataError(f"{where}: there is no option {key}; known: {known}")
    kind = kinds[key]
    try:
        value = _typed(value, kind)
    except (TypeError, ValueError, OverflowError) as e:
        wanted = getattr(kind, "__name__", str(kind))
        raise DataError(f"{where}: {key}: wanted {wanted}, got {value!r}") from e
    if key in CHOICES and value not in CHOICES[key]:
        raise DataError(f"{where}: {key}: wanted one of {', '.join(CHOICES[key])}, got {value!r}")
    return value


def _typed(value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        parts = [p for p in value.split(",") if p] if isinstance(value, str) else list(value)
        return tuple(_typed(p, get_args(kind)[0]) for p in parts)
    if kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise ValueError(value)
        return words[str(value).lower()]
    if kind is int and isinstance(value, float) and value != int(value):
        raise ValueError(value)
    if kind is str and not isinstance(value, str):
        raise TypeError(value)
    return kind(value)


def _check(recipe: Recipe) -> None:
    for section, options in dataclasses.asdict(recipe).items():
        for name, value in options.items():
            check_range(f"{section}.{name}", value)
    method, split, optim, run = recipe.method, recipe.split, recipe.optim, recipe.run
    unknown = set(method.levels) - set(LEVELS)
    if unknown:
        raise DataError(f"method.levels: wanted some of {', '.join(LEVELS)}, got {', '.join(sorted(unknown))}")
    if run.stop > run.epochs:
        raise DataError(f"run.stop: wanted 0 to {run.epochs} (run.epochs), got {run.stop}")
    if len(run.input_sizes) not in (1, run.epochs):
        raise DataError(f"run.input_sizes: wanted one side or one per epoch ({run.epochs}), got {len(run.input_sizes)}")
    if not 1 <= method.k <= method.experts:
        raise DataError(f"method.k: wanted 1 to {method.experts} (method.experts), got {method.k}")
    if run.batch % optim.accumulate:
        raise DataError(f"optim.accumulate: wanted a divisor of run.batch ({run.batch}), got {optim.accumulate}")
    if method.name != "supervised" and run.batch_unlabelled % optim.accumulate:
        raise DataError("optim.accumulate: wanted a divisor of run.batch_unlabelled, got another number")
    if split.folds == 1:
        raise DataError("split.folds: wanted 2 or more, or 0 for none, got 1")
    if split.folds and not 0 <= split.fold < split.folds:
        raise DataError(f"split.fold: wanted 0 to {split.folds - 1}, got {split.fold}")
