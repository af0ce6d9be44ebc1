"""The commands ``speed`` and ``accuracy``. Knows typer; must not know how anything is measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from leaf_rt.cli import options as opt
from leaf_rt.errors import NotFound

if TYPE_CHECKING:
    from benchmarks.report import Report

app = typer.Typer(
    help="leaf-rt beside other packages.", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
_DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"

Peers = Annotated[str, typer.Option(metavar="NAME,...", help="Only these peers; see benchmarks/peers.toml.")]
Also = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with more peers, as benchmarks/peers.toml.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the environments, downloads and results.")]
Constraint = Annotated[Path | None, typer.Option(metavar="FILE", help="Constraints for pip.")]


@app.command()
def speed(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="[CLIP]...", help="Videos; the demo clip.")] = None,
    peers: Peers = "",
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each peer over each clip.")] = 3,
    seconds: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Longest run, without loading.")] = 10.0,
    alone: Annotated[int, typer.Option(metavar="N", min=1, help="Frames to measure the recognizer alone.")] = 20,
    also: Also = None,
    out: Out = Path("benchmarks-out"),
    constraint: Constraint = None,
    debug: opt.Debug = False,
) -> None:
    """Measure frames per second, memory and more over the same clips; the last line is JSON."""
    from benchmarks.peers import chosen, read_peers
    from benchmarks.speed.measure import Setting, compare

    setting = Setting(rounds, seconds, alone, out.resolve(), _file(constraint))
    selected = chosen(read_peers(also), peers, "speed")
    videos = [_video(clip) for clip in clips or [_DEMO]]
    _write(compare(selected, videos, setting, _typed(), _notify), out)


@app.command()
def accuracy(
    data: Annotated[Path, typer.Option(metavar="DIR", help="FERPlus: votes and pictures.")],
    photographs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photographs with labels.csv (path, label).")
    ] = None,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Of FERPlus.")] = "test",
    every: Annotated[int, typer.Option(metavar="N", min=1, help="Every such picture of FERPlus.")] = 1,
    per_class: Annotated[int, typer.Option(metavar="N", min=1, help="Most photographs of each class.")] = 400,
    peers: Peers = "",
    also: Also = None,
    out: Out = Path("benchmarks-out"),
    constraint: Constraint = None,
    debug: opt.Debug = False,
) -> None:
    """Measure accuracy on the same pictures; the last line is JSON."""
    from benchmarks.accuracy import measure, pictures
    from benchmarks.peers import chosen, read_peers

    work = out.resolve()
    selected = chosen(read_peers(also), peers, "accuracy")
    faces = pictures.ferplus(data, split, every, work / "pictures", _notify)
    others = pictures.photographs(photographs, per_class, work / "pictures", _notify) if photographs else []
    sample = (
        f"Every picture of the {split} split of FERPlus."
        if every == 1
        else f"Every {every}. picture of the {split} split of FERPlus, in file order."
    )
    if others:
        sample += f" At most {per_class} photographs of each class."
    reports = measure.compare(selected, faces, others, work, _file(constraint), _typed(), sample, _notify)
    _write(reports, out)


def _write(reports: Iterable[Report], out: Path) -> None:
    """Write every report over the one before, so that an interrupted comparison leaves what it has."""
    line = ""
    for report in reports:
        line = report.write(out)
    typer.echo(line)


def _typed() -> str:
    """The command as the user typed it."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def _notify(text: str) -> None:
    typer.echo(text, err=True)


def _video(clip: Path) -> Path:
    return _file(clip) or clip


def _file(path: Path | None) -> Path | None:
    """A file that must exist.

    Raises:
        NotFound: It does not.
    """
    if path is not None and not path.is_file():
        raise NotFound(f"{path}: no such file")
    return path
