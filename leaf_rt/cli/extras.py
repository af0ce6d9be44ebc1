"""Imports of packages that only an extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leaf_rt.errors import BackendError, NotFound, install_hint


@contextmanager
def needs_extra(command: str, extra: str = "train") -> Iterator[None]:
    """Turn a missing package into one sentence; the body should contain imports only.

    Args:
        command: The command that needs the package, for the message.
        extra: The extra that installs it.

    Raises:
        BackendError: A package is not installed.
        NotFound: A package of this project is missing.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        package = (e.name or "").partition(".")[0]
        if package in ("leaf_rt", "train", "engines"):
            raise NotFound(f"{command}: this installation lacks {package}; install leaf-rt again") from e
        raise BackendError(f"{command}: {package} is not installed; {install_hint(extra)}") from e
