"""The command `leaf-rt`: parses options, puts the parts together, turns errors into one sentence and an exit code.

The composition root: it alone may import from `train` and `engines`, inside its commands. Nothing heavy is imported
at its top, so that `leaf-rt --help` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from leaf_rt import jsonlog
from leaf_rt import options as opt
from leaf_rt.errors import BackendError, LeafError, NotFound

EXIT_BUG, EXIT_INTERRUPTED = 70, 130

app = typer.Typer(
    name="leaf-rt",
    help="Which expression does each face show: from video files, cameras, streams and pictures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_FORWARD: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
    "rich_help_panel": "Models",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code and never raises.

    Args:
        argv: Arguments without the program's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    logging.getLogger("leaf_rt").addHandler(logging.NullHandler())  # what people must know is said by the commands
    if "--log-json" in arguments:
        with jsonlog.json_log(debug):
            return _run(arguments, debug, jsonlog.failure)
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s: %(message)s")
    return _run(arguments, debug, _say)


def _run(arguments: list[str], debug: bool, say: Callable[[BaseException, bool, str], None]) -> int:
    try:
        app(args=arguments, prog_name="leaf-rt")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except (LeafError, BrokenPipeError) as e:
        from leaf_rt import console

        if console.nobody_reads(e):
            console.mute_stdout()
        else:
            say(e, debug, str(e))
        return console.exit_code(e)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 - the outermost frame: a bug ends here, said aloud and with its exit code
        from leaf_rt import console

        refused = console.refused(e)
        if refused is not None:
            say(e, debug, str(refused))
            return refused.exit_code
        hint = "" if debug else "; --debug shows where"
        say(e, debug, f"this is a bug in leaf-rt ({type(e).__name__}: {e}){hint}")
        return EXIT_BUG
    return 0


def _say(error: BaseException, debug: bool, sentence: str) -> None:
    from leaf_rt import console

    if debug:
        traceback.print_exception(error)
    console.error(console.console(), sentence)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"leaf-rt {version('leaf-rt')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: opt.Debug = False,
) -> None:
    """Hold what stands before the command."""


@app.command()
def video(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE|URL...", help="Video files, rtsp:// or http:// streams, cameras."),
    ] = None,
    out: opt.Out = None,
    save_video: opt.SaveVideo = None,
    jsonl: opt.Jsonl = None,
    no_jsonl: opt.NoJsonl = False,
    csv: opt.Csv = None,
    parquet: opt.Parquet = None,
    events: opt.Events = None,
    plot: opt.Plot = None,
    no_plot: opt.NoPlot = False,
    show: opt.Show = False,
    blur: opt.Blur = False,
    backend: opt.BackendName = "auto",
    model: opt.Model = None,
    precision: opt.PrecisionName = opt.Precision.AUTO,
    threads: opt.Threads = 0,
    face_range: opt.FaceRange = opt.Range.AUTO,
    max_faces: opt.MaxFaces = 0,
    emotion_hz: opt.EmotionHz = 10.0,
    smooth: opt.Smooth = 0.3,
    min_dwell: opt.MinDwell = 0.4,
    uncertain_below: opt.UncertainBelow = 0.4,
    start: opt.Start = 0.0,
    end: opt.End = None,
    stride: opt.Stride = 1,
    max_fps: opt.MaxFps = None,
    loop: opt.Loop = False,
    realtime: opt.Realtime = False,
    duration: opt.Duration = None,
    sources: opt.Sources = None,
    rtsp_transport: opt.RtspTransport = opt.Transport.TCP,
    wait: opt.Wait = False,
    max_reconnects: opt.MaxReconnects = None,
    metrics: opt.Metrics = None,
    log_json: opt.LogJson = False,
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions in video files and streams.

    A file gives three results beside it (or in --out): the annotated video NAME.leaf.mp4, the records NAME.leaf.jsonl
    and the timeline NAME.leaf.png. Files run one after the other; streams, cameras and --sources run side by side and
    write only what an option asks for.
    """
    if end is not None and end <= start:
        raise typer.BadParameter("must lie after --start", param_hint="--end")
    if not targets and sources is None:
        raise typer.BadParameter("give at least one file, stream or camera, or --sources FILE", param_hint="FILE|URL")
    outputs = opt.outputs(
        out, save_video, jsonl, no_jsonl, csv, plot, no_plot, show, blur, max_faces, events=events, parquet=parquet
    )

    from leaf_rt.request import Monitor
    from leaf_rt.session import Session, distinct
    from leaf_rt.sources import SourceOptions, Target, is_camera
    from leaf_rt.sources.base import is_url
    from leaf_rt.stream import RunOptions

    read = SourceOptions(
        start=start,
        end=end,
        stride=stride,
        max_fps=max_fps,
        loop=loop,
        realtime=realtime,
        rtsp_transport=rtsp_transport.value,
        wait=wait,
        max_reconnects=max_reconnects,
    )
    wanted = [Target(target, read) for target in targets or []]
    if sources is not None:
        from leaf_rt.sources import load_targets

        wanted += load_targets(sources, read)
    if plot is not None and len(wanted) > 1:
        raise typer.BadParameter("holds the timeline of one source; use --out DIR for several", param_hint="--plot")
    together = sources is not None or realtime or loop or any(is_camera(t.target) or is_url(t.target) for t in wanted)
    recognition = opt.recognition(
        model,
        backend,
        threads,
        face_range,
        precision=precision,
        max_faces=max_faces,
        emotion_hz=emotion_hz,
        smooth=smooth,
        min_dwell=min_dwell,
        uncertain_below=uncertain_below,
    )
    session = Session(recognition, outputs, RunOptions(duration=duration), Monitor(metrics, log_json))
    raise typer.Exit(session.run(distinct(wanted), together))


@app.command()
def webcam(
    device: Annotated[str, typer.Option(help="Number or path of the camera.")] = "0",
    width: Annotated[int | None, typer.Option(min=16, help="Picture width to ask the camera for.")] = None,
    height: Annotated[int | None, typer.Option(min=16, help="Picture height to ask the camera for.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=1, callback=opt.finite, help="Frames per second to ask the camera for.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Show it as a mirror does.")] = True,
    out: opt.Out = None,
    save_video: opt.SaveVideo = None,
    jsonl: opt.Jsonl = None,
    no_jsonl: opt.NoJsonl = False,
    csv: opt.Csv = None,
    parquet: opt.Parquet = None,
    events: opt.Events = None,
    plot: opt.Plot = None,
    no_plot: opt.NoPlot = False,
    show: opt.ShowAuto = None,
    blur: opt.Blur = False,
    backend: opt.BackendName = "auto",
    model: opt.Model = None,
    precision: opt.PrecisionName = opt.Precision.AUTO,
    threads: opt.Threads = 0,
    face_range: opt.FaceRange = opt.Range.AUTO,
    max_faces: opt.MaxFaces = 0,
    emotion_hz: opt.EmotionHz = 10.0,
    smooth: opt.Smooth = 0.3,
    min_dwell: opt.MinDwell = 0.4,
    uncertain_below: opt.UncertainBelow = 0.4,
    max_fps: opt.MaxFps = None,
    duration: opt.Duration = None,
    wait: opt.Wait = False,
    max_reconnects: opt.MaxReconnects = None,
    metrics: opt.Metrics = None,
    log_json: opt.LogJson = False,
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions live, in a window; q or Ctrl-C ends it.

    Nothing is written unless --out, --save-video, --plot or a file of records asks for it.
    """
    from leaf_rt.doctor import why_no_window
    from leaf_rt.request import Monitor
    from leaf_rt.session import Session
    from leaf_rt.sources import SourceOptions, Target
    from leaf_rt.stream import RunOptions

    read = SourceOptions(
        max_fps=max_fps,
        wait=wait,
        max_reconnects=max_reconnects,
        width=width,
        height=height,
        fps=fps,
        mirror=mirror,
    )
    recognition = opt.recognition(
        model,
        backend,
        threads,
        face_range,
        precision=precision,
        max_faces=max_faces,
        emotion_hz=emotion_hz,
        smooth=smooth,
        min_dwell=min_dwell,
        uncertain_below=uncertain_below,
    )
    in_window = why_no_window() is None if show is None else show
    outputs = opt.outputs(
        out, save_video, jsonl, no_jsonl, csv, plot, no_plot, in_window, blur, max_faces, events=events, parquet=parquet
    )
    session = Session(recognition, outputs, RunOptions(duration=duration), Monitor(metrics, log_json))
    raise typer.Exit(session.run([Target(device, read)], together=True))


@app.command()
def image(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures: JPEG, PNG, WebP, TIFF, BMP.", readable=False)
    ],
    out: opt.Out = None,
    save_picture: opt.SavePicture = True,
    jsonl: opt.Jsonl = None,
    no_jsonl: opt.NoJsonl = False,
    csv: opt.Csv = None,
    parquet: opt.Parquet = None,
    blur: opt.Blur = False,
    backend: opt.BackendName = "auto",
    model: opt.Model = None,
    precision: opt.PrecisionName = opt.Precision.AUTO,
    threads: opt.Threads = 0,
    face_range: opt.FaceRange = opt.Range.AUTO,
    max_faces: opt.MaxFaces = 0,
    uncertain_below: opt.UncertainBelow = 0.4,
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions in pictures; small faces too, for large pictures are searched in tiles.

    A picture gives two results beside it (or in --out): the annotated NAME.leaf.jpg and the records NAME.leaf.jsonl.
    """
    from leaf_rt.album import Album

    recognition = opt.recognition(
        model,
        backend,
        threads,
        face_range,
        precision=precision,
        max_faces=max_faces,
        uncertain_below=uncertain_below,
    )
    outputs = opt.outputs(out, save_picture, jsonl, no_jsonl, csv, None, True, False, blur, max_faces, parquet=parquet)
    raise typer.Exit(Album(recognition, outputs).run(files))


@app.command()
def doctor(model: opt.Model = None, debug: opt.Debug = False) -> None:
    """Show what this machine can do, and what to install for more."""
    from leaf_rt import console
    from leaf_rt.artifact import DEFAULT_MODEL
    from leaf_rt.doctor import MISSING, examine

    found = examine(model or DEFAULT_MODEL)
    console.findings(console.console(stderr=False), found)
    lacking = [finding.topic for finding in found if finding.status == MISSING]
    if lacking:
        raise BackendError(f"leaf-rt cannot work here yet, see above: {', '.join(lacking)}")


@app.command()
def bench(
    file: Annotated[
        Path | None, typer.Argument(help="A clip; by default the demo clip of the repository.", readable=False)
    ] = None,
    backend: opt.BackendName = "auto",
    precision: opt.PrecisionName = opt.Precision.AUTO,
    model: opt.Model = None,
    threads: opt.Threads = 0,
    face_range: opt.FaceRange = opt.Range.AUTO,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Time the back ends alone, with so many faces per call, as 1,4,8,16,32."),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Measure frames per second end to end, and the time of each stage. The last line is JSON."""
    from leaf_rt import console

    if batch is not None:
        from leaf_rt.artifact import DEFAULT_MODEL
        from leaf_rt.backends.measure import json_line, measure_backends, parse_batches, table

        one = "" if precision is opt.Precision.AUTO else precision.value
        found = measure_backends(model or DEFAULT_MODEL, parse_batches(batch), threads, backend=backend, precision=one)
        typer.echo(table(found.rows))
        for text in found.left_out:
            typer.echo(f"left out: {text}")
        typer.echo(json_line(found.rows, model=str(model or DEFAULT_MODEL), threads=found.threads))
        return
    from leaf_rt.bench import end_to_end, rows

    recognition = opt.recognition(model, backend, threads, face_range, precision=precision)
    result = end_to_end(file, recognition)
    console.facts(console.console(stderr=False), rows(result))
    typer.echo(result.json())


@app.command(help="Train a model on your own faces or a public data set.", **_FORWARD)
def train(ctx: typer.Context) -> None:
    """Forward to the trainer."""
    raise typer.Exit(_forward("train.cli", "train", ctx.args))


@app.command(help="Measure a trained run or a model file on labelled faces.", **_FORWARD)
def evaluate(ctx: typer.Context) -> None:
    """Forward to the trainer."""
    raise typer.Exit(_forward("train.cli", "evaluate", ctx.args))


@app.command(help="Turn a trained run into a model file that the other commands take.", **_FORWARD)
def export(ctx: typer.Context) -> None:
    """Forward to the engines."""
    raise typer.Exit(_forward("engines.cli", "export", ctx.args))


def _forward(module: str, command: str, arguments: list[str]) -> int:
    """Call ``main([command, *arguments]) -> int`` of a module that may need what is not installed."""
    try:
        target = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.partition(".")[0] in ("train", "engines"):
            raise NotFound(f"leaf-rt {command}: this installation comes without it; install leaf-rt again") from e
        raise BackendError(f"leaf-rt {command}: needs {e.name}; install it with: pip install 'leaf-rt[train]'") from e
    return int(target.main([command, *arguments]))
