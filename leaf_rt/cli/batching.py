"""The command `leaf-rt batch`. Imports nothing heavy at its top."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaf_rt.cli import options as opt
from leaf_rt.cli.choices import Format
from leaf_rt.cli.groups import InputOptions, MonitoringOptions, Only, RecognitionOptions, grouped

if TYPE_CHECKING:
    from leaf_rt.cli.folders import Expanded
    from leaf_rt.recognition.config import RecognitionConfig


@grouped
def batch(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|LIST|FILE",
            callback=opt.not_empty,
            help="Folders, lists (.txt, one path per line), patterns, video files, pictures.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", parser=opt.named, metavar="DIR", help="Folder for all results.")],
    kind: Annotated[Format, typer.Option("--format", help="Format of the records.")] = Format.JSONL,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N|auto",
            parser=opt.jobs,
            help="Worker processes, or files at the same time on a cluster (default: one per CPU core).",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            callback=opt.not_empty,
            help="Work on this Ray cluster: HOST:PORT, auto, or local for one on this machine.",
        ),
    ] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Do files again whose results were made with other options.")
    ] = False,
    inputs: Annotated[InputOptions, Only("start", "end", "stride", "max_fps")],
    recognition: RecognitionOptions,
    monitoring: Annotated[MonitoringOptions, Only("log_json")],
    debug: opt.Debug = False,
) -> None:
    """Write the records of thousands of files, on all cores or on a cluster; the same command goes on after a stop.

    Each file gets one result, NAME.leaf.jsonl, under --out in the structure of
    its folders. A result is complete, or it is not there. Files that are done
    are skipped; those that failed or have changed are done again. One bad file
    stops nothing.
    """
    source_options, config = inputs.config(), recognition.config()

    from importlib.metadata import version

    from leaf_rt.batch.archive import run_archive
    from leaf_rt.batch.clips import clips
    from leaf_rt.batch.cluster import on_ray
    from leaf_rt.batch.job import Job
    from leaf_rt.batch.processes import on_processes
    from leaf_rt.cli.batch_output import BatchOutput
    from leaf_rt.cli.reporter import Reporter
    from leaf_rt.system.cpu import cpu_count

    found = _expand(files)
    reporter = Reporter(log_json=monitoring.log_json)
    for note in found.notes:
        reporter.notify("info", note, event="left_out")
    for error in found.errors[0 if found.files else 1 :]:
        reporter.error(error)
    if not found.files:
        raise found.errors[0]
    cores = cpu_count()
    job = Job(
        out=os.path.abspath(out),  # noqa: PTH100 - a link stays as it is
        version=version("leaf-rt"),
        recognition=_absolute(config),
        source=source_options,
        format=kind.value,
        threads=1 if ray is not None else max(1, cores // (jobs or cores)),
    )
    chosen = clips(found.files, found.roots, out, job.format)
    runner = on_processes(jobs or cores) if ray is None else on_ray(ray, jobs or None)
    with BatchOutput(reporter) as output:
        totals = run_archive(job, chosen, runner, output.watch, redo=redo)
    raise typer.Exit(output.finish(totals, out))


def _expand(arguments: Iterable[str]) -> Expanded:
    """The files that the arguments stand for, with the folders that their results leave out of their paths.

    Raises:
        typer.BadParameter: One is a camera or a stream.
    """
    from leaf_rt.batch.clips import LIST, read_list
    from leaf_rt.cli.folders import VIDEOS, Expanded, expand
    from leaf_rt.cli.targets import without_results
    from leaf_rt.errors import LeafError
    from leaf_rt.sources.address import parse
    from leaf_rt.sources.picture import SUFFIXES

    whole = Expanded()
    for argument in arguments:
        if Path(argument).suffix.lower() == LIST and Path(argument).is_file():
            try:
                found = Expanded(read_list(Path(argument)), [Path(argument).parent])
            except LeafError as e:
                found = Expanded(errors=[e])
        else:
            found = expand([argument], VIDEOS | SUFFIXES, "video or picture")
            if found.files == [argument]:
                if parse(argument).kind != "file":
                    raise typer.BadParameter(
                        "a batch reads files; cameras and streams have no end, so give them to leaf-rt video",
                        param_hint="FILE",
                    )
                found.files, found.roots = [parse(argument).target], [Path(parse(argument).target).parent]
        whole.files += found.files
        whole.roots += found.roots
        whole.notes += found.notes
        whole.errors += found.errors
    whole.files, skipped = without_results(whole.files)
    whole.notes += [skipped] if skipped else []
    return whole


def _absolute(config: RecognitionConfig) -> RecognitionConfig:
    """The same with absolute paths: a worker may run in another folder."""

    def absolute(path: Path) -> Path:
        return Path(os.path.abspath(path))  # noqa: PTH100

    return replace(
        config,
        model=absolute(config.model),
        reid_model=None if config.reid_model is None else absolute(config.reid_model),
        landmarks=None if config.landmarks is None else absolute(config.landmarks),
    )
