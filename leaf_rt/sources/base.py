"""What a source of frames is, and what may be asked of one.

Knows names, options and addresses; must not know any decoder, thread or clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from leaf_rt.types import Frame

Kind = Literal["file", "picture", "camera", "network"]
_SECRET = re.compile(r"pass|pwd|token|secret|auth|key|sig|user|login|cred", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source once it is open.

    Attributes:
        name: For records, logs and windows; free of credentials.
        target: The address as it was given, free of credentials.
        kind: "file", "picture", "camera" or "network".
        width: Of the first frame, as shown (after rotation), px.
        height: Of the first frame, as shown, px.
        fps: Frames per second that the source promises; None where it promises nothing.
        frame_count: Frames that will come, as far as the file says; None where nobody knows.
        duration: s of media time that will be read; None where nobody knows.
        is_live: The newest frame counts and older ones are dropped; otherwise every frame comes, in order.
        decoder: What decodes it, for people.
        has_audio: Whether sound goes with the pictures.
        path: The file, where there is one.
        endless: A file that begins again at its end.
    """

    name: str
    target: str
    kind: Kind
    width: int
    height: int
    fps: float | None = None
    frame_count: int | None = None
    duration: float | None = None
    is_live: bool = False
    decoder: str = ""
    has_audio: bool = False
    path: Path | None = None
    endless: bool = False

    @property
    def has_end(self) -> bool:
        """Whether it comes to an end by itself, so that its results are complete one day."""
        return not (self.is_live or self.endless)

    @property
    def reconnects(self) -> bool:
        """Whether its end is a loss, after which it is opened again: a camera or a live stream, never a file."""
        return self.is_live and self.kind in ("camera", "network")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What may be asked of a source.

    Attributes:
        name: Name in records and messages; None takes one from the target.
        stride: Every how manieth frame is taken.
        start: s into a file at which to begin.
        end: s into a file at which to stop; None reads to its end.
        max_fps: Frames per second of media time to take at most.
        loop: Begin a file again at its end, for ever.
        realtime: Replay a file as if it were live.
        rtsp_transport: "tcp" or "udp".
        open_timeout: s to wait for a network source to answer.
        read_timeout: s to wait for its next bytes.
        stall_timeout: s without a frame after which a live source counts as lost.
        wait: Keep trying where the first open of a live source fails.
        max_reconnects: How often a lost live source is tried again in a row; None tries for ever.
        width: BackendConfig of a camera, px.
        height: BackendConfig of a camera, px.
        fps: BackendConfig of a camera.
        mirror: Swap left and right, as people know themselves.
    """

    name: str | None = None
    stride: int = 1
    start: float = 0.0
    end: float | None = None
    max_fps: float | None = None
    loop: bool = False
    realtime: bool = False
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

    def __post_init__(self) -> None:
        def wrong(name: str, wanted: str) -> ValueError:
            return ValueError(f"SourceOptions.{name}: wanted {wanted}, got {getattr(self, name)!r}")

        if self.stride < 1:
            raise wrong("stride", "a whole number from 1")
        if not self.start >= 0:
            raise wrong("start", "seconds from 0")
        if self.end is not None and not self.end > self.start:
            raise wrong("end", f"seconds after start ({self.start:g})")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise wrong("rtsp_transport", "'tcp' or 'udp'")
        if self.max_reconnects is not None and self.max_reconnects < 0:
            raise wrong("max_reconnects", "a whole number from 0, or None for no limit")
        for name in ("max_fps", "width", "height", "fps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise wrong(name, "a number above 0")
        for name in ("open_timeout", "read_timeout", "stall_timeout"):
            if not getattr(self, name) > 0:
                raise wrong(name, "seconds above 0")


@dataclass(frozen=True, slots=True)
class Target:
    """An address and what is asked of it; ``repr`` shows no credentials."""

    target: str = field(repr=False)
    options: SourceOptions = field(default_factory=SourceOptions)


class Source(Protocol):
    """An open source: iterate over it once, in one thread.

    Timestamps of network sources are what the stream says and may jump; ``leaf_rt.stream`` straightens them.

    Attributes:
        info: What is known of it.
        warnings: What went wrong without ending the run, a sentence each.
        decode_time: s that the newest frame took to decode; None where asking for it is all there is to measure.
    """

    info: SourceInfo
    warnings: list[str]
    decode_time: float | None

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            LeafError: The source failed in mid-run.
        """
        ...

    def close(self) -> None:
        """Free the decoder; may be called twice, by the iterating thread alone."""
        ...


class Selector:
    """Chooses which frames of a source are taken, by stride and by greatest rate."""

    def __init__(self, options: SourceOptions) -> None:
        self._stride = options.stride
        self._period = 1.0 / options.max_fps if options.max_fps is not None else 0.0
        self._due = float("-inf")

    def wants(self, index: int, timestamp: float) -> bool:
        """Whether the frame of this number and media time (s) is taken; ask once per frame, in order."""
        if index % self._stride or timestamp < self._due - 1e-6:
            return False
        if self._period > 0:
            # On a fixed beat, so that 30 frames/s thinned to 20 gives 20 and not 15.
            late = timestamp - self._due >= self._period
            self._due = (timestamp if late else self._due) + self._period
        return True


def is_url(target: str) -> bool:
    """Whether the target names a network source."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", target) is not None


def redact(target: str) -> str:
    """The target without user, password and whatever in its query looks like a secret; other text as it is.

    A password may hold characters that belong in no address, such as "/", "?", "#" and "@". So where there can be one,
    all up to the last "@" goes, rather than too little.
    """
    start = re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/+", target)
    if start is None:
        return target
    scheme, rest = start.group().strip(), target[start.end() :]
    if re.match(r"[^/?#]*[:@]", rest):
        rest = rest.rpartition("@")[2]
    if not is_url(scheme):  # "rtsp:/..." is a slip of the pen, and is read as a file name
        return scheme + rest
    try:
        parts = urlsplit(scheme + rest)
        query = [(k, "***" if _SECRET.search(k) else v) for k, v in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:  # not even an address; show nothing of it that could be a password
        return f"{scheme}***"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query, safe="*/:"), ""))


def network_name(target: str) -> str:
    """A short name for a network source: host and path."""
    parts = urlsplit(redact(target))
    return f"{parts.netloc}{parts.path}".rstrip("/") or parts.scheme
