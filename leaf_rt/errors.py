"""What can go wrong outside our code, one class per thing a person would do about it.

Each class has its own exit code; each message is one sentence: what, where, how to mend. Knows nothing but text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum

from leaf_rt.text import printable


class LeafError(Exception):
    """A problem with input, output or machine that a person can act on."""

    exit_code = 1


class NotFound(LeafError):
    """A file, a device or a stream path does not exist."""

    exit_code = 3


class NoPermission(LeafError):
    """The operating system refuses to read or write."""

    exit_code = 4


class NotAVideo(LeafError):
    """The input holds no picture or video stream at all."""

    exit_code = 5


class CodecError(LeafError):
    """A picture or video stream is there but cannot be decoded."""

    exit_code = 6


class NoFrames(LeafError):
    """A video stream that opens and gives not one frame."""

    exit_code = 7


class ModelError(LeafError):
    """A model, its description or its engine is broken, foreign or does not fit."""

    exit_code = 8


class OutputError(LeafError):
    """A result cannot be written: disk full, folder gone, encoder refused."""

    exit_code = 9


class BackendError(LeafError):
    """A back end or an optional feature cannot run here, for example because a package is not installed."""

    exit_code = 10


class BackendUnavailable(BackendError):
    """A back end cannot run on this machine.

    Attributes:
        problem: What is wrong.
        remedy: How to fix it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class NotInstalled(BackendUnavailable):
    """The package of a back end is not installed."""


class GpuProblem(StrEnum):
    """Why no NVIDIA GPU can be used."""

    NO_BINDINGS = "no_bindings"
    NO_DRIVER = "no_driver"
    DRIVER_TOO_OLD = "driver_too_old"
    NO_GPU = "no_gpu"
    NOT_RESPONDING = "not_responding"


class GpuUnavailable(BackendUnavailable):
    """No NVIDIA GPU can be used.

    Attributes:
        reason: The kind of problem.
    """

    def __init__(self, reason: GpuProblem, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.reason = reason


class ConnectionLost(LeafError):
    """A network source cannot be reached or went away for good."""

    exit_code = 11


class AuthError(LeafError):
    """A network source refuses the credentials."""

    exit_code = 12


class TimedOut(LeafError):
    """A source, a lock or a device gave no answer in time."""

    exit_code = 13


class DeviceBusy(LeafError):
    """A camera is in use by another program."""

    exit_code = 14


class DataError(LeafError):
    """A data set, a split or a label file does not fit what was asked."""

    exit_code = 15


def install_hint(extra: str = "") -> str:
    """How to install leaf-rt or some of its extras, for the end of an error message.

    Args:
        extra: Name of an extra, or several separated by commas; "" for leaf-rt itself.
    """
    part, target = ("it", f'".[{extra}]"') if extra else ("leaf-rt", ".")
    return f"install {part} from a clone of leaf-rt with: pip install {target}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def run_command(command: Callable[[], int], debug: bool) -> int:
    """Call a command; what a person can act on becomes one sentence on stderr and its exit code.

    Args:
        command: Gives its exit code.
        debug: Let such an error through, with its traceback.
    """
    try:
        return command()
    except LeafError as e:
        if debug:
            raise
        sys.stderr.write(f"error: {printable(str(e))}\n")
        return e.exit_code
