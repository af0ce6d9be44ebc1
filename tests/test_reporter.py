"""Every error is reported once, and counts for the exit code."""

from __future__ import annotations

import json

import pytest
from streams import Keeping

from leaf_rt.cli.reporter import Reporter
from leaf_rt.errors import NotFound, OutputError
from leaf_rt.stream.stats import Event, EventKind


def full() -> OutputError:
    return OutputError("records.jsonl: no space left")


def sink_failed(error: Exception) -> Event:
    return Event("error", "records.jsonl", EventKind.SINK, "no space left", error)


def test_an_error_that_an_event_reported_is_not_reported_again(capsys: pytest.CaptureFixture[str]) -> None:
    reporter, error = Reporter(), full()
    reporter.event(sink_failed(error))
    assert reporter.was_reported(error)
    assert reporter.exit_code == 0
    reporter.error(error)
    assert reporter.exit_code == OutputError.exit_code
    assert capsys.readouterr().err == "error: records.jsonl: no space left\n"


def test_errors_are_distinguished_by_identity_not_by_text(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    for error in (NotFound("a.mp4: no such file"), full(), full()):
        reporter.error(error)
        reporter.error(error)
    assert reporter.exit_code == NotFound.exit_code
    assert capsys.readouterr().err.count("no space left") == 2


def test_a_failed_sink_that_cannot_be_closed_is_not_reported_again(capsys: pytest.CaptureFixture[str]) -> None:
    reporter, sink = Reporter(), Keeping()
    sink.name = "records.jsonl"
    reporter.event(sink_failed(full()))
    reporter.close_failed(sink, full())
    assert reporter.exit_code == OutputError.exit_code
    sink.name = "table.csv"
    reporter.close_failed(sink, OutputError("table.csv: the data is lost"))
    assert capsys.readouterr().err.splitlines() == [
        "error: records.jsonl: no space left",
        "error: table.csv: the data is lost",
    ]


@pytest.mark.parametrize("on_stdout", [True, False])
def test_a_closed_pipe_is_no_error_message(capsys: pytest.CaptureFixture[str], on_stdout: bool) -> None:
    reporter, error = Reporter(records_on_stdout=on_stdout), OutputError("standard output: closed")
    error.__cause__ = BrokenPipeError()
    reporter.event(Event("error", "standard output", EventKind.SINK, "closed", error))
    reporter.error(error)
    assert reporter.exit_code == 141
    assert capsys.readouterr().err == ("" if on_stdout else "error: standard output: closed\n")


def test_an_event_keeps_its_kind_in_the_json_log(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(log_json=True)
    with caplog.at_level("INFO", "leaf_rt.cli.jsonlog"):
        reporter.event(Event("warning", "door", EventKind.LOST, "no answer"))
    (line,) = caplog.records
    assert (line.event, line.source, line.getMessage()) == ("lost", "door", "no answer")  # type: ignore[attr-defined]
    assert json.dumps(line.event) == '"lost"'  # type: ignore[attr-defined]
