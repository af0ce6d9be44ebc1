"""Groups of options: what nobody asks for is what the parts do by themselves, and a part of a group is that part."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from fakes import FakeBackend
from typer.testing import CliRunner

from leaf_rt.cli import options as opt
from leaf_rt.cli.groups import InputOptions, MonitoringOptions, Only, OutputOptions, RecognitionOptions, grouped
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.sinks.config import OutputConfig
from leaf_rt.sources.base import SourceOptions


def test_the_defaults_of_the_options_are_those_of_the_parts() -> None:
    assert RecognitionOptions().config() == RecognitionConfig()
    assert OutputOptions().config() == OutputConfig()
    assert InputOptions().config() == SourceOptions()
    assert MonitoringOptions() == MonitoringOptions(metrics=None, log_json=False)


@pytest.mark.parametrize(
    ("asked", "name", "total_hz"),
    [
        (None, "onnxruntime", 40.0),
        (None, "tensorrt", 0.0),
        (None, "tensorrt-rtx", 0.0),
        (0.0, "openvino", 0.0),
        (25.0, "tensorrt", 25.0),
    ],
)
def test_the_answers_of_all_faces_together_follow_the_option_then_the_back_end(
    asked: float | None, name: str, total_hz: float
) -> None:
    backend = FakeBackend()
    backend.name = name
    costs = RecognitionOptions(max_classify_fps=asked, max_faces=3).config().pipeline_options(backend)
    assert (costs.max_classify_fps, costs.max_faces, costs.classify_fps) == (total_hz, 3, 10.0)


def test_a_limit_beside_every_face_in_every_frame_is_refused() -> None:
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


def test_a_part_that_is_none_is_refused_at_once() -> None:
    def run(*, monitoring: Annotated[MonitoringOptions, Only("metrics", "speed")]) -> None: ...

    with pytest.raises(ValueError, match="MonitoringOptions has no option speed"):
        grouped(run)
