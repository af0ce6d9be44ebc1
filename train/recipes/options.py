"""One recipe option: its type, choices, range and help, and the checks of a value against them.

Knows values. It must not know what is done with them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from leaf_rt.errors import DataError

INF = math.inf
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Option:
    """The description of one option.

    Attributes:
        key: "section.name".
        type: bool, int, float or str; of each item where ``many``.
        many: The value is a tuple.
        choices: The only allowed texts; empty allows all.
        default: The value without preset, recipe file and override.
        help: One line.
        low: Smallest allowed number.
        high: Largest allowed number.
        unit: Of the number, such as "px" or "steps"; may be empty.
        short: Short name on the command line, without dashes; may be empty.
        old: Former names: keys, and short names of the command line.
        local: The value is a path on this machine.
        resumable: A resumed run may change it, because it does not change the result.
    """

    key: str
    type: type
    many: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    low: float = -INF
    high: float = INF
    unit: str = ""
    short: str = ""
    old: tuple[str, ...] = ()
    local: bool = False
    resumable: bool = False

    @property
    def section(self) -> str:
        """The part of the key before the dot."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """The part of the key after the dot."""
        return self.key.partition(".")[2]

    @property
    def default_text(self) -> str:
        """The default as a person writes it."""
        if self.many:
            return ",".join(map(str, self.default))
        if self.type is float:
            return f"{self.default:.4g}"
        return str(self.default).lower() if self.type is bool else str(self.default)

    @property
    def bounds(self) -> str:
        """The allowed range with the unit, such as "8 to 4096 px"; empty if all values are allowed."""
        if self.low == -INF:
            return self.unit
        span = f"{_text(self.low)} to {_text(self.high)}" if self.high < INF else f"{_text(self.low)} or more"
        return f"{span} {self.unit}".rstrip()

    @property
    def kind(self) -> str:
        """The allowed values in a few words, such as "float, 0 to 1" or "grey, rgb"."""
        words = ", ".join(self.choices) or {bool: "true, false", str: "text"}.get(self.type, self.type.__name__)
        if self.bounds:
            words += f", {self.bounds}"
        return f"list of {words}" if self.many else words

    def convert(self, value: Any, where: str) -> Any:
        """The value, or the text of one, as the option's type.

        Args:
            value: From a recipe file, an override or the command line; items of a list may be joined by commas.
            where: Source of the value, for the error.

        Raises:
            DataError: The type or the choice is wrong.
        """
        try:
            if self.many:
                parts = [part for part in value.split(",") if part] if isinstance(value, str) else list(value)
                converted: Any = tuple(self._convert_item(part) for part in parts)
            else:
                converted = self._convert_item(value)
        except (TypeError, ValueError, OverflowError) as e:
            name = f"a list of {self.type.__name__}" if self.many else self.type.__name__
            raise DataError(f"{where}: {self.key}: wanted {name}, got {value!r}") from e
        wrong = [
            item for item in (converted if self.many else (converted,)) if self.choices and item not in self.choices
        ]
        if wrong:
            how_many = "some" if self.many else "one"
            got = ", ".join(map(repr, wrong))
            raise DataError(f"{where}: {self.key}: wanted {how_many} of {', '.join(self.choices)}, got {got}")
        return converted

    def check_range(self, value: Any) -> None:
        """Check a number, or each number of a tuple.

        Raises:
            DataError: One is out of range or not finite.
        """
        for number in value if self.many else (value,):
            if self.type not in (int, float) or (abs(number) != INF and self.low <= number <= self.high):
                continue  # NaN fails both comparisons
            raise DataError(f"{self.key}: wanted {self._range()}, got {number}")

    def _range(self) -> str:
        if self.low == -INF:
            return "a finite number"
        return (
            f"a number from {_text(self.low)} to {_text(self.high)}"
            if self.high < INF
            else f"{_text(self.low)} or more"
        )

    def _convert_item(self, value: Any) -> Any:
        if self.type is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() not in _BOOLEANS:
                raise ValueError(value)
            return _BOOLEANS[str(value).lower()]
        if self.type is int and isinstance(value, float) and value != int(value):
            raise ValueError(value)
        if self.type is str and not isinstance(value, str):
            raise TypeError(value)
        return self.type(value)


def option(default: Any, help: str, **description: Any) -> Any:  # noqa: A002 - the usual name of such a text
    """A dataclass field that carries its description.

    Args:
        default: See ``Option``.
        help: See ``Option``.
        **description: Other attributes of ``Option`` that the field's annotation does not give.
    """
    return dataclasses.field(default=default, metadata={"help": help, **description})


def describe(section: str, table: type) -> list[Option]:
    """The options of a section.

    Args:
        section: Its name.
        table: A dataclass whose fields are made with ``option``.
    """
    hints = get_type_hints(table)
    options = []
    for field in dataclasses.fields(table):
        hint = hints[field.name]
        many = get_origin(hint) is tuple
        item = get_args(hint)[0] if many else hint
        choices: Sequence[str] = get_args(item) if get_origin(item) is Literal else ()
        kind = str if choices else item
        options.append(Option(f"{section}.{field.name}", kind, many, tuple(choices), field.default, **field.metadata))
    return options


def _text(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"
