"""The command line's options that several commands share, and how their values are read. Knows typer alone."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

_LONGEST = 1e9  # s; FFmpeg counts microseconds in 64 bits
_TIME_OF_DAY = re.compile(r"\d+(\.\d*)?|(\d+:)?\d+:[0-5]?\d(\.\d*)?")


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


# readable=False: whoever opens the file says what is wrong, with its own exit code.
_RESULTS, _RECOGNITION, _TIME, _LIVE = "Results", "Recognition", "What is read", "Live sources"
_WATCHING = "Watching it run"

Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", readable=False, metavar="DIR", help="Folder for all results.", rich_help_panel=_RESULTS
    ),
]
Jsonl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--jsonl", metavar="PATH|-", help="Records, one JSON per line; - is stdout.", rich_help_panel=_RESULTS
    ),
]
NoJsonl: TypeAlias = Annotated[bool, typer.Option("--no-jsonl", help="Write no records.", rich_help_panel=_RESULTS)]
Csv: TypeAlias = Annotated[
    Path | None,
    typer.Option("--csv", readable=False, metavar="PATH", help="Records as a table as well.", rich_help_panel=_RESULTS),
]
Parquet: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--parquet", readable=False, metavar="PATH", help="Records as Parquet as well.", rich_help_panel=_RESULTS
    ),
]
Events: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--events",
        readable=False,
        metavar="PATH",
        help="Each expression's start, end and dwell, one JSON per line.",
        rich_help_panel=_RESULTS,
    ),
]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--plot", readable=False, metavar="PATH", help="Where the timeline goes (PNG).", rich_help_panel=_RESULTS
    ),
]
NoPlot: TypeAlias = Annotated[bool, typer.Option("--no-plot", help="Draw no timeline.", rich_help_panel=_RESULTS)]
SaveVideo: TypeAlias = Annotated[
    bool | None,
    typer.Option("--save-video/--no-save-video", help="Write the annotated video.", rich_help_panel=_RESULTS),
]
SavePicture: TypeAlias = Annotated[
    bool | None,
    typer.Option("--save-picture/--no-save-picture", help="Write the annotated picture.", rich_help_panel=_RESULTS),
]
Show: TypeAlias = Annotated[
    bool | None, typer.Option("--show/--no-show", help="Open a window; q or Ctrl-C ends it.", rich_help_panel=_RESULTS)
]
ShowAuto: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--show/--no-show", help="Open a window (default: where there is a display).", rich_help_panel=_RESULTS
    ),
]
Blur: TypeAlias = Annotated[
    bool, typer.Option("--blur", help="Hide faces in all pictures that are written or shown.", rich_help_panel=_RESULTS)
]

BackendName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--backend", metavar="NAME", help="auto, onnxruntime, openvino, tensorrt.", rich_help_panel=_RECOGNITION
    ),
]
Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--model",
        readable=False,
        metavar="PATH",
        help="Another model than the bundled one.",
        rich_help_panel=_RECOGNITION,
    ),
]
Threads: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        metavar="N",
        help="CPU threads for inference; 0: the back end's choice.",
        rich_help_panel=_RECOGNITION,
    ),
]
PrecisionName: TypeAlias = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="fp32; int8: the quantised files beside the model, on CPUs; bf16: OpenVINO; fp16: GPUs; auto: the best.",
        rich_help_panel=_RECOGNITION,
    ),
]
FaceRange: TypeAlias = Annotated[
    Range,
    typer.Option("--range", help="Face detector: short is for faces within two metres.", rich_help_panel=_RECOGNITION),
]
MaxFaces: TypeAlias = Annotated[
    int, typer.Option(min=0, metavar="N", help="The N largest faces alone; 0: all.", rich_help_panel=_RECOGNITION)
]
EmotionHz: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="HZ",
        callback=finite,
        help="Answers per second and face; 0: every frame.",
        rich_help_panel=_RECOGNITION,
    ),
]
Smooth: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="Time constant of the filter; 0: raw.",
        rich_help_panel=_RECOGNITION,
    ),
]
MinDwell: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="A label stays at least this long.",
        rich_help_panel=_RECOGNITION,
    ),
]
UncertainBelow: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="P",
        callback=finite,
        help="A leading probability below it is uncertain.",
        rich_help_panel=_RECOGNITION,
    ),
]

Start: TypeAlias = Annotated[
    float, typer.Option(parser=seconds, metavar="TIME", help="Begin there (s or m:ss).", rich_help_panel=_TIME)
]
End: TypeAlias = Annotated[
    float | None, typer.Option(parser=seconds, metavar="TIME", help="Stop there (s or m:ss).", rich_help_panel=_TIME)
]
Stride: TypeAlias = Annotated[
    int, typer.Option(min=1, metavar="N", help="Every Nth frame alone.", rich_help_panel=_TIME)
]
MaxFps: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0.01, metavar="FPS", callback=finite, help="No more frames per second than this.", rich_help_panel=_TIME
    ),
]
Loop: TypeAlias = Annotated[bool, typer.Option("--loop", help="Play files over and over.", rich_help_panel=_TIME)]
Realtime: TypeAlias = Annotated[
    bool, typer.Option("--realtime", help="Read files as if they were live.", rich_help_panel=_TIME)
]
Duration: TypeAlias = Annotated[
    float | None, typer.Option(parser=seconds, metavar="TIME", help="Stop after this time.", rich_help_panel=_TIME)
]

Sources: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        readable=False, metavar="FILE", help="TOML file that names the sources; all run at once.", rich_help_panel=_LIVE
    ),
]
RtspTransport: TypeAlias = Annotated[Transport, typer.Option(help="How RTSP packets travel.", rich_help_panel=_LIVE)]
Wait: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Wait for sources that are not there yet.", rich_help_panel=_LIVE)
]
MaxReconnects: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Give a lost source up after this many tries.", rich_help_panel=_LIVE),
]

Metrics: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--metrics",
        min=0,
        max=65535,
        metavar="PORT",
        help="Answer /metrics (Prometheus) and /healthz there, to this machine alone; 0: a free port.",
        rich_help_panel=_WATCHING,
    ),
]
LogJson: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--log-json", help="Say on stderr what happens as JSON, one object per line.", rich_help_panel=_WATCHING
    ),
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
