"""A command line that opens one address and reports all that a run says of it, without faces and models."""

from __future__ import annotations

import urllib.request
from functools import cache
from typing import Annotated

import typer
from fakes import FakeBackend
from streams import pipelines

from leaf_rt.cli import options as opt
from leaf_rt.cli.console import facts
from leaf_rt.cli.reporter import Reporter
from leaf_rt.cli.targets import with_distinct_names
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.web.metrics import MetricsServer


@cache
def server() -> MetricsServer:
    """One server for all runs of this process: each would take a tenth of a second to end."""
    return MetricsServer(0)


app = typer.Typer(cls=opt.Group, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Make the command a subcommand."""


@app.command()
def video(
    target: str,
    log_json: Annotated[bool, typer.Option("--log-json")] = False,
    debug: Annotated[bool, typer.Option("--debug")] = False,
    number: int = 1,
) -> None:
    """Open a source and try to reconnect once."""
    reporter, backend = Reporter(log_json=log_json), FakeBackend()
    options = SourceOptions(wait=True, max_reconnects=1, open_timeout=0.2, read_timeout=0.2)
    targets = with_distinct_names([Target(target, options)] * number)
    typer.echo(repr(targets))
    metrics = server()
    metrics.update(RunStats())  # nothing of an earlier run
    hooks = Hooks(event=reporter.event, progress=metrics.update)
    try:
        run(targets, pipelines(backend), backend, hooks=hooks)
    finally:
        reporter.stopped([t.options.name or t.address.name for t in targets], [])
        facts(reporter.results, {"source": targets[0].address.name, "shown": targets[0].address.shown})
        for page in ("metrics", "healthz"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/{page}") as answer:
                    typer.echo(answer.read().decode())
            except urllib.error.HTTPError as e:
                typer.echo(e.read().decode())
