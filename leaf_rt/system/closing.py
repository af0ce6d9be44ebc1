"""A mixin for classes with a ``close`` method. Imports nothing of leaf-rt."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Makes a class with ``close`` a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish writing and free resources. May be called twice."""
