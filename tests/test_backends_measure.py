"""The benchmark of the back ends and its command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines_fakes import faces, tiny_onnx

from engines.bench import verdict
from leaf_rt.backends.benchmark import Timing, json_line, measure, parse_batches, table
from leaf_rt.cli import main
from leaf_rt.diagnostics.bench import DEMO
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import load_spec
from leaf_rt.types import U8

pytestmark = pytest.mark.usefixtures("cache")


def test_functions_run_in_turns_and_medians_are_reported() -> None:
    now = [0.0]
    order: list[str] = []

    def function(name: str, cost: float) -> Callable[[U8], None]:
        def run(crops: U8) -> None:
            order.append(name)
            now[0] += cost * len(crops)

        return run

    functions = {("slow", "fp32"): function("s", 0.004), ("quick", "int8"): function("q", 0.001)}
    rows = measure(functions, faces(4), [1, 8], 7, clock=lambda: now[0])
    assert [(r.runtime, r.precision, r.batch, round(r.per_face_ms, 6)) for r in rows] == [
        ("slow", "fp32", 1, 4.0), ("quick", "int8", 1, 1.0), ("slow", "fp32", 8, 4.0), ("quick", "int8", 8, 1.0),
    ]  # fmt: skip
    assert rows[3].faces_per_s == pytest.approx(1000)
    turns = "ssssssqqqqqq" * 2 + "sssqqq"  # warm-up, five calls, two calls; each after one that is not counted
    assert "".join(order) == turns * 2
    assert "| quick | int8 | 1.00 (1.0), 1000, 4.0x |" in table(rows, "slow")
    assert '"batch": 8' in json_line(rows, model="m")


def run(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines of the table, and the rows of the JSON line at the end."""
    assert main(["bench", *map(str, arguments)]) == 0
    *lines, last = capsys.readouterr().out.strip().splitlines()
    return lines, json.loads(last)["rows"]


def test_the_command_times_every_back_end_precision_and_batch(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_onnx(model.with_name("tiny-int8.onnx"), precision="int8", parent=load_spec(model).sha256)
    lines, rows = run(["--model", model, "--batch", "1,2", "--threads", 1], capsys)
    wanted = {("ONNX Runtime", p, b) for p in ("fp32", "int8") for b in (1, 2)}
    assert wanted <= {(row["runtime"], row["precision"], row["batch"]) for row in rows}
    assert all(row["latency_ms"] > 0 and row["faces_per_s"] > 0 for row in rows)
    assert any(line.startswith("| ONNX Runtime | fp32 |") for line in lines)
    assert any(line.startswith("left out: OpenVINO int8: ") for line in lines)


def test_an_int8_file_is_not_reported_as_fp32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_onnx(tmp_path / "t-int8.onnx", precision="int8")
    lines, rows = run(["--model", tmp_path / "t-int8.onnx", "--batch", 1, "--backend", "onnxruntime"], capsys)
    assert [row["precision"] for row in rows] == ["int8"]
    assert any(line.startswith("left out: ONNX Runtime fp32: ") for line in lines)


def test_a_clip_and_a_batch_size_cannot_be_combined(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "clip.mp4", "--batch", "1"]) == 2
    assert "omit FILE or" in capsys.readouterr().err


def test_only_the_requested_variants_are_timed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, rows = run(["--model", model, "--batch", 1, "--backend", "onnxruntime", "--precision", "fp32"], capsys)
    assert [(row["runtime"], row["precision"]) for row in rows] == [("ONNX Runtime", "fp32")]
    _, rows = run(["--model", model, "--batch", 1, "--precision", "fp32"], capsys)
    assert {row["precision"] for row in rows} == {"fp32"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "0"], "--batch 0: wanted whole numbers from 1 to 1024"),
        (["--batch", "1", "--backend", "tensorflow"], "--backend tensorflow: unknown"),
        (
            ["--batch", "1", "--backend", "onnxruntime", "--precision", "bf16"],
            "ONNX Runtime computes in",
        ),
        (["--batch", "1", "--backend", "openvino", "--precision", "int8"], "int8-openvino.xml is missing"),
    ],
)
def test_an_error_is_one_sentence(
    model: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--model", str(model), *options]) == BackendError.exit_code
    error = capsys.readouterr().err
    assert words in " ".join(error.split())
    assert error.startswith("error: ")


def test_the_demo_clip_is_in_the_repository() -> None:
    assert DEMO.is_file()


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1,,2", "1.5"])
def test_invalid_batch_sizes_are_rejected(text: str) -> None:
    with pytest.raises(BackendError, match="wanted whole numbers from 1 to 1024"):
        parse_batches(text)
    assert parse_batches("1, 4,8") == [1, 4, 8]


def test_the_verdict_ignores_bf16() -> None:
    times = {("PyTorch eager", "fp32"): 9.0, ("OpenVINO", "bf16"): 1.0, ("OpenVINO", "int8"): 2.0}
    rows = [Timing(*label, batch, 0.0, 0.0, t / batch, 0.0) for label, t in times.items() for batch in (1, 8)]
    text = "auto's choice at batch 8: OpenVINO int8, 0.25 ms per face, 4.5 times faster than PyTorch eager"
    assert verdict(rows) == text
