"""Groups of options, each a dataclass that a command takes whole or in part.

A group lists its options with their defaults, in the order of the help, and turns their values into the configuration
of a part of the runtime. It imports that part only when it is called, to keep ``--help`` fast.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from leaf_rt.cli import choices
from leaf_rt.cli import options as opt

if TYPE_CHECKING:
    from leaf_rt.alerts.config import AlertConfig
    from leaf_rt.recognition.config import RecognitionConfig
    from leaf_rt.sinks.config import OutputConfig
    from leaf_rt.sources.base import SourceOptions

_Read = TypeVar("_Read")


class Only:
    """Limits a group to some options: ``Annotated[Group, Only("a", "b")]``. The others keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """How faces are found, tracked and classified."""

    backend: opt.BackendName = "auto"
    model: opt.Model = None
    precision: opt.PrecisionName = choices.Precision.AUTO
    threads: opt.Threads = 0
    face_range: opt.FaceRange = choices.Range.AUTO
    detector: opt.DetectorOption = choices.Detector.AUTO
    max_faces: opt.MaxFaces = 0
    classify_fps: opt.ClassifyFps = 10.0
    max_classify_fps: opt.MaxClassifyFps = None
    cuts: opt.Cuts = True
    reid: opt.Reid = 30.0
    reid_model: opt.ReidModel = None
    pose: opt.Pose = False
    landmarks: opt.Landmarks = None
    smooth: opt.Smooth = 0.3
    smooth_talking: opt.SmoothTalking = 1.2
    min_dwell: opt.MinDwell = 0.4
    uncertain_below: opt.UncertainBelow = None
    prior: opt.PriorOption = choices.PriorName.NATURAL
    calibrate: opt.Calibrate = 0.0

    def config(self) -> RecognitionConfig:
        """Return the configuration.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        if self.classify_fps == 0 and self.max_classify_fps is not None and self.max_classify_fps > 0:
            raise typer.BadParameter(
                "contradicts --classify-fps 0, which classifies every frame", param_hint="--max-classify-fps"
            )

        from leaf_rt.models.spec import DEFAULT_MODEL
        from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
        from leaf_rt.recognition.smoothing import SmoothOptions

        return RecognitionConfig(
            model=self.model or DEFAULT_MODEL,
            backend=self.backend,
            threads=self.threads,
            precision="" if self.precision is choices.Precision.AUTO else self.precision.value,
            range=self.face_range.value,
            detector=self.detector.value,
            pipeline=PipelineOptions(classify_fps=self.classify_fps, max_faces=self.max_faces),
            max_classify_fps=self.max_classify_fps,
            cuts=self.cuts,
            reid=self.reid,
            reid_model=self.reid_model,
            pose=self.pose,
            landmarks=self.landmarks,
            uncertain_below=self.uncertain_below,
            prior=self.prior.value,
            calibrate=self.calibrate,
            smooth=SmoothOptions(
                time_constant=self.smooth,
                min_dwell=self.min_dwell,
                talking_time_constant=self.smooth_talking,
            ),
        )


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written and shown."""

    out: opt.Out = None
    save: opt.SaveVideo = None
    jsonl: opt.Jsonl = None
    no_jsonl: opt.NoJsonl = False
    csv: opt.Csv = None
    parquet: opt.Parquet = None
    events: opt.Events = None
    event_emotions: opt.EventEmotions = None
    event_min_dwell: opt.EventMinDwell = 0.0
    plot: opt.Plot = None
    no_plot: opt.NoPlot = False
    no_report: opt.NoReport = False
    vtt: opt.Vtt = False
    show: opt.Show = False
    blur: opt.Blur = False

    def config(self) -> OutputConfig:
        """Return the configuration. Records in one shared file replace the files of records per source.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        from leaf_rt.results.events import EventFilter
        from leaf_rt.sinks.config import STDOUT, OutputConfig

        emotions = None if self.event_emotions is None else tuple(map(str.strip, self.event_emotions.split(",")))
        if self.jsonl is not None and self.no_jsonl:
            raise typer.BadParameter("contradicts --jsonl", param_hint="--no-jsonl")
        if self.parquet == STDOUT:
            raise typer.BadParameter("needs a file name; Parquet cannot go to stdout", param_hint="--parquet")
        if self.plot is not None and self.plot.suffix.lower() not in ("", ".png"):
            raise typer.BadParameter("the timeline is a PNG file; use a name that ends in .png", param_hint="--plot")
        if self.plot is not None and self.no_plot:
            raise typer.BadParameter("contradicts --plot", param_hint="--no-plot")
        config = OutputConfig(
            out=self.out,
            annotated=self.save,
            records=self.jsonl is None and not self.no_jsonl,
            timeline=not self.no_plot,
            report=not self.no_report,
            subtitles=self.vtt,
            timeline_file=self.plot,
            jsonl=self.jsonl,
            csv=self.csv,
            events=self.events,
            event_filter=EventFilter(emotions, self.event_min_dwell),
            parquet=self.parquet,
            show=_can_show() if self.show is None else self.show,
            blur=self.blur,
        )
        on_stdout = [option for option, path in config.shared.items() if path == STDOUT]
        if len(on_stdout) > 1:
            raise typer.BadParameter(f"only one of {' and '.join(on_stdout)} can go to stdout", param_hint="-")
        return config


@dataclass(frozen=True, slots=True)
class LiveOutputOptions(OutputOptions):
    """The same for a camera, which is shown if there is a display."""

    show: opt.ShowAuto = None


@dataclass(frozen=True, slots=True)
class PictureOutputOptions(OutputOptions):
    """The same for pictures, which have no timeline and no report."""

    save: opt.SavePicture = True
    no_plot: opt.NoPlot = True
    no_report: opt.NoReport = True


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """Who is told about events."""

    on_event: opt.OnEvent = None
    mqtt: opt.Mqtt = None

    def config(self, output: OutputOptions) -> AlertConfig:
        """Return the configuration. The environment variable ``LEAF_RT_WEBHOOK_SECRET`` is the key of signatures.

        Args:
            output: What else is done with events.

        Raises:
            typer.BadParameter: An address is not usable, which the message does not contain; or nothing is done with
                the events that are asked for.
        """
        if self.on_event is None and self.mqtt is None and output.events is None:
            for option, given in {
                "--event-emotions": output.event_emotions is not None,
                "--event-min-dwell": output.event_min_dwell > 0,
            }.items():
                if given:
                    raise typer.BadParameter("needs --events, --on-event or --mqtt", param_hint=option)

        from leaf_rt.alerts.config import AlertConfig, broker, web_address

        return AlertConfig(
            webhook=_read("--on-event", self.on_event, web_address),
            secret=os.environ.get("LEAF_RT_WEBHOOK_SECRET") or None,
            mqtt=_read("--mqtt", self.mqtt, broker),
        )


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Which part of the sources is read, and how live sources are handled."""

    start: opt.Start = 0.0
    end: opt.End = None
    stride: opt.Stride = 1
    max_fps: opt.MaxFps = None
    loop: opt.Loop = False
    realtime: opt.Realtime = False
    decode: opt.DecodeOption = choices.Decode.CPU
    duration: opt.Duration = None
    sources: opt.Sources = None
    rtsp_transport: opt.RtspTransport = choices.Transport.TCP
    wait: opt.Wait = False
    max_reconnects: opt.MaxReconnects = None

    def config(self, **camera: Any) -> SourceOptions:
        """Return the options of each source.

        Args:
            camera: Options of a camera: width, height, fps, mirror.

        Raises:
            typer.BadParameter: Two options contradict each other.
        """
        if self.end is not None and self.end <= self.start:
            raise typer.BadParameter("must be after --start", param_hint="--end")

        from leaf_rt.sources.base import SourceOptions

        return SourceOptions(
            start=self.start,
            end=self.end,
            stride=self.stride,
            max_fps=self.max_fps,
            loop=self.loop,
            realtime=self.realtime,
            decode=self.decode.value,
            rtsp_transport=self.rtsp_transport.value,
            wait=self.wait,
            max_reconnects=self.max_reconnects,
            **camera,
        )


@dataclass(frozen=True, slots=True)
class MonitoringOptions:
    """How other programs monitor the command."""

    metrics: opt.Metrics = None
    log_json: opt.LogJson = False


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that takes groups: typer sees every option, the command gets the groups.

    Args:
        command: Its groups are parameters with the type ``Group`` or ``Annotated[Group, Only(...)]``, where ``Group``
            is a dataclass whose fields are options.

    Raises:
        ValueError: ``Only`` names an option that the group does not have.
    """
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}  # parameter: group and its options
    parameters: list[inspect.Parameter] = []  # as typer sees them
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        group, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        only = next((extra.names for extra in extras if isinstance(extra, Only)), None)
        unknown = set(only or ()) - {field.name for field in fields(group)}
        if unknown:
            raise ValueError(f"Only: {group.__name__} has no option {', '.join(sorted(unknown))}")
        options = [field for field in fields(group) if only is None or field.name in only]
        groups[name] = (group, [field.name for field in options])
        types = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
            for f in options
        ]

    def run(**values: Any) -> None:
        for name, (group, options) in groups.items():
            values[name] = group(**{option: values.pop(option) for option in options})
        command(**values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _read(option: str, text: str | None, read: Callable[[str], _Read]) -> _Read | None:
    """Read the value of an option that was given."""
    try:
        return None if text is None else read(text)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint=option) from None


def _can_show() -> bool:
    from leaf_rt.render.window import why_no_window

    return why_no_window() is None
