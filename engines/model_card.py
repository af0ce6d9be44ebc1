"""Measures a model and writes the figures into its model card: ``make model-card``.

Everything between two marks of the card is replaced; what stands outside is written by people. Each figure comes with
the number of pictures and the command that gives it again. Knows evaluations and Markdown; must not know how models
are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leaf_rt.backends.base import ProgressCallback, silent
from leaf_rt.errors import ModelError
from leaf_rt.models.calibration import Calibration
from leaf_rt.models.spec import load_spec
from leaf_rt.system.files import write_whole
from train.recipes.loading import load_recipe
from train.reports.degraded import DegradedResult, evaluate_degraded
from train.reports.evaluation import PROTOCOL_RULES, EvaluationResult, evaluate
from train.reports.honesty import plot_honesty

BEGIN, END = "<!-- measured: made by `make model-card` -->", "<!-- /measured -->"
FERPLUS, WEBFACES = "../shared/data/ferplus", "../shared/data/webfaces"  # in the commands of the card
# The classes that have enough pictures of the other source, with labels that look right.
COMMON = ("neutral", "happiness", "surprise", "sadness", "anger")


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of a card.

    Attributes:
        validation: FERPlus, validation, every labelled picture.
        test: FERPlus, test, by protocol.
        balanced: The same as ``test["all"]`` with ``--prior balanced``.
        degraded: Every third test picture, degraded.
        others: Pictures of another source; None if there are none here.
    """

    validation: EvaluationResult
    test: dict[str, EvaluationResult]
    balanced: EvaluationResult
    degraded: DegradedResult
    others: EvaluationResult | None


def write_card(
    model: Path, ferplus: Path, others: Path | None, picture: Path, notify: ProgressCallback = silent
) -> Path:
    """Measure a model, and write card and diagram.

    Args:
        model: The fp32 .onnx file; the card has its name and the suffix .md.
        ferplus: The folder of FERPlus.
        others: A list of labelled pictures of another source, or its folder; None leaves them out.
        picture: The diagram, an .svg file.
        notify: Called with one sentence about each step.

    Returns:
        The card.

    Raises:
        LeafError: Model or data cannot be read, or the card has no marks.
    """
    card = model.with_suffix(".md")
    text = card.read_text(encoding="utf-8")
    _split(text, card)  # fail before the work
    measured = measure_all(model, ferplus, others, notify)
    diagram, text = plot_honesty(measured.test["all"], _curves(measured), "svg"), with_figures(card, measured, picture)
    write_whole(picture, lambda f: f.write(diagram), parents=True)
    write_whole(card, lambda f: f.write(text.encode()))
    return card


def with_figures(card: Path, measured: Measured, picture: Path) -> str:
    """The text of a card, with the figures between its marks replaced.

    Args:
        card: The card, beside its model.
        measured: The figures.
        picture: The diagram.

    Raises:
        ModelError: The card has no marks.
    """
    before, after = _split(card.read_text(encoding="utf-8"), card)
    block = "\n".join([BEGIN, *_lines(card.with_suffix(".onnx"), measured, picture), END])
    return f"{before}{block}{after}"


def measure_all(model: Path, ferplus: Path, others: Path | None, notify: ProgressCallback) -> Measured:
    """Run all evaluations. The test split is only measured here, nothing is chosen by it."""
    data = load_recipe(None, {"data.layout": "ferplus", "data.path": str(ferplus)})
    notify("FERPlus, validation")
    validation = evaluate(model, data, "validation")
    test = {}
    for protocol in PROTOCOL_RULES:
        notify(f"FERPlus, test, protocol {protocol}")
        test[protocol] = evaluate(model, data, "test", protocol=protocol)
    notify("FERPlus, test, balanced prior")
    balanced = evaluate(model, data, "test", prior="balanced")
    notify("FERPlus, test, degraded")
    degraded = evaluate_degraded(model, data, "test")
    elsewhere = None
    if others is not None:
        notify(f"pictures of {others}")
        listed = load_recipe(None, {"data.layout": "list", "data.path": str(others)})
        elsewhere = evaluate(model, listed, "all")
    return Measured(validation, test, balanced, degraded, elsewhere)


def _curves(measured: Measured) -> dict[str, EvaluationResult]:
    others = {} if measured.others is None else {"other pictures": measured.others}
    return {"FERPlus, balanced prior": measured.balanced, **others}


def _split(text: str, card: Path) -> tuple[str, str]:
    """What stands before and after the marks.

    Raises:
        ModelError: There are none.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ModelError(f"{card}: has no lines {BEGIN} and {END}; add them; the figures go between them")
    return before, after


def _lines(model: Path, measured: Measured, picture: Path) -> Iterator[str]:
    """The lines of the measured part."""
    calibration = Calibration.of(load_spec(model))
    command = f"    leaf-rt evaluate leaf_rt/models/{model.name} --data {FERPLUS} --layout ferplus --split test"
    yield from ("## Accuracy", "", "Most-voted class, crops and ONNX file as the runtime uses them:", "")
    yield from ("| split | pictures | n | accuracy | balanced accuracy |", "|---|---|---|---|---|")
    rows = [("validation", "all", measured.validation), *(("test", name, r) for name, r in measured.test.items())]
    for split, protocol, result in rows:
        accuracy, balanced_accuracy = _share(result.accuracy, 2), _share(result.balanced_accuracy, 2)
        yield f"| {split} | {protocol} | {result.n:,} | {accuracy} | {balanced_accuracy} |"
    yield ""
    yield from (f"- {name}: {rule}" for name, rule in PROTOCOL_RULES.items())
    yield from (
        "",
        f"{command} --protocol majority",
        "",
        "Test split, all; rows are the label, columns the answer:",
        "",
    )
    yield from _confusion(measured.test["all"])
    yield from ("", "## Can the shares be trusted?", "")
    yield (
        f"The shares are calibrated on the validation split (temperature {calibration.temperature:.2f}, more for poor "
        f'pictures). An answer below {calibration.uncertain_below:g} is "uncertain".'
    )
    link = f"../../docs/images/{picture.name}"
    yield from ("", f"![Reliability diagram and risk-coverage curve]({link})", "")
    yield '| pictures | n | accuracy | calibration error | "uncertain": wrong answers | right answers |'
    yield "|---|---|---|---|---|---|"
    honest = [("FERPlus, validation", measured.validation), ("FERPlus, test", measured.test["all"])]
    if measured.others is not None:
        honest.append(("faces of another source", measured.others))
    for name, result in honest:
        yield (
            f"| {name} | {result.n:,} | {_share(result.accuracy)} | {_share(result.calibration_error)} | "
            f"{_share(result.flagged_wrong)} | {_share(result.flagged_right)} |"
        )
    yield from ("", f"{command} --plot honesty.png")
    if measured.others is not None:
        recall = [measured.others.recall.get(name) for name in COMMON]
        known = [share for share in recall if share is not None]
        yield f"    leaf-rt evaluate leaf_rt/models/{model.name} --data {WEBFACES} --layout list --split all"
        yield from ("", "The labels of that source are noisy. " + _recalls(measured.others))
        if known:
            yield f"Mean recall of {', '.join(COMMON)}: {_share(sum(known) / len(known))}."
    yield from ("", "## Rare classes: `--prior balanced`", "")
    natural, balanced = measured.test["all"], measured.balanced
    yield "| prior | accuracy | balanced accuracy | recall of disgust, fear, contempt |"
    yield "|---|---|---|---|"
    for name, result in (("natural", natural), ("balanced", balanced)):
        rare = ", ".join(_share(result.recall.get(label)) for label in ("disgust", "fear", "contempt"))
        yield f"| {name} | {_share(result.accuracy)} | {_share(result.balanced_accuracy)} | {rare} |"
    yield from ("", f"{command} --prior balanced", "", "## Degraded pictures", "")
    degraded = measured.degraded
    yield f"Every third test picture, n = {degraded.n:,}; `docs/accuracy.md` says how they are degraded:"
    yield from ("", '| picture | accuracy | calibration error | "uncertain": wrong answers | right answers |')
    yield "|---|---|---|---|---|"
    for row in degraded.rows:
        yield (
            f"| {row.name} | {_share(row.accuracy)} | {_share(row.calibration_error)} | {_share(row.flagged_wrong)} | "
            f"{_share(row.flagged_right)} |"
        )
    yield from ("", f"{command} --degraded")


def _confusion(result: EvaluationResult) -> Iterator[str]:
    yield f"| | {' | '.join(result.labels)} | recall |"
    yield "|---|" + "---|" * (len(result.labels) + 1)
    for name, row in zip(result.labels, result.confusion, strict=True):
        yield f"| {name} | {' | '.join(map(str, row))} | {_share(result.recall[name])} |"


def _recalls(result: EvaluationResult) -> str:
    parts = (f"{name} {_share(share)}" for name, share in result.recall.items() if share is not None)
    return f"Recall: {', '.join(parts)}."


def _share(value: float | None, decimals: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{decimals}f} %"
