"""Errors that a user can fix, one class per kind of fix. Each class has its own exit code.

A message is one sentence: what is wrong, where, and how to fix it. Knows only text.
"""

from __future__ import annotations

from enum import StrEnum


class LeafError(Exception):
    """A problem with the input, the output or the machine that the user can fix."""

    exit_code = 1


class NotFound(LeafError):
    """A file, a device or a path of a stream does not exist."""

    exit_code = 3


class NoPermission(LeafError):
    """The operating system denies permission to read or write."""

    exit_code = 4


class NotAVideo(LeafError):
    """The input contains no picture and no video stream."""

    exit_code = 5


class CodecError(LeafError):
    """A picture or video stream cannot be decoded."""

    exit_code = 6


class NoFrames(LeafError):
    """A video stream can be opened but has no frames."""

    exit_code = 7


class ModelError(LeafError):
    """A model, its description or its engine is damaged or not suitable."""

    exit_code = 8


class OutputError(LeafError):
    """A result cannot be written, for example because the disk is full or an encoder failed."""

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
    NOT_SUPPORTED = "not_supported"


class GpuUnavailable(BackendUnavailable):
    """No NVIDIA GPU can be used.

    Attributes:
        reason: The kind of problem.
    """

    def __init__(self, reason: GpuProblem, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.reason = reason


class DecoderUnavailable(BackendError):
    """NVIDIA's video decoder cannot be used here, or not for this video.

    Attributes:
        problem: What is wrong.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"NVDEC cannot be used: {problem}; {remedy}")
        self.problem = problem


class ConnectionLost(LeafError):
    """A network source cannot be reached, or its connection is lost permanently."""

    exit_code = 11


class AuthError(LeafError):
    """A network source rejects the credentials."""

    exit_code = 12


class TimedOut(LeafError):
    """A source, a lock or a device did not respond in time."""

    exit_code = 13


class DeviceBusy(LeafError):
    """A camera is in use by another program."""

    exit_code = 14


class DataError(LeafError):
    """A data set, a split, a label file or a file of records is invalid or does not match the request."""

    exit_code = 15


def install_hint(extra: str = "") -> str:
    """How to install leaf-rt or some of its extras, for the end of an error message.

    Args:
        extra: Name of an extra, or several separated by commas; "" for leaf-rt itself.
    """
    if not extra:
        return "install leaf-rt from a clone with: pip install ."
    return f'install it from a clone of leaf-rt with: pip install ".[{extra}]"'


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
