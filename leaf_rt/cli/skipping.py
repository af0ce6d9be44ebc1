"""Skips the sources that have all their results, for ``--skip-existing``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from leaf_rt.cli.targets import shortened
from leaf_rt.errors import OutputError
from leaf_rt.sinks.config import OutputConfig, SourceOutputs
from leaf_rt.sinks.paths import OutputPaths
from leaf_rt.system.result_file import remove_partial
from leaf_rt.text import counted
from leaf_rt.types import SourceInfo

_Item = TypeVar("_Item")


def without_finished(
    items: Sequence[_Item], infos: Iterable[tuple[_Item, SourceInfo]], outputs: OutputConfig, suffix: str = ".mp4"
) -> tuple[list[_Item], str]:
    """Leave out the sources of which every result has its final name. Partial results of them are removed.

    Args:
        items: The sources of a command.
        infos: The files among them, with their descriptions, in the same order.
        outputs: What is written.
        suffix: Suffix of the annotated videos or pictures.

    Returns:
        The sources that are left, and a sentence about the others, "" if there are none.

    Raises:
        OutputError: Two sources have the same result name. The number that tells their results apart depends on the
            other sources of the command, so it does not say which of them is finished.
    """
    taken: dict[Path, str] = {}
    finished: list[SourceInfo] = []
    done: list[_Item] = []
    for item, info in infos:
        results = _results(outputs.for_source(info, OutputPaths(), suffix))
        for path in results:
            if path in taken:
                raise OutputError(
                    f"--skip-existing: {taken[path]} and {info.target} would have the same result {path.name}; name "
                    "the folder that holds both, or choose another --out for each"
                )
            taken[path] = info.target
        if results and all(path.is_file() for path in results):
            finished.append(info)
            done.append(item)
            for path in results:
                remove_partial(path)
    if not finished:
        return list(items), ""
    names = shortened([info.name for info in finished])
    own = "has all its" if len(finished) == 1 else "have all their"
    return (
        [item for item in items if not any(item is other for other in done)],
        f"skipped {counted(len(finished), 'file')} that {own} results: {names}",
    )


def _results(files: SourceOutputs) -> list[Path]:
    values = (getattr(files, field.name) for field in fields(files))
    return [value for value in values if value is not None]
