"""What a worker gets and what it answers. All of it can be pickled and sent to another machine.

Knows the settings of recognition; must not know processes, manifests or Ray.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from leaf_rt.errors import LeafError, NoPermission, NotFound
from leaf_rt.models.spec import load_spec
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.results.records import SCHEMA_VERSION
from leaf_rt.sinks.factory import RecordFormat
from leaf_rt.sources.base import SourceOptions
from leaf_rt.system.signals import StopSignal

TRIES = 3  # for a file whose worker process ends in the middle of it
# How something runs, not what comes out; a later start may change it.
_NO_MATTER = ("threads", "backend", "detector")
_FILES = ("model", "reid_model", "landmarks")  # their content counts, not their names


@dataclass(frozen=True, slots=True)
class Clip:
    """One file of a batch.

    Attributes:
        path: The file, absolute.
        name: Its name in records and messages: its path below the folder of the batch.
        result: Where its records go, absolute.
        size: Bytes; -1 if the file cannot be looked at.
        mtime_ns: When it was changed, ns since 1970; -1 likewise.
    """

    path: str
    name: str
    result: str
    size: int = -1
    mtime_ns: int = -1


@dataclass(frozen=True, slots=True)
class Job:
    """What all files of a batch have in common.

    Attributes:
        out: Folder of the results, absolute.
        version: The leaf-rt that started the batch; a worker must have the same.
        recognition: How faces are recognized; its paths are absolute.
        source: Which frames are read.
        format: Of the records.
        threads: CPU threads that one worker may use.
    """

    out: str
    version: str
    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)
    source: SourceOptions = field(default_factory=SourceOptions)
    format: RecordFormat = "jsonl"
    threads: int = 1

    def options(self) -> dict[str, Any]:
        """What decides about the results, ready for JSON: files that are done stay done while this is the same.

        Raises:
            LeafError: A model cannot be read.
        """
        recognition = self.recognition
        found: dict[str, Any] = {}
        for name, value in asdict(recognition).items():
            if isinstance(value, dict):
                found |= {f"{name}.{part}": each for part, each in value.items()}
            elif name not in (*_NO_MATTER, *_FILES):
                found[name] = value
        source = {name: getattr(self.source, name) for name in ("start", "end", "stride", "max_fps")}
        others = {name: getattr(recognition, name) for name in _FILES[1:]}
        return {
            **found,
            **source,
            "model": load_spec(recognition.model).sha256,
            **{name: None if path is None else _sha256(path) for name, path in others.items()},
            "format": self.format,
            "records": SCHEMA_VERSION,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        clip: The file.
        state: "done" or "failed".
        reason: One sentence: why it failed, or what is wrong with a file that is done, such as damaged frames.
        exit_code: Of the error, see docs/exit-codes.md; 0 if it is done.
        frames: Processed frames.
        faces: Records.
        seconds: Time of the worker, s.
        backend: Name of the back end that classified the faces.
        host: Name of the machine.
        fatal: Whether no other file can succeed either, as when the disk is full.
    """

    clip: Clip
    state: Literal["done", "failed"]
    reason: str = ""
    exit_code: int = 0
    frames: int = 0
    faces: int = 0
    seconds: float = 0.0
    backend: str = ""
    host: str = field(default_factory=platform.node)
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker says when it has loaded its model.

    Attributes:
        backend: One sentence about the back end; see ``Backend.reason``.
        detector: One sentence about what runs the face detector.
        notes: What users should know, one sentence each.
    """

    backend: str
    detector: str
    notes: tuple[str, ...] = ()


# Processes the files of a job until the signal is set; calls the function once a worker is ready.
Runner: TypeAlias = Callable[[Job, Sequence[Clip], Callable[[Ready], None], StopSignal], Iterator[Outcome]]


class WorkerLost(LeafError):
    """The worker process of a file ended in the middle of it, every time."""

    exit_code = 16


class SetUpFailed(LeafError):
    """A worker cannot work at all. It has the exit code of the error that it met.

    Args:
        sentence: What is wrong.
        exit_code: Of the error.
    """

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence, exit_code)  # both, so that it can be pickled
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it; change its permissions") from e
    except OSError as e:
        raise NotFound(f"{path}: cannot be read ({e.strerror}); give another file") from e
