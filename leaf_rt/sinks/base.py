"""What a sink is.

Knows the data types; must not know threads, clocks or any file format.
"""

from __future__ import annotations

from typing import Protocol

from leaf_rt.sources.base import SourceInfo
from leaf_rt.types import Estimates, Frame


class Sink(Protocol):
    """Takes finished frames, in order per source, from one thread.

    Constructors create what they write to, so that a folder that is missing or protected shows before the run.

    Attributes:
        name: For messages, such as the path.
        wants_image: False lets the caller pass an empty (0, 0, 3) picture in ``frame``.
    """

    name: str
    wants_image: bool

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Take one frame.

        Args:
            source: Where it came from.
            frame: The frame.
            estimates: Who shows what in it.
            latency: s from capture (live) or from the start of its processing (files) until the estimates stood.

        Raises:
            OutputError, NoPermission: It cannot be written; what was written before stays valid.
        """
        ...

    def close(self) -> None:
        """Finish the output, so that it is complete; may be called twice.

        Raises:
            OutputError: The last of it cannot be written.
        """
        ...
