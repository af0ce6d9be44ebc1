"""Groups of options: their defaults, contradictions, and commands that take a part of a group."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from fakes import FakeBackend
from typer.testing import CliRunner

from leaf_rt.backends.base import Device
from leaf_rt.cli import options as opt
from leaf_rt.cli.groups import InputOptions, MonitoringOptions, Only, OutputOptions, RecognitionOptions, grouped
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.sinks.config import OutputConfig
from leaf_rt.sources.base import SourceOptions


def test_defaults_of_options_are_those_of_the_configuration() -> None:
    assert RecognitionOptions().config() == RecognitionConfig()
    assert OutputOptions().config() == OutputConfig()
    assert InputOptions().config() == SourceOptions()
    assert MonitoringOptions() == MonitoringOptions(metrics=None, log_json=False)


@pytest.mark.parametrize(
    ("limit", "device", "expected"),
    [(None, "cpu", 40.0), (None, "cuda", 0.0), (0.0, "cpu", 0.0), (25.0, "cuda", 25.0)],
)
def test_the_limit_for_all_faces_is_the_option_or_depends_on_the_device(
    limit: float | None, device: Device, expected: float
) -> None:
    backend = FakeBackend()
    backend.device = device
    options = RecognitionOptions(max_classify_fps=limit, max_faces=3).config().pipeline_options(backend)
    assert (options.max_classify_fps, options.max_faces, options.classify_fps) == (expected, 3, 10.0)


def test_a_limit_contradicts_classifying_every_frame() -> None:
    with pytest.raises(typer.BadParameter, match="contradicts --classify-fps 0"):
        RecognitionOptions(classify_fps=0.0, max_classify_fps=25.0).config()
    assert RecognitionOptions(classify_fps=0.0, max_classify_fps=0.0).config().pipeline.classify_fps == 0.0


def test_a_command_takes_a_group_whole_or_in_part() -> None:
    got: list[object] = []
    app = typer.Typer()

    @app.command()
    @grouped
    def run(
        name: Annotated[str, typer.Argument()],
        *,
        monitoring: MonitoringOptions,
        inputs: Annotated[InputOptions, Only("stride", "wait")],
        debug: opt.Debug = False,
    ) -> None:
        """Say hello."""
        got.extend([name, monitoring, inputs, debug])

    runner = CliRunner()
    assert runner.invoke(app, ["a", "--metrics", "0", "--stride", "3", "--debug"]).exit_code == 0
    assert got == ["a", MonitoringOptions(metrics=0), InputOptions(stride=3), True]
    assert runner.invoke(app, ["a", "--loop"]).exit_code == 2
    shown = runner.invoke(app, ["--help"]).output
    assert "Say hello." in shown
    assert "--wait" in shown
    assert "--loop" not in shown


def test_an_unknown_option_of_a_group_is_an_error() -> None:
    def run(*, monitoring: Annotated[MonitoringOptions, Only("metrics", "speed")]) -> None: ...

    with pytest.raises(ValueError, match="MonitoringOptions has no option speed"):
        grouped(run)
