"""The command line's options in groups, each a dataclass that `video`, `webcam` and `image` take whole or in part.

A group is the one place that lists its options, in the order of the help, with their defaults, and that makes of them
what a call asks for. Knows typer, the options and, inside functions, the parts of a request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from leaf_rt.cli import options as opt

if TYPE_CHECKING:
    from leaf_rt.cli.monitor import Monitor
    from leaf_rt.recognition.config import RecognitionConfig
    from leaf_rt.sinks.config import OutputConfig
    from leaf_rt.sources.base import SourceOptions


class Only:
    """In ``Annotated[Group, Only("a", "b")]``: the command offers these options of the group; others keep defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class Recognising:
    """How faces are found, followed and classified."""

    backend: opt.BackendName = "auto"
    model: opt.Model = None
    precision: opt.PrecisionName = opt.Precision.AUTO
    threads: opt.Threads = 0
    face_range: opt.FaceRange = opt.Range.AUTO
    max_faces: opt.MaxFaces = 0
    emotion_hz: opt.EmotionHz = 10.0
    total_hz: opt.TotalHz = None
    smooth: opt.Smooth = 0.3
    min_dwell: opt.MinDwell = 0.4
    uncertain_below: opt.UncertainBelow = 0.4

    def request(self) -> RecognitionConfig:
        """What they ask for.

        Raises:
            typer.BadParameter: Two of them contradict each other.
        """
        if self.emotion_hz == 0 and self.total_hz is not None and self.total_hz > 0:
            raise typer.BadParameter("contradicts --emotion-hz 0, which sets no limit", param_hint="--total-hz")

        from leaf_rt.models.spec import DEFAULT_MODEL
        from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
        from leaf_rt.recognition.smoothing import SmoothOptions

        return RecognitionConfig(
            model=self.model or DEFAULT_MODEL,
            backend=self.backend,
            threads=self.threads,
            precision="" if self.precision is opt.Precision.AUTO else self.precision.value,
            range=self.face_range.value,
            pipeline=PipelineOptions(classify_fps=self.emotion_hz, max_faces=self.max_faces),
            max_classify_fps=self.total_hz,
            smooth=SmoothOptions(
                time_constant=self.smooth, min_dwell=self.min_dwell, uncertain_below=self.uncertain_below
            ),
        )


@dataclass(frozen=True, slots=True)
class Results:
    """What is written and shown."""

    out: opt.Out = None
    save: opt.SaveVideo = None
    jsonl: opt.Jsonl = None
    no_jsonl: opt.NoJsonl = False
    csv: opt.Csv = None
    parquet: opt.Parquet = None
    events: opt.Events = None
    plot: opt.Plot = None
    no_plot: opt.NoPlot = False
    show: opt.Show = False
    blur: opt.Blur = False

    def request(self) -> OutputConfig:
        """What they ask for.

        Raises:
            typer.BadParameter: Two of them contradict each other.
        """
        if self.jsonl is not None and self.no_jsonl:
            raise typer.BadParameter("contradicts --jsonl", param_hint="--no-jsonl")
        if self.parquet is not None and str(self.parquet) == "-":
            raise typer.BadParameter("needs the name of a file", param_hint="--parquet")
        if [self.jsonl, str(self.csv), str(self.events)].count("-") > 1:
            raise typer.BadParameter("standard output takes one of --jsonl, --csv and --events", param_hint="-")
        if self.plot is not None and self.plot.suffix.lower() not in ("", ".png"):
            raise typer.BadParameter("the timeline is a PNG; give it a name that ends in .png", param_hint="--plot")
        if self.plot is not None and self.no_plot:
            raise typer.BadParameter("contradicts --plot", param_hint="--no-plot")

        from leaf_rt.sinks.config import OutputConfig

        return OutputConfig(
            out=self.out,
            save_video=self.save,
            jsonl="" if self.no_jsonl else self.jsonl,
            csv=self.csv,
            events=self.events,
            parquet=self.parquet,
            plot=Path() if self.no_plot else self.plot,
            show=_can_show() if self.show is None else self.show,
            blur=self.blur,
        )


@dataclass(frozen=True, slots=True)
class LiveResults(Results):
    """The same of a camera, which shows itself where it can."""

    show: opt.ShowAuto = None


@dataclass(frozen=True, slots=True)
class PictureResults(Results):
    """The same of pictures."""

    save: opt.SavePicture = True


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of the sources, and how live ones are held."""

    start: opt.Start = 0.0
    end: opt.End = None
    stride: opt.Stride = 1
    max_fps: opt.MaxFps = None
    loop: opt.Loop = False
    realtime: opt.Realtime = False
    duration: opt.Duration = None
    sources: opt.Sources = None
    rtsp_transport: opt.RtspTransport = opt.Transport.TCP
    wait: opt.Wait = False
    max_reconnects: opt.MaxReconnects = None

    def request(self, **camera: Any) -> SourceOptions:
        """What they ask of each source.

        Args:
            camera: What is asked of a camera beside that: width, height, fps, mirror.

        Raises:
            typer.BadParameter: Two of them contradict each other.
        """
        if self.end is not None and self.end <= self.start:
            raise typer.BadParameter("must lie after --start", param_hint="--end")

        from leaf_rt.sources.base import SourceOptions

        return SourceOptions(
            start=self.start,
            end=self.end,
            stride=self.stride,
            max_fps=self.max_fps,
            loop=self.loop,
            realtime=self.realtime,
            rtsp_transport=self.rtsp_transport.value,
            wait=self.wait,
            max_reconnects=self.max_reconnects,
            **camera,
        )


@dataclass(frozen=True, slots=True)
class Watching:
    """How programs watch the run."""

    metrics: opt.Metrics = None
    log_json: opt.LogJson = False

    def request(self) -> Monitor:
        """What they ask for."""
        from leaf_rt.cli.monitor import Monitor

        return Monitor(self.metrics, self.log_json)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: typer sees every option of a group, the command gets the group.

    Args:
        command: A parameter of it that is a group is annotated with one of the dataclasses here, or with
            ``Annotated[..., Only(...)]``.

    Raises:
        ValueError: ``Only`` names what is no option of the group.
    """
    taken: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    shown: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        group, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if not (isinstance(group, type) and is_dataclass(group)):
            shown.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        only = next((extra.names for extra in extras if isinstance(extra, Only)), None)
        strangers = set(only or ()) - {field.name for field in fields(group)}
        if strangers:
            raise ValueError(f"Only: wanted options of {group.__name__}, got {', '.join(sorted(strangers))}")
        options = [field for field in fields(group) if only is None or field.name in only]
        taken[name] = (group, [field.name for field in options])
        kinds = get_type_hints(group, include_extras=True)
        shown += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name])
            for f in options
        ]

    def run(**values: Any) -> None:
        for name, (group, options) in taken.items():
            values[name] = group(**{option: values.pop(option) for option in options})
        command(**values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined] # typer asks for it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _can_show() -> bool:
    from leaf_rt.render.window import why_no_window

    return why_no_window() is None
