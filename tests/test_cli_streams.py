"""Standard output and standard error that are full, closed or without a reader, and text that a terminal would obey."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Leaf
from engines_fakes import tiny_onnx

from leaf_rt.errors import DataError, ModelError
from leaf_rt.models.spec import load_spec, spec_path
from leaf_rt.stream.stats import RunStats, SourceStats
from leaf_rt.types import SourceInfo

ESCAPE = "\x1b[31mred\x1b]0;title\x07"


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; $LEAF is the command, $1 ... the arguments."""
    environment = {"LEAF": f"{sys.executable} -m leaf_rt", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    command = ["bash", "-c", line, "bash", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=Path(__file__).parents[1],
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["doctor", "video --help", "--help", "bench --help"])
def test_a_reader_that_has_gone_gives_the_code_of_the_table(command: str) -> None:
    done = shell(f"$LEAF {command} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2> >(true)", "2>&-"])
@pytest.mark.parametrize("log", ["", "--log-json"])
def test_the_run_goes_on_without_stderr(clip: Path, tmp_path: Path, stderr: str, log: str) -> None:
    options = "--no-save-video --no-plot --backend onnxruntime"
    done = shell(f'$LEAF video "$1" --jsonl - --csv "$2" {options} {log} {stderr}', clip, tmp_path / "r.csv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 30  # records alone
    assert all(line.startswith("{") for line in done.stdout.splitlines())
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 31
    failed = shell(f'$LEAF video "$1" {options} {log} {stderr}', tmp_path / "none.mp4")
    assert failed.returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_stdout_is_an_error() -> None:
    done = shell("$LEAF doctor >/dev/full")
    assert done.returncode == 9
    assert "standard output: no space left" in done.stderr


def test_a_label_with_an_escape_sequence_is_refused(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    spec = tiny_onnx(model)
    text = spec_path(model).read_text().replace('"happiness"', '"\\u001b[31mred"')
    spec_path(model).write_text(text)
    with pytest.raises(ModelError, match="control characters"):
        load_spec(model)
    with pytest.raises(ModelError, match="control characters"):
        replace(spec, labels=("a", ESCAPE))
    for command in (
        ("image", face, "--model", model),
        ("doctor", "--model", model),
        ("export", model, "--out", tmp_path),
    ):
        done = leaf(*command)
        assert done.code != 0
        assert "\x1b" not in done.out + done.err


def test_a_class_with_an_escape_sequence_is_refused() -> None:
    pytest.importorskip("torch")
    from train.data.formats.index import build_index

    with pytest.raises(DataError, match="control characters"):
        build_index("data", ("good", ESCAPE), [], None)  # type: ignore[arg-type] # no images are read


@pytest.mark.parametrize("command", ["video", "image", "doctor", "bench", "export"])
def test_names_never_reach_the_terminal_raw(leaf: Leaf, tmp_path: Path, command: str) -> None:
    name = tmp_path / f"{ESCAPE}.onnx"
    arguments = {
        "video": ("video", name, "--model", name),
        "image": ("image", name, "--model", name),
        "doctor": ("doctor", "--model", name),
        "bench": ("bench", name),
        "export": ("export", name, "--out", tmp_path / ESCAPE),
    }
    done = leaf(*arguments[command])
    assert done.code not in (0, 70)
    assert "\x1b" not in done.out + done.err
    assert "\x07" not in done.out + done.err


def test_a_file_of_pickle_gives_no_warning(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import pickle

    from train.models.weights import Unreadable, read_file

    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=4))
    with pytest.raises(Unreadable):  # pytest turns a warning into another error
        read_file(path)


def test_each_source_has_its_own_rate() -> None:
    stats = RunStats([SourceStats(SourceInfo(name, name, "file", 1, 1)) for name in ("short", "long")])
    short, long = stats.sources
    short.processed, long.processed = 100, 100
    short.state = long.state = "open"
    stats.update(2.0, 2.0)
    short.state = "ended"
    long.processed = 500
    long.state = "ended"
    stats.update(10.0, 10.0)
    assert (short.seconds, stats.seconds) == (2.0, 10.0)
