"""The commands of `leaf-rt`: they parse options and put the parts together.

The composition root: it alone may import from `train` and `engines`, inside its commands. Nothing heavy is imported
at its top, so that `leaf-rt --help` answers at once.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from leaf_rt.cli import exporting
from leaf_rt.cli import options as opt
from leaf_rt.cli.groups import LiveResults, Only, PictureResults, Reading, Recognising, Results, Watching, grouped
from leaf_rt.errors import BackendError, NotFound

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
@grouped
def video(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|URL...", callback=opt.not_empty, help="Video files, rtsp:// or http:// streams, cameras."
        ),
    ] = None,
    *,
    results: Results,
    recognising: Recognising,
    reading: Reading,
    watching: Watching,
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions in video files and streams.

    A file gives three results beside it (or in --out): the annotated video
    NAME.leaf.mp4, the records NAME.leaf.jsonl and the timeline NAME.leaf.png.
    Files run one after the other; streams, cameras and --sources run side by
    side. What has no end of its own (streams, cameras, files with --loop or
    --realtime) writes only what an option asks for.
    """
    read = reading.request()
    if not targets and reading.sources is None:
        raise typer.BadParameter("give at least one file, stream or camera, or --sources FILE", param_hint="FILE|URL")
    outputs = results.request()

    from leaf_rt.cli.session import Session
    from leaf_rt.cli.targets import distinct, without_results
    from leaf_rt.sources.base import Target, is_url
    from leaf_rt.sources.opening import is_camera
    from leaf_rt.sources.sources_file import load_targets
    from leaf_rt.stream.options import RunOptions

    named, left_out = without_results(targets or [])
    wanted = [Target(target, read) for target in named]
    if reading.sources is not None:
        wanted += load_targets(reading.sources, read)
    if results.plot is not None and len(wanted) > 1:
        raise typer.BadParameter("holds the timeline of one source; use --out DIR for several", param_hint="--plot")
    live = reading.realtime or reading.loop or any(is_camera(t.target) or is_url(t.target) for t in wanted)
    run_options = RunOptions(duration=reading.duration)
    session = Session(recognising.request(), outputs, run_options, watching.request(), listing=reading.sources)
    if left_out:
        session.say("info", left_out, event="left_out")
    raise typer.Exit(session.run(distinct(wanted), together=live or reading.sources is not None))


@app.command()
@grouped
def webcam(
    device: Annotated[str, typer.Option(callback=opt.not_empty, help="Number or path of the camera.")] = "0",
    width: Annotated[int | None, typer.Option(min=16, help="Picture width to ask the camera for.")] = None,
    height: Annotated[int | None, typer.Option(min=16, help="Picture height to ask the camera for.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=1, callback=opt.finite, help="Frames per second to ask the camera for.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Show it as a mirror does.")] = True,
    *,
    results: LiveResults,
    recognising: Recognising,
    reading: Annotated[Reading, Only("max_fps", "duration", "wait", "max_reconnects")],
    watching: Watching,
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions live, in a window; q or Ctrl-C ends it.

    Nothing is written unless --out, --save-video, --plot or a file of records asks for it.
    """
    read = reading.request(width=width, height=height, fps=fps, mirror=mirror)
    outputs = results.request()

    from leaf_rt.cli.session import Session
    from leaf_rt.sources.base import Target
    from leaf_rt.stream.options import RunOptions

    session = Session(recognising.request(), outputs, RunOptions(duration=reading.duration), watching.request())
    raise typer.Exit(session.run([Target(device, read)], together=True))


@app.command()
@grouped
def image(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures: JPEG, PNG, WebP, TIFF, BMP.", parser=opt.named)
    ],
    *,
    results: Annotated[PictureResults, Only("out", "save", "jsonl", "no_jsonl", "csv", "parquet", "blur")],
    recognising: Annotated[
        Recognising, Only("backend", "model", "precision", "threads", "face_range", "max_faces", "uncertain_below")
    ],
    debug: opt.Debug = False,
) -> None:
    """Recognise expressions in pictures; small faces too, for large pictures are searched in tiles.

    A picture gives two results beside it (or in --out): the annotated picture
    NAME.leaf.jpg and the records NAME.leaf.jsonl.
    """
    outputs = results.request()

    from leaf_rt.cli.images import ImageCommand

    raise typer.Exit(ImageCommand(recognising.request(), outputs).run(files))


@app.command()
def doctor(model: opt.Model = None, debug: opt.Debug = False) -> None:
    """Show what this machine can do, and what to install for more."""
    from leaf_rt.cli import console
    from leaf_rt.diagnostics.doctor import MISSING, examine
    from leaf_rt.models.spec import DEFAULT_MODEL

    found = examine(model or DEFAULT_MODEL)
    console.findings(console.console(stderr=False), found)
    lacking = [finding.topic for finding in found if finding.status == MISSING]
    if lacking:
        raise BackendError(f"leaf-rt cannot work here yet, see above: {', '.join(lacking)}")


@app.command()
@grouped
def bench(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A clip; by default the demo clip of the repository.", parser=opt.named),
    ] = None,
    *,
    recognising: Annotated[Recognising, Only("backend", "model", "precision", "threads", "face_range")],
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Time the back ends alone, with so many faces per call, as 1,4,8,16,32."),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Measure frames per second end to end, and the time of each stage. The last line is JSON."""
    if batch is not None and file is not None:
        raise typer.BadParameter("times stored faces, not a clip; give one of the two", param_hint="--batch")
    wanted = recognising.request()
    if batch is not None:
        from leaf_rt.backends.benchmark import json_line, measure_backends, parse_batches, table

        found = measure_backends(
            wanted.model, parse_batches(batch), wanted.threads, backend=wanted.backend, precision=wanted.precision
        )
        typer.echo(table(found.rows))
        for text in found.left_out:
            typer.echo(f"left out: {text}")
        typer.echo(json_line(found.rows, model=str(wanted.model), threads=found.threads))
        return

    from leaf_rt.cli import console
    from leaf_rt.diagnostics.bench import end_to_end, rows

    result = end_to_end(file, wanted)
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


app.command(rich_help_panel="Models")(exporting.export)


def _forward(module: str, command: str, arguments: list[str]) -> int:
    """Call ``main([command, *arguments]) -> int`` of a module that may need what is not installed."""
    try:
        target = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.partition(".")[0] in ("train", "engines"):
            raise NotFound(f"leaf-rt {command}: this installation comes without it; install leaf-rt again") from e
        raise BackendError(f"leaf-rt {command}: needs {e.name}; install it with: pip install 'leaf-rt[train]'") from e
    return int(target.main([command, *arguments]))
