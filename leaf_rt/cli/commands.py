"""The commands of `leaf-rt`: they read the options and start the work.

Only this package may import from `train` and `engines`, inside its commands. The top of this module imports nothing
heavy, so that `leaf-rt --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaf_rt.cli import batching, exporting, reporting, training
from leaf_rt.cli import options as opt
from leaf_rt.cli.groups import (
    AlertOptions,
    InputOptions,
    LiveOutputOptions,
    MonitoringOptions,
    Only,
    OutputOptions,
    PictureOutputOptions,
    RecognitionOptions,
    grouped,
)
from leaf_rt.cli.streams import say
from leaf_rt.cli.web import ServeGroup, WebGroup
from leaf_rt.errors import BackendError, LeafError

if TYPE_CHECKING:
    from leaf_rt.cli.reporter import Reporter
    from leaf_rt.sinks.config import OutputConfig

app = typer.Typer(
    cls=opt.Group,
    name="leaf-rt",
    help="Recognize facial expressions in videos, cameras, streams and pictures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        say(f"leaf-rt {version('leaf-rt')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Take the options before the name of the command."""


@app.command(cls=opt.Command)
@grouped
def video(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|URL",
            callback=opt.not_empty,
            help="Video files, folders, patterns, rtsp:// or http:// streams, numbers or paths of cameras.",
        ),
    ] = None,
    *,
    skip_existing: opt.SkipExisting = False,
    jobs: opt.Jobs = 1,
    output: OutputOptions,
    recognition: RecognitionOptions,
    inputs: InputOptions,
    alerts: AlertOptions,
    page: WebGroup,
    monitoring: MonitoringOptions,
    debug: opt.Debug = False,
) -> None:
    """Recognize facial expressions in video files and streams.

    Each file gets its results next to it or in --out: the annotated video
    NAME.leaf.mp4, the records NAME.leaf.jsonl, the timeline NAME.leaf.png and
    the report NAME.leaf.html with its numbers in NAME.leaf.summary.json.
    Folders and patterns in quotes stand for the videos in them. Files are
    processed one after the other, or several at once with --jobs, with the
    same results. Streams, cameras and the sources
    of --sources run in parallel. Sources without an end (streams, cameras,
    files with --loop or --realtime) get only the results that you request.
    """
    source_options = inputs.config()
    if not targets and inputs.sources is None:
        raise typer.BadParameter("give at least one file, stream or camera, or --sources FILE", param_hint="FILE|URL")
    output_config, alert_config = output.config(), alerts.config(output)
    if skip_existing:
        _need_results_per_source(output_config)
    shared = [option for option, path in output_config.shared.items() if path is not None]
    if jobs > 1 and shared:
        raise typer.BadParameter(
            f"contradicts {shared[0]}, in which files come one after the other", param_hint="--jobs"
        )

    from leaf_rt.cli.folders import VIDEOS, expand
    from leaf_rt.cli.reporter import Reporter
    from leaf_rt.cli.targets import with_distinct_names, without_results
    from leaf_rt.cli.video import VideoCommand
    from leaf_rt.sources.base import Target
    from leaf_rt.sources.sources_file import load_targets
    from leaf_rt.stream.options import RunOptions
    from leaf_rt.system.cpu import cpu_count

    found = expand(targets or [], VIDEOS, "video")
    output_config = replace(output_config, roots=tuple(found.roots), skip_existing=skip_existing)
    kept, skipped = without_results(found.files)
    sources = [Target(target, source_options) for target in kept]
    if inputs.sources is not None:
        sources += load_targets(inputs.sources, source_options)
    if output.plot is not None and len(sources) > 1:
        raise typer.BadParameter("only for a single source; use --out DIR for several", param_hint="--plot")
    is_live = inputs.realtime or inputs.loop or any(s.address.is_live for s in sources)
    reporter = Reporter(log_json=monitoring.log_json, records_on_stdout=output_config.on_stdout)
    command = VideoCommand(
        recognition.config(),
        output_config,
        RunOptions(duration=inputs.duration),
        reporter,
        alerts=alert_config,
        metrics_port=monitoring.metrics,
        web=page.config(),
        source_options=source_options,
        sources_file=inputs.sources,
        jobs=1 if shared else jobs or cpu_count(),
    )
    for note in (*found.notes, *([skipped] if skipped else [])):
        reporter.notify("info", note, event="left_out")
    _report_missing(found.errors, reporter, alone=not sources)
    raise typer.Exit(command.run(with_distinct_names(sources), parallel=is_live or inputs.sources is not None))


@app.command(cls=opt.Command)
@grouped
def webcam(
    device: Annotated[str, typer.Option(callback=opt.not_empty, help="Number or path of the camera.")] = "0",
    width: Annotated[int | None, typer.Option(min=16, help="Width to request from the camera, px.")] = None,
    height: Annotated[int | None, typer.Option(min=16, help="Height to request from the camera, px.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=1, callback=opt.finite, help="Frames per second to request from the camera.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Mirror the picture.")] = True,
    *,
    output: LiveOutputOptions,
    recognition: RecognitionOptions,
    inputs: Annotated[InputOptions, Only("max_fps", "duration", "wait", "max_reconnects")],
    alerts: AlertOptions,
    page: WebGroup,
    monitoring: MonitoringOptions,
    debug: opt.Debug = False,
) -> None:
    """Recognize facial expressions live, in a window; press q or Ctrl-C to stop.

    It writes files only if you request them with --out, --save-video, --plot
    or an option for records.
    """
    source_options = inputs.config(width=width, height=height, fps=fps, mirror=mirror)
    output_config, alert_config = output.config(), alerts.config(output)

    from leaf_rt.cli.reporter import Reporter
    from leaf_rt.cli.video import VideoCommand
    from leaf_rt.sources.base import Target
    from leaf_rt.stream.options import RunOptions

    command = VideoCommand(
        recognition.config(),
        output_config,
        RunOptions(duration=inputs.duration),
        Reporter(log_json=monitoring.log_json, records_on_stdout=output_config.on_stdout),
        alerts=alert_config,
        metrics_port=monitoring.metrics,
        web=page.config(),
        source_options=source_options,
    )
    raise typer.Exit(command.run([Target(device, source_options)], parallel=True))


@app.command(cls=opt.Command)
@grouped
def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            callback=opt.not_empty,
            help="Numbers or paths of cameras, rtsp:// or http:// streams, video files.",
        ),
    ] = None,
    *,
    page: ServeGroup,
    output: Annotated[
        OutputOptions,
        Only("out", "save", "jsonl", "no_jsonl", "csv", "parquet", "events", "event_emotions", "event_min_dwell",
             "no_plot", "blur"),
    ],
    recognition: RecognitionOptions,
    inputs: Annotated[
        InputOptions,
        Only("loop", "decode", "max_fps", "duration", "sources", "rtsp_transport", "wait", "max_reconnects"),
    ],
    alerts: AlertOptions,
    monitoring: Annotated[MonitoringOptions, Only("log_json")],
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """Serve the live page and the HTTP API until Ctrl-C; the address is printed.

    The page shows the sources given here, the camera of the computer that
    opens it, and what its users add. Files are played at their own speed.
    Nothing is stored unless you request it with --out or another option.
    """
    source_options = inputs.config()
    output_config, alert_config, web = output.config(), alerts.config(output), page.config()

    from leaf_rt.cli.extras import needs_extra
    from leaf_rt.cli.reporter import Reporter

    with needs_extra("leaf-rt serve", "web"):
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401

    from dataclasses import replace

    from leaf_rt.cli.targets import with_distinct_names
    from leaf_rt.cli.video import VideoCommand
    from leaf_rt.sources.base import Target
    from leaf_rt.sources.sources_file import load_targets
    from leaf_rt.stream.options import RunOptions

    played = replace(source_options, realtime=True)
    sources = [Target(target, played) for target in targets or []]
    if inputs.sources is not None:
        sources += load_targets(inputs.sources, played)
    command = VideoCommand(
        recognition.config(),
        output_config,
        RunOptions(duration=inputs.duration),
        Reporter(log_json=monitoring.log_json, records_on_stdout=output_config.on_stdout),
        alerts=alert_config,
        sources_file=inputs.sources,
        web=web,
        source_options=source_options,
        keep_open=True,
    )
    raise typer.Exit(command.run(with_distinct_names(sources), parallel=True))


@app.command()
@grouped
def image(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Pictures, folders, patterns: JPEG, PNG, WebP, TIFF, BMP.", parser=opt.named
        ),
    ],
    *,
    skip_existing: opt.SkipExisting = False,
    output: Annotated[PictureOutputOptions, Only("out", "save", "jsonl", "no_jsonl", "csv", "parquet", "blur")],
    recognition: Annotated[
        RecognitionOptions,
        Only(
            "backend",
            "model",
            "precision",
            "threads",
            "face_range",
            "detector",
            "max_faces",
            "pose",
            "landmarks",
            "uncertain_below",
            "prior",
        ),
    ],
    debug: opt.Debug = False,
) -> None:
    """Recognize facial expressions in pictures, even of small faces: large pictures are searched in tiles.

    Each picture gets two results, next to it or in --out: the annotated
    picture NAME.leaf.jpg and the records NAME.leaf.jsonl.
    """
    output_config = output.config()
    if skip_existing:
        _need_results_per_source(output_config)

    from leaf_rt.cli.folders import expand
    from leaf_rt.cli.images import ImageCommand
    from leaf_rt.cli.reporter import Reporter
    from leaf_rt.sources.picture import SUFFIXES

    found = expand([str(file) for file in files], SUFFIXES, "picture")
    output_config = replace(output_config, roots=tuple(found.roots), skip_existing=skip_existing)
    reporter = Reporter(records_on_stdout=output_config.on_stdout)
    for note in found.notes:
        reporter.notify("info", note)
    _report_missing(found.errors, reporter, alone=not found.files)
    raise typer.Exit(ImageCommand(recognition.config(), output_config, reporter).run([*map(Path, found.files)]))


def _need_results_per_source(outputs: OutputConfig) -> None:
    """Refuse files that all sources share: those that are skipped would be missing in them."""
    shared = [option for option, path in outputs.shared.items() if path is not None]
    if shared:
        raise typer.BadParameter(
            f"contradicts {shared[0]}, which would hold only the files that are not skipped",
            param_hint="--skip-existing",
        )


def _report_missing(errors: Sequence[LeafError], reporter: Reporter, *, alone: bool) -> None:
    """Report folders and patterns without files; ``alone``: raise the first, because there is nothing else to do."""
    for error in errors[1 if alone else 0 :]:
        reporter.error(error)
    if alone and errors:
        raise errors[0]


app.command(cls=opt.Command)(batching.batch)
app.command()(reporting.report)


@app.command()
def doctor(model: opt.Model = None, debug: opt.Debug = False) -> None:
    """Show what works on this machine, and what to install for more."""
    from leaf_rt.cli import console
    from leaf_rt.diagnostics.doctor import MISSING, examine
    from leaf_rt.models.spec import DEFAULT_MODEL

    findings = examine(model or DEFAULT_MODEL)
    console.findings(console.console(stderr=False), findings)
    missing = [finding.topic for finding in findings if finding.status == MISSING]
    if missing:
        raise BackendError(f"leaf-rt cannot run on this machine; fix these, as shown above: {', '.join(missing)}")


@app.command()
@grouped
def bench(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A video file (default: the demo clip of the repository).", callback=opt.not_empty
        ),
    ] = None,
    *,
    recognition: Annotated[
        RecognitionOptions, Only("backend", "model", "precision", "threads", "face_range", "detector")
    ],
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Measure only the back ends, with N faces per call, such as 1,4,8,16,32."),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Measure frames per second end to end, and the time of each stage. The last line is JSON."""
    if batch is not None and file is not None:
        raise typer.BadParameter("measures back ends without a video; omit FILE or --batch", param_hint="--batch")
    config = recognition.config()
    if batch is not None:
        from leaf_rt.backends.benchmark import json_line, measure_backends, parse_batches, table

        measured = measure_backends(
            config.model, parse_batches(batch), config.threads, backend=config.backend, precision=config.precision
        )
        say(table(measured.rows))
        for text in measured.left_out:
            say(f"left out: {text}")
        say(json_line(measured.rows, model=str(config.model), threads=measured.threads))
        return

    from leaf_rt.cli import console
    from leaf_rt.diagnostics.bench import end_to_end, rows

    result = end_to_end(file, config)
    console.facts(console.console(stderr=False), rows(result))
    say(result.json())


training.add_commands(app)
app.command(rich_help_panel="Models")(exporting.export)
