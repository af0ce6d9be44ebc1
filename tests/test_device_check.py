"""The check for the first minutes on a GPU runs here on the CPU, with no package that the lent machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leaf_rt.backends.registry import find_backend

HERE = Path(__file__).parent
# The lent machine has PyTorch, ONNX, ONNX Runtime and OpenCV, and no network to install these.
MISSING = ("av", "mediapipe", "lap", "platformdirs", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "sounddevice")


@pytest.mark.slow
def test_the_device_check_passes_on_the_cpu(tmp_path: Path) -> None:
    script = str(HERE / "device_check.py")
    code = (
        f"import runpy, sys\nfor name in {MISSING}: sys.modules[name] = None\n"
        f"sys.argv = [{script!r}, '--cpu', '--out', {str(tmp_path)!r}]\n"
        f"sys.path.insert(0, {str(HERE)!r})\nrunpy.run_path({script!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False, env=environment
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["environment", "back end fp32", "crops", "decoding", "detector", "side by side", "LEAF fp32"]
    assert [line["check"] for line in lines] == [*names, "stalls", "two processes"]
    assert [line["check"] for line in lines if not line["ok"]] == ["decoding"]  # PyAV is missing there
    assert "left out: " in lines[3]["error"]
    assert (tmp_path / "checks.jsonl").read_text().count("\n") == len(lines)


@pytest.mark.gpu
def test_the_device_check_passes_on_the_gpu(tmp_path: Path) -> None:
    """Training on CUDA against the CPU, the PyTorch back end at every batch size, TensorRT's runner, two processes."""
    if (problem := find_backend("torch").gpu_problem()) is not None:
        pytest.skip(str(problem))
    command = [sys.executable, str(HERE / "device_check.py"), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failed_check_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from device_check import Checks
    from device_decoding import LeftOut

    def fails() -> dict[str, object]:
        raise AssertionError("differs")

    def left_out() -> dict[str, object]:
        raise LeftOut("no PyAV")

    checks = Checks(tmp_path)
    checks.run("first", fails)
    checks.run("second", lambda: {"value": 1})
    checks.run("third", left_out)
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["ok"], second["ok"], second["value"], checks.failed) == (False, True, 1, 1)
    assert "differs" in first["error"]
    assert (third["ok"], third["error"]) == (None, "left out: no PyAV")


def test_the_check_of_the_decoder_runs_where_pyav_is_installed() -> None:
    from device_decoding import decoding

    found = decoding("cpu")
    assert (found["frames"], found["largest_difference"]) == (12, 0)
    assert found["cpu"]["frames_per_s"] > 0
