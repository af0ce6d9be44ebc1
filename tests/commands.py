"""Runs the command line inside the test's process and keeps what it said."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import pytest

from leaf_rt import cli


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The error it said, checked to be a single one, no traceback and no bug."""
        said = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err
        assert "bug in leaf-rt" not in said[0]
        return said[0]


class Leaf:
    """Calls ``leaf-rt`` with arguments of any type."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> Done:
        self._capfd.readouterr()
        code = cli.main([str(a) for a in arguments])
        sys.stdout.flush()
        out, err = self._capfd.readouterr()
        return Done(code, out, err)


def records(text: str) -> list[dict[str, object]]:
    """The objects of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
