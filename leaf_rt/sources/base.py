"""The interface of a source of frames, and its options.

Must not know any decoder, thread or clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from leaf_rt.sources.address import Address, parse
from leaf_rt.types import Frame, SourceInfo


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read.

    Attributes:
        name: Name in records and messages; None makes one from the target.
        stride: Read every n-th frame.
        start: Position in a file at which to start, s.
        end: Position in a file at which to stop, s; None reads to its end.
        max_fps: Largest number of frames to read per second of media time; None reads all.
        loop: Start a file again at its end, without limit.
        realtime: Replay a file as if it were live.
        redirects: Whether a server may lead to another address, by a redirect or a playlist. Without it, RTSP uses TCP.
        rtsp_transport: "tcp" or "udp".
        open_timeout: s to wait until a network source answers.
        read_timeout: s to wait for the next bytes of a network source.
        stall_timeout: s without a frame after which a live source counts as lost.
        wait: Keep trying if a live source does not open at the start.
        max_reconnects: Attempts in a row to reopen a lost live source; None sets no limit.
        width: Requested width of a camera, px.
        height: Requested height of a camera, px.
        fps: Requested frames per second of a camera.
        mirror: Swap left and right, like a mirror.
        decoder_threads: Threads that decode a file; 0 lets FFmpeg choose.
        decode: What decodes files and network streams: "cpu"; "nvdec", NVIDIA's decoder; or "auto", which is NVDEC
            where it can be used, and else the CPU.

    Raises:
        ValueError: A value is out of range.
    """

    name: str | None = None
    stride: int = 1
    start: float = 0.0
    end: float | None = None
    max_fps: float | None = None
    loop: bool = False
    realtime: bool = False
    redirects: bool = True
    rtsp_transport: str = "tcp"
    open_timeout: float = 5.0
    read_timeout: float = 5.0
    stall_timeout: float = 10.0
    wait: bool = False
    max_reconnects: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mirror: bool = False
    decoder_threads: int = 0
    decode: str = "cpu"

    def __post_init__(self) -> None:
        def invalid(name: str, expected: str) -> ValueError:
            return ValueError(f"SourceOptions.{name}: wanted {expected}, got {getattr(self, name)!r}")

        if self.stride < 1:
            raise invalid("stride", "an integer of at least 1")
        if not self.start >= 0:
            raise invalid("start", "seconds, at least 0")
        if self.end is not None and not self.end > self.start:
            raise invalid("end", f"seconds after start ({self.start:g})")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise invalid("rtsp_transport", "'tcp' or 'udp'")
        if self.decode not in ("cpu", "auto", "nvdec"):
            raise invalid("decode", "'cpu', 'auto' or 'nvdec'")
        if self.max_reconnects is not None and self.max_reconnects < 0:
            raise invalid("max_reconnects", "an integer of at least 0, or None for no limit")
        for name in ("max_fps", "width", "height", "fps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise invalid(name, "a number above 0")
        for name in ("open_timeout", "read_timeout", "stall_timeout"):
            if not getattr(self, name) > 0:
                raise invalid(name, "seconds above 0")


@dataclass(frozen=True, slots=True)
class Target:
    """An address and its options. ``repr`` does not show the address, which may contain credentials.

    Attributes:
        target: The address as the decoder opens it; a file URL becomes a path.
        options: How to read it.
    """

    target: str = field(repr=False)
    options: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.address.target)

    @property
    def address(self) -> Address:
        """What the address is."""
        return parse(self.target)


class Source(Protocol):
    """An open source. Iterate over it once, in one thread.

    Timestamps of network sources come from the stream and may jump; ``leaf_rt.stream`` corrects them.

    Attributes:
        info: Its properties.
        warnings: Problems that did not end it, one sentence each.
        decode_time: s that the decoder needed for the newest frame, without the conversion of its picture; None if only
            the time of ``next`` can be measured.
        damaged: Damaged packets and pictures so far. The frames of damaged pictures are given all the same.
    """

    info: SourceInfo
    warnings: list[str]
    decode_time: float | None
    damaged: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            LeafError: The source failed before its end.
        """
        ...

    def close(self) -> None:
        """Free the decoder. Only the iterating thread may call this. Safe to call twice."""
        ...


class Skip(IntEnum):
    """Pictures that are not decoded."""

    NONE = 0
    UNREFERENCED = 1  # those that no other picture needs
    TO_KEY = 2  # all up to the next key frame


class Decoding:
    """How a source is to be decoded, and how much it has left out. Shared with the thread that reads the source.

    Attributes:
        skip: What to leave out. After ``TO_KEY``, the source itself goes back to ``UNREFERENCED`` at the key frame.
        skipped: Pictures left out so far.
        keys: Key frames so far.
        since_key: Pictures since the newest of them, which counts too, or since the start.
        key_distance: Pictures from one key frame to the next, the longest so far; 0 until it is known.
    """

    def __init__(self) -> None:
        self.skip = Skip.NONE
        self.skipped = 0
        self.keys = self.since_key = self.key_distance = 0


@runtime_checkable
class Decodes(Protocol):
    """A source that can leave out pictures."""

    decoding: Decoding


class Selector:
    """Selects frames of a source by stride and maximum rate."""

    def __init__(self, options: SourceOptions) -> None:
        self._stride = options.stride
        self._period = 1.0 / options.max_fps if options.max_fps is not None else 0.0
        self._due = float("-inf")
        self._last = -1  # index of the last frame, or the one before the first

    def selects(self, index: int, timestamp: float) -> bool:
        """Whether to read the frame with this index and media time, s. Call it once per frame, in order.

        Frames may be missing. Where the n-th one is, the next one takes its place.
        """
        passed = index % self._stride == 0 or (self._last >= 0 and index // self._stride > self._last // self._stride)
        self._last = index
        if not passed or timestamp < self._due - 1e-6:
            return False
        if self._period > 0:
            # At fixed intervals, so that a limit of 20 frames/s on a 30 frames/s source gives 20 and not 15.
            late = timestamp - self._due >= self._period
            self._due = (timestamp if late else self._due) + self._period
        return True
