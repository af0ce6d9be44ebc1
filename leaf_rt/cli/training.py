"""The commands `train`, `evaluate`, `prepare` and `merge`, and the options of a recipe for any command.

The options are built from the recipe schema when a command needs them, so that `leaf-rt --help` stays quick.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from leaf_rt.cli import choices
from leaf_rt.cli import options as opt
from leaf_rt.cli.streams import say
from leaf_rt.errors import BackendError, DataError, install_hint

if TYPE_CHECKING:
    from types import ModuleType

    from train.recipes.options import Option

_METAVARS = {int: "INT", float: "FLOAT", str: "TEXT"}
Overrides = Mapping[str, str]  # option ("section.key") to its text


class EvaluationSplit(StrEnum):
    """Images to evaluate on."""

    VALIDATION = "validation"
    TEST = "test"
    ALL = "all"


class Protocol(StrEnum):
    """Which pictures of a split count."""

    ALL = "all"
    MAJORITY = "majority"
    STRICT = "strict"


class Mean(StrEnum):
    """What a merged model averages."""

    LOGITS = "logits"
    WEIGHTS = "weights"


def _recipe_names(incomplete: str) -> list[str]:
    from train.recipes.loading import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        autocompletion=_recipe_names,
        help="Recipe: a TOML file or the name of one in the package.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def train(
    overrides: Overrides,
    recipe: RecipeName = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the run; runs/last by default.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="DIR", help="Continue the run in this folder.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show data, parameters, time and memory of the run.")
    ] = False,
    quiet: Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Train a model on your own faces or a public data set."""
    entry = _trainer()
    from leaf_rt.cli import training_output

    arguments = {"out": out, "resume": resume, "overrides": overrides, "progress": training_output.progress(quiet)}
    if dry_run:
        training_output.show_plan(entry.plan(recipe, **arguments))
    elif not entry.train(recipe, **arguments).finished:
        raise typer.Exit(130)


def evaluate(
    overrides: Overrides,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a run, a checkpoint, or an exported model.")],
    recipe: RecipeName = None,
    split: Annotated[
        EvaluationSplit,
        typer.Option(help="Images to evaluate on; validation: of a run, those that it held out if the data has none."),
    ] = EvaluationSplit.VALIDATION,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend for exported models.")] = "auto",
    flip: Annotated[
        bool,
        typer.Option("--flip/--no-flip", help="Average over mirror images (runs and checkpoints), as exports do."),
    ] = True,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="Pictures that count: all; majority of the votes, as in most published figures of FERPlus; strict "
            "majority. The last two need data with votes."
        ),
    ] = Protocol.ALL,
    degraded: Annotated[
        bool,
        typer.Option("--degraded", help="Measure every third picture clean, blurred, small, noisy, dark, covered."),
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png", help="Draw the reliability and the errors by coverage; with --degraded, the accuracies."
        ),
    ] = None,
    json: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Also write the result as JSON; - prints only the JSON.")
    ] = None,
    prior: Annotated[
        choices.PriorName, typer.Option("--prior", help="How frequent the classes are; for calibrated models.")
    ] = choices.PriorName.NATURAL,
    debug: opt.Debug = False,
) -> None:
    """Measure a trained run or a model file on labelled faces."""
    entry = _trainer()
    from leaf_rt.cli import training_output

    if json is not None:
        training_output.check_json_file(json)
    if degraded:
        measured = entry.evaluate_degraded(
            model,
            split=split.value,
            recipe=recipe,
            backend=backend,
            flip=flip,
            protocol=protocol.value,
            prior=prior.value,
            overrides=overrides,
            progress=training_output.progress(quiet=json == "-"),
        )
        training_output.show_degraded(measured, json, plot)
        return
    result = entry.evaluate(
        model,
        split=split.value,
        recipe=recipe,
        backend=backend,
        flip=flip,
        protocol=protocol.value,
        prior=prior.value,
        overrides=overrides,
        progress=training_output.progress(quiet=json == "-"),
    )
    training_output.show_evaluation(result, json, plot)


def prepare(
    overrides: Overrides,
    recipe: RecipeName = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the cache.")] = None,
    debug: opt.Debug = False,
) -> None:
    """Find, crop and cache the faces of a data set, and count them."""
    entry = _trainer()
    from leaf_rt.cli import training_output

    progress = training_output.progress(quiet=False)
    training_output.show_prepared(entry.prepare(recipe, out=out, overrides=overrides, progress=progress))


def merge(
    overrides: Overrides,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|RECIPE|bundled...",
            help="Folders of runs, checkpoints, recipes, which are trained first, or the bundled model.",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the merged model.")],
    shares: Annotated[
        str, typer.Option(metavar="A,B,...", help="Weight of each model, in proportion; equal by default.")
    ] = "",
    mean: Annotated[Mean, typer.Option(help="Average the logits or the weights of the models.")] = Mean.LOGITS,
    quiet: Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Merge several runs into one model."""
    try:
        weights = [float(share) for share in shares.split(",") if share]
    except ValueError as e:
        raise DataError(f"--shares {shares}: wanted one number per model, separated by commas") from e
    entry = _trainer()
    from leaf_rt.cli import training_output

    progress = training_output.progress(quiet)
    result = entry.merge(models, out=out, shares=weights, mean=mean.value, overrides=overrides, progress=progress)
    if not result.finished:
        raise typer.Exit(130)
    say(f"written: {result.checkpoint}", err=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "prepare": prepare,
    "merge": merge,
}


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for name, function in COMMANDS.items():
        add_recipe_command(app, name, function, panel="Models")


def add_recipe_command(app: typer.Typer, name: str, function: Callable[..., None], panel: str | None = None) -> None:
    """Add a command that takes all options of a recipe. Its options are built when they are first needed.

    Args:
        app: The program.
        name: Of the command.
        function: Its parameter ``overrides`` receives the given options of the recipe as texts, by "section.key". Its
            other parameters are those of a typer command.
        panel: Of the program's help.
    """

    class RecipeCommand(_LazyCommand):
        source = staticmethod(function)

    def placeholder() -> None:
        """Replaced when the options are built."""

    help_text = inspect.getdoc(function)
    app.command(name, cls=RecipeCommand, help=help_text, rich_help_panel=panel)(placeholder)


class _LazyCommand(TyperCommand):
    """Builds its options when they are first needed. The types of ``ctx`` depend on the version of typer."""

    source: Callable[..., None]
    _params: Any = None

    @property
    def params(self) -> Any:
        """The arguments and options."""
        if self._params is None:
            app = typer.Typer(add_completion=False)
            app.command()(with_recipe_options(self.source))
            command = typer.main.get_command(app)
            self._params, self.callback = command.params, command.callback
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        """Ignore those of the placeholder."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Accept the old form `leaf-rt train evaluate ...` for `leaf-rt evaluate ...`."""
        if info_name == "train" and parent is not None and args[:1] and args[0] in COMMANDS:
            command = parent.command.get_command(parent, args[0])
            return command.make_context(args[0], args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def with_recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter ``overrides`` of a typer command by all options of a recipe."""
    from train.recipes.schema import OPTIONS

    hints = get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "overrides"
    ]
    keys: dict[str, str] = {}  # name of a parameter to the option that it sets

    def add(name: str, key: str, info: Any) -> None:
        keys[name] = key
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, info]))

    for option in OPTIONS.values():
        if option.short:
            add(
                f"{option.section}__{option.name}__short",
                option.key,
                _typer_option(option, option.short, "main options"),
            )
    for option in OPTIONS.values():
        add(f"{option.section}__{option.name}", option.key, _typer_option(option, option.key, option.section))
        if option.old:
            old = typer.Option(*(f"--{name}" for name in option.old), hidden=True)
            add(f"{option.section}__{option.name}__old", option.key, old)

    def run(**values: Any) -> None:
        overrides: dict[str, str] = {}
        for name, key in keys.items():
            value = values.pop(name)
            if value is not None and overrides.setdefault(key, value) != value:
                raise typer.BadParameter("is given twice, with different values", param_hint=f"--{key}")
        command(overrides=overrides, **values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _typer_option(option: Option, name: str, panel: str) -> Any:
    """The command-line option. It takes text, because the recipe checks all values, also those of files."""
    words = option.choices or (("true", "false") if option.type is bool else ())
    metavar = "NAME" if len(words) > 2 else "|".join(words) or _METAVARS[option.type]
    limits = ", ".join(words) if len(words) > 2 else option.bounds
    return typer.Option(
        f"--{name}",
        metavar=f"{metavar},..." if option.many else metavar,
        help=f"{option.help} ({limits})" if limits else option.help,
        rich_help_panel=f"Recipe: {panel}",
        autocompletion=(lambda incomplete: [w for w in words if w.startswith(incomplete)]) if words else None,
    )


def _trainer() -> ModuleType:
    """The module ``train.entry``.

    Raises:
        BackendError: A package that training needs is not installed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        from train import entry
    except ModuleNotFoundError as e:
        hint = install_hint("train")
        if e.name == "torch":
            hint += ", and before that, without an NVIDIA GPU, the CPU build of PyTorch: see docs/training.md"
        raise BackendError(f"training needs {e.name}, which is not installed; {hint}") from e
    return entry
