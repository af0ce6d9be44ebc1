"""The files that all sources of a command share, and when they get their final names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from leaf_rt.cli.reporter import Reporter
from leaf_rt.system.result_file import ResultFiles


@dataclass(slots=True)
class SharedFiles:
    """Open results of all sources.

    Attributes:
        results: The files.
        whole: Set this to False if a source was not read to its end, or none could be read.
    """

    results: ResultFiles = field(default_factory=ResultFiles)
    whole: bool = True


@contextlib.contextmanager
def shared_files(reporter: Reporter, follow: bool) -> Iterator[SharedFiles]:
    """At the end give the files their final names, if they are whole, and report those that are not.

    Args:
        reporter: Reports what is incomplete.
        follow: Whether a source has no end. Then whatever ends the command completes the files.
    """
    files = SharedFiles()
    try:
        yield files
    except BaseException:
        files.whole = False
        raise
    finally:
        finished = files.results.finish(files.whole or follow)
        for error in finished.errors:
            reporter.error(error)
        reporter.incomplete("", list(finished.partial.values()))
