"""``python -m engines``: ``export``, and the commands that make and check the bundled model.

Knows typer and, inside the commands, `engines`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaf_rt.cli import exporting
from leaf_rt.cli import options as opt
from leaf_rt.cli.exporting import LabelledFaces, Network, Threads
from leaf_rt.cli.extras import needs_extra
from leaf_rt.cli.groups import grouped
from leaf_rt.cli.streams import say
from leaf_rt.errors import BackendError

app = typer.Typer(
    cls=opt.Group,
    help="Export trained runs; make and check the bundled model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(exporting.export)


@app.command()
@grouped
def bundle(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|CHECKPOINT", parser=opt.named, help="Folder of a run, or its .pt file."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=opt.named, metavar="DIR", help="Folder for the files (default: the package's)."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the files (default: that of the bundled model).")
    ] = "",
    licence: Annotated[
        str,
        typer.Option("--licence", metavar="TEXT", help="Licence of the weights (default: that of the replaced file)."),
    ] = "",
    network: Network,
    faces: LabelledFaces,
    threads: Threads = 0,
    debug: opt.Debug = False,
) -> None:
    """Make all model files that ship with the package from one run, and check them."""
    with needs_extra("python -m engines bundle"):
        from engines.entry import DATA_HINT
        from engines.release import BundleConfig
        from engines.release import bundle as run

    from leaf_rt.models.spec import DEFAULT_MODEL, MODELS

    if faces.data is None:
        raise BackendError(f"bundle: calibration and evaluation need real faces; give {DATA_HINT}")
    config = BundleConfig(
        source=source,
        data=faces.data,
        out=out or MODELS,
        name=name or DEFAULT_MODEL.stem,
        layout=faces.layout,
        cache=faces.cache,
        limit=faces.limit,
        net_side=network.net_side,
        flip=not network.no_flip,
        licence=licence,
        threads=threads,
    )
    result = run(config, exporting.notify)
    say(result.parity.text())
    for path in result.files:
        say(f"{path.stat().st_size / 2**20:6.2f} MiB  {path}")


@app.command()
@grouped
def parity(
    model: Annotated[
        Path | None, typer.Option("--model", parser=opt.named, metavar="PATH", help="Default: the bundled model.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", parser=opt.named, metavar="RUN|CHECKPOINT", help="Compare with this PyTorch model."
        ),
    ] = None,
    *,
    faces: LabelledFaces,
    threads: Threads = 0,
    debug: opt.Debug = False,
) -> None:
    """Compare every runtime and precision on the same faces. The last line is JSON."""
    with needs_extra("python -m engines parity"):
        from engines.parity import check_model

    from leaf_rt.models.spec import DEFAULT_MODEL

    report = check_model(
        model or DEFAULT_MODEL,
        checkpoint,
        data=faces.data,
        layout=faces.layout,
        cache=faces.cache,
        limit=faces.limit,
        threads=threads,
    )
    say(report.text())
    say(report.json())


@app.command()
@grouped
def calibrate(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", parser=opt.named, help="Default: the bundled model.")
    ] = None,
    *,
    backgrounds: Annotated[
        Path | None,
        typer.Option(
            "--backgrounds",
            parser=opt.named,
            metavar="DIR",
            help="Pictures and clips; the model learns what is no face from parts of them.",
        ),
    ] = None,
    faces: LabelledFaces,
    threads: Threads = 0,
    debug: opt.Debug = False,
) -> None:
    """Fit the calibration of a model on validation pictures, and write it into its description."""
    with needs_extra("python -m engines calibrate"):
        from engines.calibration import calibrate as run
        from engines.entry import DATA_HINT

    from leaf_rt.models.spec import DEFAULT_MODEL
    from train.recipes.schema import OPTIONS, Data

    if faces.data is None:
        raise BackendError(f"calibrate: needs real faces; give {DATA_HINT}")
    data = Data(
        layout=OPTIONS["data.layout"].convert(faces.layout, "--layout"), path=str(faces.data), cache=faces.cache
    )
    path = model or DEFAULT_MODEL
    calibration, written = run(
        path,
        data,
        backgrounds=backgrounds,
        fit_quality=path == DEFAULT_MODEL,
        threads=threads,
        notify=exporting.notify,
    )
    say(
        f"temperature {calibration.temperature:.3f}, power of the quality {calibration.quality_exponent:.3f}, "
        f"uncertain below {calibration.uncertain_below:.3f}, balance {calibration.balance:g}"
    )
    for kind, facts in calibration.fitted.items():
        if isinstance(facts, dict):
            say(f"{kind}: {', '.join(f'{name} {value}' for name, value in facts.items())}")
    for file in written:
        say(f"written: description of {file}")


@app.command("model-card")
def model_card(
    ferplus: Annotated[Path, typer.Option("--data", parser=opt.named, metavar="DIR", help="The folder of FERPlus.")],
    others: Annotated[
        Path | None,
        typer.Option("--others", parser=opt.named, metavar="DIR", help="A list of labelled faces of another source."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", parser=opt.named, metavar="PATH", help="Default: the bundled model.")
    ] = None,
    picture: Annotated[
        Path, typer.Option("--picture", parser=opt.named, metavar="FILE.svg", help="The diagram of the card.")
    ] = Path("docs/images/model-honesty.svg"),
    debug: opt.Debug = False,
) -> None:
    """Measure a model, and write the figures into its model card."""
    with needs_extra("python -m engines model-card"):
        from engines.model_card import write_card

    from leaf_rt.models.spec import DEFAULT_MODEL

    card = write_card(model or DEFAULT_MODEL, ferplus, others, picture, exporting.notify)
    say(f"written: {card}, {picture}")


@app.command()
def bench(
    model: Annotated[
        Path | None, typer.Option("--model", parser=opt.named, metavar="PATH", help="Default: the bundled model.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            parser=opt.named,
            metavar="RUN|CHECKPOINT",
            help="Also measure its PyTorch model in eager mode.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Measure an architecture of the trainer with random weights; with --model after the model.",
        ),
    ] = None,
    net_side: Annotated[int, typer.Option("--net-side", metavar="PX", help="Input size of --backbone.")] = 224,
    batch: Annotated[str, typer.Option("--batch", metavar="N,N,...", help="Faces per call.")] = "1,4,8",
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Calls per runtime, precision and batch size.")
    ] = 50,
    threads: Threads = 0,
    debug: opt.Debug = False,
) -> None:
    """Measure the speed of every runtime and precision. The last lines are JSON, one per model."""
    with needs_extra("python -m engines bench"):
        from engines.bench import BenchConfig, run_benchmarks

    from leaf_rt.backends.benchmark import parse_batches

    config = BenchConfig(model, checkpoint, backbone, net_side, parse_batches(batch), threads, repeats)
    lines = []
    for result in run_benchmarks(config):
        say(f"{result.text()}\n")
        lines.append(result.json())
    for line in lines:
        say(line)


@app.command()
def golden(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", parser=opt.named, help="A video of faces.")],
    out: Annotated[Path, typer.Option("--out", parser=opt.named, metavar="FILE", help="The .jpg file to write.")],
    debug: opt.Debug = False,
) -> None:
    """Make the face crops on which engines are compared with their fp32 model."""
    with needs_extra("python -m engines golden"):
        from engines.parity_faces import make_golden

    make_golden(clip, out)
    say(f"written: {out}")


@app.command()
def detectors(
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=opt.named, metavar="DIR", help="Folder for the files (default: the package's)."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", parser=opt.named, metavar="FILE", help="Also make the stored picture from this one."),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Convert the networks of the face detector to ONNX; with a picture, store what MediaPipe finds in it."""
    with needs_extra("python -m engines detectors", "dev"):
        from engines.detectors import make_detectors

    from leaf_rt.models.spec import MODELS

    result = make_detectors(out or MODELS, picture)
    for path in result.files:
        say(f"{path.stat().st_size / 2**20:6.2f} MiB  {path}")
    for kind, sha256 in result.sha256.items():
        say(f"sha256 {sha256} ({kind} range); it belongs into leaf_rt/models/detectors.py")
