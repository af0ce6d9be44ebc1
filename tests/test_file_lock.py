"""Only one run writes a result file: a second one is rejected, and the file is left unchanged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Leaf
from sinks import make
from streams import INFO, estimates, frame

from leaf_rt.errors import OutputError
from leaf_rt.system import file_lock


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "video"])
def test_a_second_writer_is_rejected_until_the_first_has_closed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"r.{kind}"
    first = make(kind, path)
    for index in range(30):
        first.write(INFO, frame(index), estimates(index / 25), 0.0)
    with pytest.raises(OutputError, match=f"{path}: is already being written"):
        make(kind, path)
    first.close()
    whole = path.read_bytes()
    assert len(whole) > 1000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    make(kind, path).close()
    assert (path.read_bytes() == whole) is (kind == "video")  # a video without frames is none; the earlier one stands
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_result_finished_while_it_is_opened_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make("parquet", tmp_path / "r.parquet")
    first.write(INFO, frame(0), estimates(0.0), 0.0)
    lock = file_lock._lock

    def too_late(fd: int) -> None:
        first.close()  # renames the file between open and lock of the second writer
        lock(fd)

    monkeypatch.setattr(file_lock, "_lock", too_late)
    second = make("parquet", tmp_path / "r.parquet")
    whole = (tmp_path / "r.parquet").read_bytes()
    assert len(whole) > 1000
    with pytest.raises(OutputError, match="is already being written"):
        make("parquet", tmp_path / "r.parquet")
    second.close()


def test_pipes_and_devices_are_not_locked() -> None:
    sinks = [make("jsonl", Path("/dev/null")) for _ in range(2)]
    for sink in sinks:
        sink.write(INFO, frame(0), estimates(0.0), 0.0)
        sink.close()


def test_two_options_cannot_share_a_file(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    done = leaf("video", clip, "--no-save-video", "--no-plot", "--jsonl", both, "--csv", both)
    assert done.code == OutputError.exit_code
    assert "is already used by --jsonl" in done.sentence()
    assert not both.exists()


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_rejected(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    records = tmp_path / "face.leaf.jsonl"
    command = [sys.executable, "-m", "leaf_rt", "video", clip, "--loop", "--save-video", "--out", tmp_path]
    command += ["--no-plot", "--no-report"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until and not (records.exists() and records.stat().st_size > 10_000):
                time.sleep(0.05)
            before = records.stat().st_size
            done = leaf("video", clip, "--out", tmp_path, "--no-report")
            assert first.poll() is None
            assert records.stat().st_size >= before > 10_000
            only_records = leaf("video", clip, "--out", tmp_path, "--no-save-video", "--no-report")
        finally:
            first.send_signal(signal.SIGINT)
            _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert (done.code, only_records.code) == (OutputError.exit_code, OutputError.exit_code)
    assert "face.leaf.mp4: is already being written" in done.sentence()
    assert "face.leaf.jsonl: is already being written" in only_records.sentence()
    frames = [json.loads(line)["frame_index"] for line in records.read_text().splitlines()]
    assert frames == sorted(frames)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["face.leaf.jsonl", "face.leaf.mp4"]
