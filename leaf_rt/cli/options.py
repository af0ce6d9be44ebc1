"""The options that several commands share, and how their values are read. Knows only typer and passwords."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from leaf_rt.cli.choices import Decode, Detector, Precision, PriorName, Range, Transport
from leaf_rt.credentials import mask_in

_MAX_SECONDS = 1e9  # FFmpeg counts microseconds in 64 bits
_EMPTY = "empty name; is a shell variable unset?"
_TIME_OF_DAY = re.compile(r"\d+(\.\d*)?|(\d+:)?\d+:[0-5]?\d(\.\d*)?")
_Names = TypeVar("_Names", str | None, list[str] | None)

_USAGE_ERROR: Any = typer.BadParameter.__base__  # typer gives its base class no public name

RENAMED = {"--emotion-hz": "--classify-fps", "--total-hz": "--max-classify-fps"}


class Group(TyperGroup):
    """The commands. What the user typed is shown in a usage error without credentials."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Parse the options before the name of the command."""
        typed = tuple(args)
        with _masked(typed):
            context = super().make_context(info_name, args, *more, **extra)
        context.obj = typed
        return context

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest, and run the command."""
        with _masked(ctx.obj):
            return super().invoke(ctx)


@contextmanager
def _masked(typed: Collection[str]) -> Iterator[None]:
    """Hide credentials in the message of a usage error."""
    try:
        yield
    except _USAGE_ERROR as e:
        e.message = mask_in(e.message, typed)
        raise


class Command(TyperCommand):
    """A command that also accepts the old names of ``RENAMED`` options, which its help does not show."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace old names, then parse. The type of ``ctx`` depends on the version of typer."""
        end = args.index("--") if "--" in args else len(args)
        given = {argument.partition("=")[0] for argument in args[:end]}
        for old, new in RENAMED.items():
            if {old, new} <= given:
                raise typer.BadParameter(f"is the old name of {new}; give only one of them", param_hint=old)
        renamed = []
        for argument in args[:end]:
            name, equals, value = argument.partition("=")
            renamed.append(f"{RENAMED.get(name, name)}{equals}{value}")
        return super().parse_args(ctx, [*renamed, *args[end:]])


def seconds(text: str | float) -> float:
    """Read ``90``, ``1:30``, ``1:30.5`` or ``0:01:30`` as seconds. A default value is a number already."""
    if not _TIME_OF_DAY.fullmatch(str(text)):
        raise typer.BadParameter(f"{text!r} is not a time; write seconds, m:ss or h:mm:ss")
    total = 0.0
    for part in str(text).split(":"):
        total = total * 60 + float(part)
    if total > _MAX_SECONDS:
        raise typer.BadParameter(f"{text!r} is longer than any file")
    return total


def finite(value: float | None) -> float | None:
    """Reject nan and inf, which pass range checks."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def named(text: str | Path) -> Path:
    """Read the path of a file or folder. Reject "", which an unset shell variable leaves."""
    if not str(text):
        raise typer.BadParameter(_EMPTY)
    return Path(text)


def jobs(text: str | int) -> int:
    """Read a number of files, or "auto": 0."""
    if text == "auto" or (str(text).isdecimal() and int(text) > 0):
        return 0 if text == "auto" else int(text)
    raise typer.BadParameter(f"{text!r} is neither a number of at least 1 nor auto")


def not_empty(names: _Names) -> _Names:
    """Reject empty names of things that are not always files."""
    if names == "" or (isinstance(names, list) and "" in names):
        raise typer.BadParameter(_EMPTY)
    return names


_output = partial(typer.Option, rich_help_panel="Output")
_recognition = partial(typer.Option, rich_help_panel="Recognition")
_input = partial(typer.Option, rich_help_panel="Input")
_live = partial(typer.Option, rich_help_panel="Live sources")
_alerts = partial(typer.Option, rich_help_panel="Events and alerts")
_monitoring = partial(typer.Option, rich_help_panel="Monitoring")

Out: TypeAlias = Annotated[
    Path | None,
    _output("--out", "-o", parser=named, metavar="DIR", help="Folder for all results (default: next to the file)."),
]
Jsonl: TypeAlias = Annotated[
    Path | None,
    _output("--jsonl", parser=named, metavar="PATH|-", help="Write all records to one JSON Lines file; - is stdout."),
]
NoJsonl: TypeAlias = Annotated[bool, _output("--no-jsonl", help="Do not write JSON Lines records.")]
Csv: TypeAlias = Annotated[
    Path | None, _output("--csv", parser=named, metavar="PATH|-", help="Also write all records as CSV; - is stdout.")
]
Parquet: TypeAlias = Annotated[
    Path | None, _output("--parquet", parser=named, metavar="PATH", help="Also write all records as Parquet.")
]
Events: TypeAlias = Annotated[
    Path | None,
    _output(
        "--events",
        parser=named,
        metavar="PATH|-",
        help="Write start, end and duration of each expression as JSON Lines; - is stdout.",
    ),
]
Vtt: TypeAlias = Annotated[
    bool, _output("--vtt", help="Write the shown expressions of each source as subtitles (WebVTT).")
]
NoReport: TypeAlias = Annotated[bool, _output("--no-report", help="Do not write the report and its numbers.")]
EventEmotions: TypeAlias = Annotated[
    str | None,
    _alerts(
        "--event-emotions", callback=not_empty, metavar="LABEL,...", help="Only events of these labels (default: all)."
    ),
]
EventMinDwell: TypeAlias = Annotated[
    float,
    _alerts(
        "--event-min-dwell",
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="Only events that last at least this long; their start is reported when they do.",
    ),
]
OnEvent: TypeAlias = Annotated[
    str | None,
    _alerts(
        "--on-event",
        metavar="URL",
        callback=not_empty,
        envvar="LEAF_RT_ON_EVENT",
        help="Post each event as JSON to this URL; LEAF_RT_WEBHOOK_SECRET signs it.",
    ),
]
Mqtt: TypeAlias = Annotated[
    str | None,
    _alerts(
        "--mqtt",
        metavar="URL",
        callback=not_empty,
        envvar="LEAF_RT_MQTT",
        help="Publish events and states to this broker: mqtt://USER:PASSWORD@HOST:PORT/TOPIC, or mqtts:// for TLS.",
    ),
]
Plot: TypeAlias = Annotated[
    Path | None, _output("--plot", parser=named, metavar="PATH", help="File for the timeline (PNG).")
]
NoPlot: TypeAlias = Annotated[bool, _output("--no-plot", help="Do not draw a timeline.")]
SaveVideo: TypeAlias = Annotated[
    bool | None, _output("--save-video/--no-save-video", help="Write the annotated video.")
]
SavePicture: TypeAlias = Annotated[
    bool | None, _output("--save-picture/--no-save-picture", help="Write the annotated picture.")
]
SkipExisting: TypeAlias = Annotated[
    bool,
    _output("--skip-existing", help="Leave out files whose results are complete, as after an interrupted run."),
]
Jobs: TypeAlias = Annotated[
    int,
    _output(
        "--jobs",
        metavar="N|auto",
        parser=jobs,
        help="Files to process at the same time; auto: one per CPU core.",
    ),
]
Show: TypeAlias = Annotated[bool | None, _output("--show/--no-show", help="Open a window; press q or Ctrl-C to stop.")]
ShowAuto: TypeAlias = Annotated[
    bool | None, _output("--show/--no-show", help="Open a window (default: if there is a display).")
]
Blur: TypeAlias = Annotated[bool, _output("--blur", help="Hide faces in all pictures that are written or shown.")]

BackendName: TypeAlias = Annotated[
    str, _recognition("--backend", metavar="NAME", help="auto, onnxruntime, openvino, torch, tensorrt or tensorrt-rtx.")
]
Model: TypeAlias = Annotated[
    Path | None,
    _recognition("--model", parser=named, metavar="PATH", help="Model file to use instead of the bundled one."),
]
Threads: TypeAlias = Annotated[
    int, _recognition(min=0, max=1024, metavar="N", help="CPU threads for inference; 0: chosen by the back end.")
]
PrecisionName: TypeAlias = Annotated[
    Precision,
    _recognition(
        "--precision",
        metavar="NAME",
        help="fp32; int8: on CPUs, with the quantized files of the model; bf16: OpenVINO; fp16: GPUs; auto: the best.",
    ),
]
FaceRange: TypeAlias = Annotated[
    Range,
    _recognition("--range", help="Range of the face detector: short is for faces within two meters of the camera."),
]
DetectorOption: TypeAlias = Annotated[
    Detector,
    _recognition(
        "--detector",
        metavar="NAME",
        help="What runs the face detector: onnxruntime, openvino, torch (on the GPU), or mediapipe, which sends usage "
        "statistics; auto: the first on the CPU whose answers are right here, never mediapipe.",
    ),
]
MaxFaces: TypeAlias = Annotated[
    int, _recognition(min=0, metavar="N", help="Process only the N largest faces; 0: all faces.")
]
ClassifyFps: TypeAlias = Annotated[
    float,
    _recognition(
        "--classify-fps",
        min=0,
        metavar="FPS",
        callback=finite,
        help="Classifications per second per face; 0: every frame.",
    ),
]
MaxClassifyFps: TypeAlias = Annotated[
    float | None,
    _recognition(
        "--max-classify-fps",
        min=0,
        metavar="FPS",
        callback=finite,
        help="Limit of classifications per second for all faces of a source together; 0: no limit "
        "(default: 40 on a CPU, no limit on a GPU).",
    ),
]
Cuts: TypeAlias = Annotated[
    bool, _recognition("--cuts/--no-cuts", help="Look for cuts in videos; all tracks end there.")
]
Reid: TypeAlias = Annotated[
    float,
    _recognition(
        "--reid",
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="Remember a person who is gone for this long, to give the same person_id again; 0: never.",
    ),
]
ReidModel: TypeAlias = Annotated[
    Path | None,
    _recognition(
        "--reid-model",
        parser=named,
        metavar="PATH",
        help="Also compare faces by this face-recognition network (ONNX, 112x112, ArcFace alignment).",
    ),
]
Pose: TypeAlias = Annotated[
    bool, _recognition("--pose", help="Add the head pose to the records: yaw, pitch and roll in degrees.")
]
Landmarks: TypeAlias = Annotated[
    Path | None,
    _recognition(
        "--landmarks",
        parser=named,
        metavar="PATH",
        help="Add blendshapes and a better head pose to the records, by MediaPipe's face_landmarker.task.",
    ),
]
Smooth: TypeAlias = Annotated[
    float,
    _recognition(min=0, metavar="SECONDS", callback=finite, help="Time constant of the smoothing; 0: no smoothing."),
]
SmoothTalking: TypeAlias = Annotated[
    float,
    _recognition(
        "--smooth-talking",
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="Time constant of the smoothing while a face talks; 0: the same as --smooth.",
    ),
]
MinDwell: TypeAlias = Annotated[
    float, _recognition(min=0, metavar="SECONDS", callback=finite, help="Show a label for at least this time.")
]
UncertainBelow: TypeAlias = Annotated[
    float | None,
    _recognition(
        min=0,
        max=1,
        metavar="P",
        callback=finite,
        help='Show "uncertain" if the highest probability is below P (default: as chosen with the model).',
    ),
]
PriorOption: TypeAlias = Annotated[
    PriorName, _recognition("--prior", help="How frequent the classes are; balanced finds more of the rare ones.")
]
Calibrate: TypeAlias = Annotated[
    float,
    _recognition(
        min=0,
        metavar="SECONDS",
        callback=finite,
        help="Once a face has rested so long, take the look of its rest out of its answers; 0: never.",
    ),
]

Start: TypeAlias = Annotated[float, _input(parser=seconds, metavar="TIME", help="Start at this time (s or m:ss).")]
End: TypeAlias = Annotated[float | None, _input(parser=seconds, metavar="TIME", help="Stop at this time (s or m:ss).")]
Stride: TypeAlias = Annotated[int, _input(min=1, metavar="N", help="Process only every Nth frame.")]
MaxFps: TypeAlias = Annotated[
    float | None,
    _input(min=0.01, metavar="FPS", callback=finite, help="Process at most this many frames per second of video."),
]
Loop: TypeAlias = Annotated[bool, _input("--loop", help="Repeat files until you stop the command.")]
Realtime: TypeAlias = Annotated[bool, _input("--realtime", help="Read files as if they were live.")]
DecodeOption: TypeAlias = Annotated[
    Decode,
    _input(
        "--decode",
        help="Where files and network streams are decoded. nvdec is NVIDIA's decoder: experimental, see Engines; auto "
        "takes it where it can be used, and else the CPU.",
    ),
]
Duration: TypeAlias = Annotated[
    float | None,
    _input(parser=seconds, metavar="TIME", help="Stop each run after this much real time; each file has its own run."),
]

Sources: TypeAlias = Annotated[
    Path | None, _live(parser=named, metavar="FILE", help="TOML file that lists sources; all of them run in parallel.")
]
RtspTransport: TypeAlias = Annotated[Transport, _live(help="Transport protocol of RTSP packets.")]
Wait: TypeAlias = Annotated[bool, _live("--wait", help="Wait for sources that are not available yet.")]
MaxReconnects: TypeAlias = Annotated[
    int | None, _live(min=0, metavar="N", help="Give up a lost source after N attempts in a row (default: no limit).")
]

Metrics: TypeAlias = Annotated[
    int | None,
    _monitoring(
        "--metrics",
        min=0,
        max=65535,
        metavar="PORT",
        help="Serve /metrics (Prometheus) and /healthz on this port of localhost; 0: a free port.",
    ),
]
LogJson: TypeAlias = Annotated[
    bool, _monitoring("--log-json", help="Write messages to stderr as JSON, one object per line.")
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
