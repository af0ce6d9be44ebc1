"""Which sources a client may add: cameras of this machine, the sample clip, and what the operator allows by name.

Knows addresses only; opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from leaf_rt.sources.address import parse

SAMPLE = "sample"
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_UNSAFE = re.compile(r"[^!-~]|[#\\<>\"^`{|}]")  # also what is no ASCII


class AllowList:
    """Decides about targets.

    Args:
        patterns: Addresses in which ``*`` stands for any text: in a host for one part of its name (no dot), in the path
            of a URL for anything, in the path of a file for one name (no slash). A pattern for a URL names the scheme
            and the host; without a port it allows the usual one, without a path any path.

    Raises:
        ValueError: A pattern can never match.

    Example:
        >>> AllowList(["rtsp://*.cameras.example/live*"]).permits("rtsp://door.cameras.example/live1")
        True
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._urls: list[SplitResult] = []
        self._files: list[Path] = []
        for pattern in patterns:
            if parse(pattern).kind != "network":
                path = Path(parse(pattern).target)
                if not path.is_absolute():
                    raise ValueError(f"{pattern}: wanted a URL or an absolute path of a file")
                self._files.append(path)
                continue
            parts = _split(pattern)
            if parts is None:
                raise ValueError(f"{pattern}: wanted rtsp, rtsps, http or https with a host and without a password")
            self._urls.append(parts)

    def permits(self, target: str) -> bool:
        """Whether a client may add this target."""
        address = parse(target)
        if target == SAMPLE or address.kind == "camera":
            return True
        if address.kind == "network":
            parts = _split(address.target)
            return parts is not None and any(_matches(parts, allowed) for allowed in self._urls)
        path = Path(address.target)
        if address.kind != "file" or not path.is_absolute():
            return False
        resolved = path.resolve()  # no ".." and no symbolic link leads out of an allowed folder
        return any(resolved.match(str(pattern)) for pattern in self._files)


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None if programs could read it in different ways, or if it holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if _UNSAFE.search(url) or "@" in url or parts.scheme not in _PORTS or not parts.hostname or port == 0:
        return None
    return parts


def _matches(parts: SplitResult, allowed: SplitResult) -> bool:
    def port(of: SplitResult) -> int:
        return of.port or _PORTS[of.scheme]

    path = parts.path + (f"?{parts.query}" if parts.query else "")
    wanted = allowed.path + (f"?{allowed.query}" if allowed.query else "")
    return (
        parts.scheme == allowed.scheme
        and port(parts) == port(allowed)
        and _like(parts.hostname or "", allowed.hostname or "", "[^.]*")
        and (wanted in ("", "/") or (_like(path, wanted, ".*") and not _climbs(path)))
    )


def _climbs(path: str) -> bool:
    """Whether a server may read a path as one outside of its folder, also after it decodes ``%2e`` once or twice."""
    return any(sign in text for text in (path, unquote(path), unquote(unquote(path))) for sign in ("..", "\\"))


def _like(text: str, pattern: str, star: str) -> bool:
    return re.fullmatch(star.join(map(re.escape, pattern.split("*"))), text) is not None
