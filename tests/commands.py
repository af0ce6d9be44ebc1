"""Runs the command line inside the test's process and captures its output."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import pytest

from leaf_rt import cli


@dataclass(frozen=True)
class Done:
    """The result of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The error message. There must be exactly one, without a traceback, and not about a bug."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert "Traceback" not in self.err
        assert "bug in leaf-rt" not in errors[0]
        return errors[0]


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
