"""The command line's options that several commands share, and how their values are read. Knows typer alone."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

_LONGEST = 1e9  # s; FFmpeg counts microseconds in 64 bits
_EMPTY = "an empty name; is a variable unset?"
_TIME_OF_DAY = re.compile(r"\d+(\.\d*)?|(\d+:)?\d+:[0-5]?\d(\.\d*)?")
_Names = TypeVar("_Names", str | None, list[str] | None)


class Range(StrEnum):
    """The face detector's reach."""

    AUTO = "auto"
    SHORT = "short"
    FULL = "full"


class Transport(StrEnum):
    """How RTSP packets travel."""

    TCP = "tcp"
    UDP = "udp"


class Precision(StrEnum):
    """What a model computes in; "auto" leaves it to the back end."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


def seconds(text: str | float) -> float:
    """Read ``90``, ``1:30``, ``1:30.5`` or ``0:01:30`` as seconds; a default comes as the number it is."""
    if not _TIME_OF_DAY.fullmatch(str(text)):
        raise typer.BadParameter(f"{text!r} is no time; write seconds, m:ss or h:mm:ss")
    total = 0.0
    for part in str(text).split(":"):
        total = total * 60 + float(part)
    if total > _LONGEST:
        raise typer.BadParameter(f"{text!r} is longer than any file")
    return total


def finite(value: float | None) -> float | None:
    """Refuse nan and inf, which pass every comparison or last for ever."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no usable number")
    return value


def named(text: str | Path) -> Path:
    """Read the name of a file or folder; an unset variable of a script leaves "" of it."""
    if not str(text):
        raise typer.BadParameter(_EMPTY)
    return Path(text)


def not_empty(names: _Names) -> _Names:
    """Refuse an empty name, or one among several, where a name need not be a path."""
    if names == "" or (isinstance(names, list) and "" in names):
        raise typer.BadParameter(_EMPTY)
    return names


_result = partial(typer.Option, rich_help_panel="Results")
_recognition = partial(typer.Option, rich_help_panel="RecognitionConfig")
_reading = partial(typer.Option, rich_help_panel="What is read")
_live = partial(typer.Option, rich_help_panel="Live sources")
_watching = partial(typer.Option, rich_help_panel="Watching it run")

Out: TypeAlias = Annotated[
    Path | None, _result("--out", "-o", parser=named, metavar="DIR", help="Folder for all results.")
]
Jsonl: TypeAlias = Annotated[
    str | None,
    _result("--jsonl", callback=not_empty, metavar="PATH|-", help="Records, one JSON per line; - is stdout."),
]
NoJsonl: TypeAlias = Annotated[bool, _result("--no-jsonl", help="Write no records.")]
Csv: TypeAlias = Annotated[
    Path | None, _result("--csv", parser=named, metavar="PATH", help="Records as a table as well.")
]
Parquet: TypeAlias = Annotated[
    Path | None, _result("--parquet", parser=named, metavar="PATH", help="Records as Parquet as well.")
]
Events: TypeAlias = Annotated[
    Path | None,
    _result(
        "--events", parser=named, metavar="PATH", help="Each expression's start, end and dwell, one JSON per line."
    ),
]
Plot: TypeAlias = Annotated[
    Path | None, _result("--plot", parser=named, metavar="PATH", help="Where the timeline goes (PNG).")
]
NoPlot: TypeAlias = Annotated[bool, _result("--no-plot", help="Draw no timeline.")]
SaveVideo: TypeAlias = Annotated[
    bool | None, _result("--save-video/--no-save-video", help="Write the annotated video.")
]
SavePicture: TypeAlias = Annotated[
    bool | None, _result("--save-picture/--no-save-picture", help="Write the annotated picture.")
]
Show: TypeAlias = Annotated[bool | None, _result("--show/--no-show", help="Open a window; q or Ctrl-C ends it.")]
ShowAuto: TypeAlias = Annotated[
    bool | None, _result("--show/--no-show", help="Open a window (default: where there is a display).")
]
Blur: TypeAlias = Annotated[bool, _result("--blur", help="Hide faces in all pictures that are written or shown.")]

BackendName: TypeAlias = Annotated[
    str, _recognition("--backend", metavar="NAME", help="auto, onnxruntime, openvino, tensorrt, tensorrt-rtx.")
]
Model: TypeAlias = Annotated[
    Path | None, _recognition("--model", parser=named, metavar="PATH", help="Another model than the bundled one.")
]
Threads: TypeAlias = Annotated[
    int, _recognition(min=0, max=1024, metavar="N", help="CPU threads for inference; 0: the back end's choice.")
]
PrecisionName: TypeAlias = Annotated[
    Precision,
    _recognition(
        "--precision",
        metavar="NAME",
        help="fp32; int8: the quantised files beside the model, on CPUs; bf16: OpenVINO; fp16: GPUs; auto: the best.",
    ),
]
FaceRange: TypeAlias = Annotated[
    Range, _recognition("--range", help="Face detector: short is for faces within two metres.")
]
MaxFaces: TypeAlias = Annotated[int, _recognition(min=0, metavar="N", help="The N largest faces alone; 0: all.")]
EmotionHz: TypeAlias = Annotated[
    float, _recognition(min=0, metavar="HZ", callback=finite, help="Answers per second and face; 0: every frame.")
]
TotalHz: TypeAlias = Annotated[
    float | None,
    _recognition(
        min=0,
        metavar="HZ",
        callback=finite,
        help="Answers per second of all faces of a source; 0: no limit (default: 40 on a CPU, no limit on a GPU).",
    ),
]
Smooth: TypeAlias = Annotated[
    float, _recognition(min=0, metavar="SECONDS", callback=finite, help="Time constant of the filter; 0: raw.")
]
MinDwell: TypeAlias = Annotated[
    float, _recognition(min=0, metavar="SECONDS", callback=finite, help="A label stays at least this long.")
]
UncertainBelow: TypeAlias = Annotated[
    float, _recognition(min=0, max=1, metavar="P", callback=finite, help="A leading probability below it is uncertain.")
]

Start: TypeAlias = Annotated[float, _reading(parser=seconds, metavar="TIME", help="Begin there (s or m:ss).")]
End: TypeAlias = Annotated[float | None, _reading(parser=seconds, metavar="TIME", help="Stop there (s or m:ss).")]
Stride: TypeAlias = Annotated[int, _reading(min=1, metavar="N", help="Every Nth frame alone.")]
MaxFps: TypeAlias = Annotated[
    float | None, _reading(min=0.01, metavar="FPS", callback=finite, help="No more frames per second than this.")
]
Loop: TypeAlias = Annotated[bool, _reading("--loop", help="Play files over and over, until stopped.")]
Realtime: TypeAlias = Annotated[bool, _reading("--realtime", help="Read files as if they were live.")]
Duration: TypeAlias = Annotated[
    float | None,
    _reading(
        parser=seconds, metavar="TIME", help="Stop each file, or what runs side by side, after this much wall time."
    ),
]

Sources: TypeAlias = Annotated[
    Path | None, _live(parser=named, metavar="FILE", help="TOML file that names the sources; all run at once.")
]
RtspTransport: TypeAlias = Annotated[Transport, _live(help="How RTSP packets travel.")]
Wait: TypeAlias = Annotated[bool, _live("--wait", help="Wait for sources that are not there yet.")]
MaxReconnects: TypeAlias = Annotated[
    int | None, _live(min=0, metavar="N", help="Give a lost source up after this many tries.")
]

Metrics: TypeAlias = Annotated[
    int | None,
    _watching(
        "--metrics",
        min=0,
        max=65535,
        metavar="PORT",
        help="Answer /metrics (Prometheus) and /healthz there, to this machine alone; 0: a free port.",
    ),
]
LogJson: TypeAlias = Annotated[
    bool, _watching("--log-json", help="ProgressCallback on stderr what happens as JSON, one object per line.")
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
