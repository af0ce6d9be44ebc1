"""Hides user names, passwords and query values in addresses. The only place that does; imports nothing of leaf-rt.

A typed address may be wrong in any way, and a password may hold characters that an address may not. So where it is not
clear what is a password, more is hidden than necessary.

Example:
    >>> mask("rtsp://user:secret@cam:554/live?token=abc")
    'rtsp://cam:554/live?token=***'
"""

from __future__ import annotations

import re
from collections.abc import Collection

HIDDEN = "***"

# The start of an address: "rtsp://", also mistyped as "rtsp:/" or "rtsp:\\", and "rtsp:" without a slash.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]*:[/\\]+|(?:rtsps?|https?|rtmps?|srt|udp|rtp|tcp):", re.IGNORECASE)
_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9+.,-])(?:{_SCHEME.pattern})[^\s'\"<>]*", re.IGNORECASE)
_SECRET_NAME = r"\w*(?:pass|pwd|pw|token|secret|auth|key|sig|user|login|cred)\w*"
_EQUALS = r"(?:=|%3D)"


def mask(target: str) -> str:
    """An address without user, password, query values and fragment; other text stays as it is.

    Args:
        target: What was typed as an address or as the name of a file.
    """
    text = target.strip()
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _mask_name(target)
    head, rest = scheme.group(), text[scheme.end() :]
    path, _, query = _split_query(_without_user(rest).partition("#")[0])
    # Some cameras take user and password in the path, as in /user=admin&password=secret.
    path = re.sub(rf"({_EQUALS})[^/&;]*", rf"\g<1>{HIDDEN}", path, flags=re.IGNORECASE)
    return head + path + _mask_query(query)


def mask_in(text: str, known: Collection[str] = ()) -> str:
    """A message or a traceback without the credentials of the addresses in it.

    Args:
        text: Any text.
        known: What the user typed, such as the arguments of the command. An address among them is found in the text
            even if it contains blanks or quotes.
    """
    values = (argument.partition("=")[2] for argument in known if argument.startswith("--"))
    for argument in sorted({*known, *values}, key=len, reverse=True):
        hidden = mask(argument)
        if hidden != argument:
            for written in (argument, repr(argument)[1:-1], argument.strip()):
                text = text.replace(written, hidden)
    return _IN_TEXT.sub(_mask_found, text)


def _mask_found(found: re.Match[str]) -> str:
    address = found.group().rstrip(".,:;)")
    return mask(address) + found.group()[len(address) :]


def _without_user(rest: str) -> str:
    """What follows the scheme, without user and password."""
    authority = re.match(r"[^/?#]*", rest)
    host = authority.group() if authority is not None else ""
    at = rest.rfind("@")
    if at >= 0 and re.search("[:@]", host):
        before = rest[:at]
        is_host = "@" not in host and re.fullmatch(r"[^:\[\]]*:\d+|\[[^\]]*\](:\d+)?", host) is not None
        if is_host and re.search(r"\?|%3F", before, re.IGNORECASE):
            return HIDDEN  # "host:80/?mail=a@b", or a password with a question mark
        return rest[at + 1 :]
    colon = re.search(r":(?!\d*$)", re.sub(r"^\[[^\]]*\]", lambda found: "h" * len(found.group()), host))
    if colon is not None:  # what stands in the place of the port is no number: a password without its "@"
        return f"{host[: colon.start()]}:{HIDDEN}{rest[len(host) :]}"
    return _without_user_in_path(rest)


def _without_user_in_path(text: str) -> str:
    """Hide "user:password@" anywhere, from the start of its part of the path to the last "@"."""
    at = text.rfind("@")
    colon = text.find(":", 0, max(at, 0))
    if colon < 0:
        return text
    start = text.rfind("/", 0, colon) + 1
    return f"{text[:start]}{HIDDEN}@{text[at + 1 :]}"


def _mask_name(name: str) -> str:
    """Hide what can be a secret in the name of a file, which may be an address without its scheme."""
    path, _, query = _split_query(_without_user_in_path(name))
    path = re.sub(rf"({_SECRET_NAME}{_EQUALS})[^/&;]*", rf"\g<1>{HIDDEN}", path, flags=re.IGNORECASE)
    return path + _mask_query(query)


def _split_query(text: str) -> tuple[str, str, str]:
    """Text before and after the first "?", which may be percent-encoded; the second part keeps the "?"."""
    mark = re.search(r"\?|%3F", text, re.IGNORECASE)
    return (text, "", "") if mark is None else (text[: mark.start()], mark.group(), text[mark.start() :])


def _mask_query(query: str) -> str:
    """Hide every value of a query, "" or with its "?"."""
    if not query:
        return ""
    mark = "?" if query.startswith("?") else query[:3]
    parts = []
    for part in query[len(mark) :].split("&"):
        name, equals, _ = re.match(rf"(.*?)({_EQUALS}|$)(.*)", part, re.IGNORECASE | re.DOTALL).groups()  # type: ignore[union-attr] # matches any text
        parts.append(f"{name}={HIDDEN}" if equals else HIDDEN if part else "")
    return mark + "&".join(parts)
