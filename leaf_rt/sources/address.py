"""What an address is: tells cameras, streams and files apart. The only place that does; it opens nothing.

Streams follow an allow-list of schemes. Everything else that looks like an address is refused, because FFmpeg would
read it in ways that nobody expects here, such as parts of files (``subfile:``) or other programs' pipes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from leaf_rt.credentials import mask
from leaf_rt.errors import NotAVideo
from leaf_rt.text import printable

STREAMS = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
_KNOWN = re.compile(  # further protocols of FFmpeg
    "async|bluray|cache|concatf?|crypto|data|fd|ffrtmp(crypt|http)|file|ftp|gophers?|hls|httpproxy|icecast|ip[fn]s|"
    "libssh|md5|mms[ht]|pipe|prompeg|rtmp(e|t|te|ts)|sctp|sftp|smb|srtp|subfile|tee|tls|udplite|unix"
)
_USE = f"rtsp://, rtsps://, http:// or https:// (also {', '.join(STREAMS[4:])}), or the name of a file"
_CAMERA = re.compile(r"\d+|/dev/video\d+", re.ASCII)
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.,-]*):(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Address:
    """One address. ``repr`` does not show it, because it may contain credentials.

    Attributes:
        kind: "camera", "network" or "file"; "refused" for an address that must not be opened.
        target: What the decoder opens. A file URL has become a path, and a scheme is in lower case.
        problem: Why it is refused: half a sentence.
    """

    kind: Literal["camera", "network", "file", "refused"]
    target: str = field(repr=False)
    problem: str = ""

    @property
    def shown(self) -> str:
        """The address for people, without credentials."""
        return mask(self.target)

    @property
    def name(self) -> str:
        """Short name for records and windows: "camera N", host and path of a stream, or the name of the file."""
        if self.kind == "camera":
            return f"camera {self.target.removeprefix('/dev/video')}"
        if self.kind == "file":
            return self.shown.rpartition("/")[2] or self.shown
        return _network_name(self.shown)

    @property
    def is_live(self) -> bool:
        """Whether only the newest frame counts, as far as the address tells."""
        return self.kind in ("camera", "network")

    def check(self) -> None:
        """Raise the error of an address that must not be opened.

        Raises:
            NotAVideo: It is refused.
        """
        if self.kind == "refused":
            raise NotAVideo(f"{printable(self.shown)}: {self.problem}")


def parse(target: str) -> Address:
    """Tell what an address is. Parsing the ``target`` of the result again gives the same result.

    Args:
        target: A camera ("0", "/dev/video0"), an address with a scheme in any case, or the name of a file.
    """
    if _CAMERA.fullmatch(target) is not None:
        return Address("camera", target)
    match = _SCHEME.fullmatch(target)
    if match is None:
        return Address("refused", target, "contains a null character") if "\0" in target else Address("file", target)
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme == "file":
        return _file(target, rest)
    protocol = re.split("[+,]", scheme)[0]
    if scheme in STREAMS and rest.startswith("//"):
        if _CONTROL.search(rest.strip()):
            return Address("refused", target, "contains a line break or another control character; remove it")
        return Address("network", f"{scheme}:{rest.strip()}")
    if scheme in STREAMS:
        return Address("refused", target, f"is no complete address; write it as {scheme}://host/path{_as_file(target)}")
    if _KNOWN.fullmatch(protocol) or rest.startswith("//"):
        return Address("refused", target, f"leaf-rt does not read {protocol}: addresses; use {_USE}")
    return Address("refused", target, "contains a null character") if "\0" in target else Address("file", target)


def is_network(target: str) -> bool:
    """Whether the target is the address of a stream."""
    return parse(target).kind == "network"


def is_camera(target: str) -> bool:
    """Whether the target is a camera of this machine: "0" or "/dev/video0"."""
    return parse(target).kind == "camera"


def _file(target: str, rest: str) -> Address:
    """The address for a file URL, whose part after "file:" is ``rest``."""
    path = rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            return Address("refused", target, "names another machine; write file:///folder/name for a local file")
        path = slash + path
    path = unquote(path, errors="surrogateescape")
    if not path.strip("/") or "\0" in path:
        return Address("refused", target, "names no file; write it as file:///folder/name")
    # A relative name such as "0" or "rtsp:x" would be something else without its scheme.
    return Address("file", path if parse(path).kind == "file" or path.startswith("/") else f"./{path}")


def _as_file(target: str) -> str:
    """The hint for a file whose name starts like an address, if its name can be shown."""
    return f", or ./{target} for a file of this name" if mask(target) == target and "/" not in target else ""


def _network_name(shown: str) -> str:
    try:
        parts = urlsplit(shown) if "[" not in shown else None
    except ValueError:  # urlsplit rejects malformed hosts
        parts = None
    text = f"{parts.netloc}{parts.path}" if parts is not None else re.sub(r"^\w+://|\?.*", "", shown)
    return text.rstrip("/") or shown.partition(":")[0]
