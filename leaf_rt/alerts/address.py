"""Reads the addresses of alerts. Their secrets appear in no message and no ``repr``. Knows only URLs."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

_DEFAULT_BASE = "leaf-rt"
_PATH_CHARACTERS = "%/:=&?~+!$,;'@()*[]"  # stay as they are


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Address of a webhook.

    Attributes:
        shown: Scheme, host and port. The path is left out: many services have their secret in it.
        url: Where to send, without user and password.
        authorization: Value of the header of that name; None without user and password.
    """

    shown: str
    url: str = field(repr=False)
    authorization: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Broker:
    """Address of an MQTT broker.

    Attributes:
        shown: The address without user and password.
        host: Host name or address.
        port: TCP port.
        tls: Whether the connection is encrypted.
        base: First levels of all topics, without a "/" at its ends.
        user: User name; None for none.
        password: Password; None for none.
    """

    shown: str
    host: str
    port: int
    tls: bool
    base: str
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)


def web_address(url: str) -> WebAddress:
    """Read the URL of a webhook.

    Raises:
        ValueError: It is not usable. The message does not contain it.
    """
    parts, host, port = _split(url, ("http", "https"), "http://HOST/PATH or https://HOST/PATH")
    where = host if port is None else f"{host}:{port}"
    path = quote(parts.path or "/", safe=_PATH_CHARACTERS)
    query = f"?{quote(parts.query, safe=_PATH_CHARACTERS)}" if parts.query else ""
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    shown = f"{parts.scheme}://{where}"
    return WebAddress(shown, f"{shown}{path}{query}", authorization)


def broker(url: str) -> Broker:
    """Read the URL of an MQTT broker: ``mqtt[s]://[USER:PASSWORD@]HOST[:PORT][/TOPIC]``.

    Raises:
        ValueError: It is not usable. The message does not contain it.
    """
    parts, host, port = _split(url, ("mqtt", "mqtts"), "mqtt://HOST or mqtts://HOST, then /TOPIC if wanted")
    if "?" in url or "#" in url:
        raise ValueError("must not contain ? or #; write them in a password as %3F and %23")
    base = unquote(parts.path).strip("/") or _DEFAULT_BASE
    if any(character in base for character in "+#\0") or base.startswith("$"):
        raise ValueError("the topic must not contain + or #, and must not start with $")
    tls = parts.scheme == "mqtts"
    port = port or (8883 if tls else 1883)
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Broker(f"{parts.scheme}://{host}:{port}/{base}", parts.hostname or "", port, tls, base, user, password)


def _split(url: str, schemes: tuple[str, ...], wanted: str) -> tuple[SplitResult, str, int | None]:
    """The parts of a URL, its host as it stands in a URL, and its port."""
    if any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise ValueError("must not contain spaces or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        ascii_host = (host or "").encode("idna").decode()
    except ValueError:  # its message may contain a part of a password; UnicodeError is one too
        raise ValueError(f"must be {wanted}; write special characters of a password as %XX") from None
    if parts.scheme not in schemes or not ascii_host:
        raise ValueError(f"must be {wanted}")
    return parts, f"[{ascii_host}]" if ":" in ascii_host else ascii_host, port
