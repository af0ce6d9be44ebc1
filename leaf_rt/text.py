"""Text that comes from outside, such as a file's name, made fit to be written and shown. Imports nothing of leaf-rt."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def counted(number: int, noun: str) -> str:
    """As in "1 thread" and "2 threads"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def readable(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    r"""Text that does nothing to a terminal but stand there: control characters as escapes, ESC as ``\x1b``.

    So are the characters that turn the direction of writing, which make one name look like another.
    """
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)
