"""The protocol that all sinks implement. Does not know threads, clocks or file formats."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from leaf_rt.types import Estimates, Frame, SourceInfo


class Sink(Protocol):
    """Receives finished frames from one thread, in order for each source.

    The constructor creates the output, so that a missing or protected folder is reported before the run starts.

    Attributes:
        name: Name for messages, such as the path.
        wants_image: If False, the caller may pass frames with an empty image (0, 0, 3).
    """

    name: str
    wants_image: bool

    def write(self, source: SourceInfo, frame: Frame, estimates: Estimates, latency: float) -> None:
        """Write one frame.

        Args:
            source: The source of the frame.
            frame: The frame.
            estimates: All faces of the frame.
            latency: Seconds from capture (live source) or from the start of processing (file) to the estimates.

        Raises:
            OutputError, NoPermission: It cannot be written. What was written before stays valid.
        """
        ...

    def close(self) -> None:
        """Complete and close the output. May be called twice.

        Raises:
            OutputError: The rest cannot be written.
        """
        ...


@runtime_checkable
class WatchesSources(Protocol):
    """A sink that also wants to know when a source shows nothing any more."""

    def source_gone(self, source: SourceInfo) -> None:
        """Note that a source was lost or has ended. After a reconnect its frames are written again.

        Args:
            source: The source.

        Raises:
            OutputError, NoPermission: It cannot be written. What was written before stays valid.
        """
        ...
