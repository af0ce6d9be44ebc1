"""Makes text from outside, such as file names, safe to write and show. Imports nothing of leaf-rt."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def counted(number: int, noun: str) -> str:
    """A number and its noun, as "1 thread" or "2 threads"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def readable(name: str) -> str:
    """A file name that can be encoded as UTF-8; other bytes become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def table_cell(text: str) -> str:
    """Text for a cell of a CSV file: a spreadsheet would run one that begins like a formula, so it gets an apostrophe.

    ``from_table_cell`` takes it away again.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_table_cell(cell: str) -> str:
    """The text of a cell that ``table_cell`` has made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def printable(text: str) -> str:
    r"""Text that is safe to print to a terminal: control characters become escapes, as ``\x1b``.

    Characters that change the writing direction are escaped too, because they can make one name look like another, and
    so are the line breaks of Unicode.
    """
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)
