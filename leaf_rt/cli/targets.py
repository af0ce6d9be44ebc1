"""The sources that a command line names: what they are called, and which are no sources but results of ours.

Knows names and addresses; opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from leaf_rt.sinks.paths import is_result
from leaf_rt.sources.base import Target, is_url
from leaf_rt.text import readable

_NAMED = 3  # so many are told by name


def distinct(targets: Sequence[Target]) -> list[Target]:
    """The same targets, files named as text, by the whole path where two have the same name."""
    names = [target.options.name or Path(target.target).name for target in targets]
    result: list[Target] = []
    for target, name in zip(targets, names, strict=True):
        text = readable(name if names.count(name) == 1 else target.target)
        as_it_is = target.options.name or "://" in target.target or text == name
        result.append(target if as_it_is else replace(target, options=replace(target.options, name=text)))
    return result


def without_results(targets: Sequence[str]) -> tuple[list[str], str]:
    """What remains of ``*.mp4`` without the results of an earlier run, and a sentence about those; "" if none.

    Results alone are what is wanted, and stay.
    """
    results = [target for target in targets if not is_url(target) and is_result(Path(target))]
    kept = [target for target in targets if target not in results]
    if not results or not kept:
        return list(targets), ""
    what = "result of an earlier run was" if len(results) == 1 else "results of an earlier run were"
    return kept, f"{len(results)} {what} left out: {some(results)}"


def some(names: Sequence[str]) -> str:
    """The names, of many the first ones and how many more."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def files_among(targets: Sequence[str]) -> list[Path]:
    """The files among the targets, by their paths; whether they exist is not asked."""
    paths = (target.removeprefix("file://") for target in targets)
    return [Path(path) for path in paths if not is_url(path)]
