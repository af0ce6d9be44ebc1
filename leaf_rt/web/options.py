"""How the server of the live page is set up. Knows names and numbers only."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from leaf_rt.errors import OutputError

MIN_TOKEN = 16  # characters
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN},512}}")  # of these, addresses and cookies need no quotes


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask for at most.

    Attributes:
        image_bytes: Size of a picture for ``POST /v1/image``.
        image_pixels: Pixels of such a picture.
        video_bytes: Size of a clip for ``POST /v1/video``.
        video_pixels: Pixels of one of its frames.
        video_seconds: Its length, s.
        camera_bytes: Size of one picture of a browser's camera.
        camera_pixels: Pixels of such a picture.
        sources: Sources at the same time, cameras of browsers included.
        viewers: WebSockets and streams of events at the same time.
        video_frames: Number of its frames that are processed.
        uploads: Pictures that are received or wait.
        jobs: Clips that are received, wait or are processed.
        upload_seconds: Time in which a request must have arrived, s.
        upload_rate: Bytes per second at which it must arrive, after ``upload_grace`` s.
        upload_grace: Time before the rate counts, s.
        connections: Connections at the same time.
    """

    image_bytes: int = 20 << 20
    image_pixels: int = 50_000_000
    video_bytes: int = 200 << 20
    video_pixels: int = 4096 * 2304
    video_seconds: float = 600.0
    camera_bytes: int = 2 << 20
    camera_pixels: int = 1920 * 1200
    sources: int = 16
    viewers: int = 64
    video_frames: int = 72_000
    uploads: int = 16
    jobs: int = 4
    upload_seconds: float = 120.0
    upload_rate: int = 32 << 10
    upload_grace: float = 10.0
    connections: int = 512


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How to serve.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 chooses a free one.
        token: What clients must know; "" makes one if the address is not a loopback address.
        allow_sources: Patterns of the sources that clients may add; see ``leaf_rt.web.allow``.
        allow_hosts: More names under which clients may reach the server.
        thumbnails: Whether the page may cut small pictures of faces from the live picture.
        certificate: TLS certificate (PEM); None serves without TLS.
        key: Its private key (PEM); None if the certificate file holds it.
        limits: What clients may ask for at most.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    allow_sources: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    thumbnails: bool = False
    certificate: Path | None = None
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.token and _TOKEN.fullmatch(self.token) is None:
            raise OutputError(
                f"--token: wanted at least {MIN_TOKEN} letters, digits and - . _ ~; leave it out to get one"
            )
        if self.key is not None and self.certificate is None:
            raise OutputError("--tls-key: needs --tls-cert, the certificate of this key")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets; "" if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if not set("@/?#\\") & set(host) else ""


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``:PORT`` or ``PORT``.

    Raises:
        OutputError: It is none of these.
    """
    try:
        parts = urlsplit(f"//{text if ':' in text else f':{text}'}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        host, port = "", None
    if not host or port is None or parts.path:
        raise OutputError(f"--web {text}: wanted HOST:PORT, such as 127.0.0.1:8000; port 0 is a free one")
    return host, port
