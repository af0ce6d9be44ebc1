"""The sources on a command line: their names, and results of earlier runs among them. Opens nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from leaf_rt.sinks.paths import is_result
from leaf_rt.sources.address import parse
from leaf_rt.sources.base import Target
from leaf_rt.sources.picture import SUFFIXES as PICTURES
from leaf_rt.text import readable
from leaf_rt.types import SourceInfo

_MAX_NAMES = 3  # in a message


def with_distinct_names(targets: Sequence[Target]) -> list[Target]:
    """Give every file a name that can be printed. Files of the same name get their whole path as a name."""
    names = [target.options.name or Path(target.target).name for target in targets]
    result: list[Target] = []
    for target, name in zip(targets, names, strict=True):
        text = readable(name if names.count(name) == 1 else target.address.shown)
        keep = target.options.name or target.address.kind != "file" or text == name
        result.append(target if keep else replace(target, options=replace(target.options, name=text)))
    return result


def without_results(targets: Sequence[str]) -> tuple[list[str], str]:
    """Remove the results of earlier runs, which a pattern such as ``*.mp4`` includes.

    Returns:
        The other targets and a sentence about the removed ones, "" if there are none. If all targets are results,
        all of them stay.
    """
    results = [target for target in targets if parse(target).kind == "file" and is_result(Path(parse(target).target))]
    kept = [target for target in targets if target not in results]
    if not results or not kept:
        return list(targets), ""
    noun = "result" if len(results) == 1 else "results"
    return kept, f"skipped {len(results)} {noun} of an earlier run: {shortened(results)}"


def shortened(names: Sequence[str]) -> str:
    """List the first names and the number of the others."""
    return ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")


def has_no_end(target: Target) -> bool:
    """Whether a target is a camera or a stream, or a file that is read like one."""
    return target.address.is_live or target.options.realtime or target.options.loop


def files_among(targets: Sequence[Target]) -> list[Path]:
    """The paths of the files among the targets, whether they exist or not."""
    return [Path(target.target) for target in targets if target.address.kind == "file"]


def expected_sources(targets: Sequence[Target], parallel: bool) -> Iterator[tuple[Target, SourceInfo]]:
    """Describe the files among the targets before they are opened, so that their results get the same names.

    Args:
        targets: All targets, in order.
        parallel: Whether they run in parallel. Sources of one run are numbered if they have the same name.

    Yields:
        Each file as target and description.
    """
    names: set[str] = set()
    for target in targets:
        path, options = Path(target.target), target.options
        name = first = options.name or path.name
        for number in itertools.count(2):
            if not parallel or name not in names:
                break
            name = f"{first} #{number}"
        names.add(name)
        if target.address.kind != "file":
            continue
        if path.suffix.lower() in PICTURES:
            yield target, SourceInfo(name, str(path), "picture", 0, 0, path=path)
        else:
            live, endless = options.realtime, options.loop
            yield target, SourceInfo(name, str(path), "file", 0, 0, is_live=live, path=path, endless=endless)
