"""Hides user names, passwords and query values in addresses. The only place that does; imports nothing of leaf-rt.

A typed address may be wrong in any way, and a password may hold characters that an address may not. So where it is not
clear what is a password, more is hidden than necessary.

Example:
    >>> mask("rtsp://user:secret@cam:554/live?token=abc")
    'rtsp://cam:554/live?***'
"""

from __future__ import annotations

import re
from collections.abc import Collection

HIDDEN = "***"

# The start of an address. "rtsp:/" and "rtsp:" are mistyped; other names need "//", because "user:/" may be a user.
_STREAM = "rtsps?|https?|rtmps?|srt|udp|rtp|tcp"
_SCHEME = re.compile(rf"[A-Za-z][A-Za-z0-9+.,-]*:[/\\]{{2,}}|(?:{_STREAM}):[/\\]*", re.IGNORECASE)
# An address of an unknown kind that was taken for the name of a file, which has lost a slash: "name:/user:secret@host".
_AS_FILE = r"[A-Za-z][A-Za-z0-9+.,-]*:/[^\s'\"<>/@]*:[^\s'\"<>]*@"
_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9+.,-])(?:{_SCHEME.pattern}|{_AS_FILE})[^\s'\"<>]*", re.IGNORECASE)
_VALUE = re.compile(r"(=|%3D).*", re.IGNORECASE | re.DOTALL)  # in a path: everything after the first "="
_SECRET_VALUE = re.compile(r"((?:pass|pwd|pw|token|secret|auth|key|sig|user|login|cred)\w*(?:=|%3D)).*", re.I | re.S)
_QUERY = re.compile(r"(\?|%3F).*", re.IGNORECASE | re.DOTALL)
_SECRET_OR_QUERY = re.compile(rf"{_SECRET_VALUE.pattern}|{_QUERY.pattern}", re.IGNORECASE | re.DOTALL)
_VALUE_OR_QUERY = re.compile(rf"{_VALUE.pattern}|{_QUERY.pattern}", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?")


def mask(target: str) -> str:
    """An address without user, password, query and fragment; other text stays as it is.

    Args:
        target: What was typed as an address or as the name of a file.
    """
    text = target.strip()
    scheme = _SCHEME.match(text)
    if scheme is None:  # the name of a file, or an address without its scheme
        return _SECRET_VALUE.sub(
            rf"\g<1>{HIDDEN}", _QUERY.sub(rf"\g<1>{HIDDEN}", _without_user_in_path(target, _SECRET_OR_QUERY))
        )
    rest = text[scheme.end() :]
    if re.match(rf"({_STREAM}):", text, re.IGNORECASE) is None:
        # "user://secret/@host" looks like an address of a kind that is not known.
        before, _, host = rest.rpartition("@")
        rest = HIDDEN if _VALUE_OR_QUERY.search(before) else host
    rest = _without_user(rest).partition("#")[0]
    # Some cameras take user and password in the path, as in /user=admin&password=secret.
    path, query = _QUERY.sub("", rest), _QUERY.search(rest)
    hidden = "" if query is None else f"{query.group(1)}{HIDDEN}"
    return scheme.group() + _VALUE.sub(rf"\g<1>{HIDDEN}", path) + hidden


def mask_in(text: str, known: Collection[str] = (), keep: str = "") -> str:
    """A message or a traceback without the credentials of the addresses in it.

    Args:
        text: Any text.
        known: What the user typed, such as the arguments of the command. An address among them is found in the text
            even if it contains blanks or quotes.
        keep: A part of the text that is meant to be shown: the address of our own page, with its token.
    """
    if keep and keep in text:
        before, _, after = text.partition(keep)
        return mask_in(before, known) + keep + mask_in(after, known)
    values = (argument.partition("=")[2] for argument in known if argument.startswith("--"))
    for argument in sorted({*known, *values}, key=len, reverse=True):
        hidden = mask(argument)
        if hidden != argument:
            # As it is, inside quotes, and as the name of a file.
            for written in (argument, repr(argument)[1:-1], argument.strip(), re.sub("/+", "/", argument)):
                text = text.replace(written, hidden)
    return _IN_TEXT.sub(_mask_found, text)


def _mask_found(found: re.Match[str]) -> str:
    address = found.group().rstrip(".,:;)")
    return mask(address) + found.group()[len(address) :]


def _without_user(rest: str) -> str:
    """What follows the scheme, without user and password."""
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in host and re.search("%(3A|40)", host, re.IGNORECASE):  # user and password, written as in a query
        return HIDDEN
    at = rest.rfind("@")
    if at >= 0 and re.search("[:@]", host):
        if "@" not in host and _HOST.fullmatch(host) is not None and _QUERY.search(rest[:at]) is not None:
            return HIDDEN  # "host:80/?mail=a@b", or a password with a question mark
        return rest[at + 1 :]
    if _HOST.fullmatch(host) is None:  # what stands in the place of the port is no number: a password without its "@"
        return f"{host.partition(':')[0]}:{HIDDEN}"
    return _without_user_in_path(rest, _VALUE_OR_QUERY)


def _without_user_in_path(text: str, hidden: re.Pattern[str]) -> str:
    """Hide "user:password@" anywhere, from the start of its part of the path to the last "@".

    Args:
        text: An address without its scheme.
        hidden: What the caller hides anyway.
    """
    at = text.rfind("@")
    colon = text.find(":", 0, max(at, 0))
    query = hidden.search(text)
    if colon < 0 or (query is not None and query.start() < colon):
        return text
    start = text.rfind("/", 0, colon) + 1
    if query is not None and query.start() < at:  # a password with a question mark
        return text[:start] + HIDDEN
    return f"{text[:start]}{HIDDEN}@{text[at + 1 :]}"
