"""Opens the sources of a run, all at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leaf_rt.errors import LeafError
from leaf_rt.sources.base import Source, Target, network_name, redact
from leaf_rt.sources.opening import is_camera
from leaf_rt.stream.capture import Opener, is_live
from leaf_rt.types import SourceInfo

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
        elif isinstance(error, LeafError) and target.options.wait and is_live(target):
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
    if not is_live(target):
        path = Path(target.target)
        live = target.options.realtime
        return SourceInfo(target.options.name or path.name, target.target, "file", 0, 0, is_live=live, path=path)
    address = redact(target.target)
    if is_camera(target.target):
        return SourceInfo(target.options.name or f"camera {address}", address, "camera", 0, 0, is_live=True)
    return SourceInfo(target.options.name or network_name(address), address, "network", 0, 0, is_live=True)


def unique_name(name: str, taken: Sequence[str]) -> str:
    """The name, with a number if another source of the run has it."""
    candidates = (name if n == 1 else f"{name} #{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)
