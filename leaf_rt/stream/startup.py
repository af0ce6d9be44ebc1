"""Opens the sources of a run, all at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leaf_rt.errors import LeafError
from leaf_rt.sources.base import Source, Target
from leaf_rt.stream.capture import Opener
from leaf_rt.types import Kind, SourceInfo

_MAX_THREADS = 16


def open_targets(targets: Sequence[Target], opener: Opener) -> list[Source | LeafError]:
    """Open every target.

    Returns:
        For each target the open source, or the error of a live source that may be opened later.

    Raises:
        LeafError: A target did not open and must not wait. If several did not, this is the first in their order.
    """
    with ThreadPoolExecutor(min(max(len(targets), 1), _MAX_THREADS), "open") as pool:
        futures = [pool.submit(opener, target.target, target.options) for target in targets]
    opened: list[Source | LeafError] = []
    fatal: list[BaseException] = []
    for target, future in zip(targets, futures, strict=True):
        error = future.exception()
        if error is None:
            opened.append(future.result())
        elif isinstance(error, LeafError) and target.options.wait and target.address.is_live:
            opened.append(error)
        else:
            fatal.append(error)
    if fatal:
        for source in opened:
            if not isinstance(source, LeafError):
                with contextlib.suppress(LeafError, OSError):  # the error from opening matters more
                    source.close()
        raise fatal[0]
    return opened


def first_info(target: Target, opened: Source | LeafError | None) -> SourceInfo:
    """What is known of a source at the start, even if it is not open yet."""
    if opened is not None and not isinstance(opened, LeafError):
        return opened.info
    address = target.address
    name = target.options.name or address.name
    if not address.is_live:
        path = Path(target.target)
        return SourceInfo(name, address.shown, "file", 0, 0, is_live=target.options.realtime, path=path)
    kind: Kind = "camera" if address.kind == "camera" else "network"
    return SourceInfo(name, address.shown, kind, 0, 0, is_live=True)


def unique_name(name: str, taken: Sequence[str]) -> str:
    """The name, with a number if another source of the run has it."""
    candidates = (name if n == 1 else f"{name} #{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)
