"""How a process may end: after SIGINT and SIGTERM every file is complete, after SIGKILL valid as far as it goes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from clips import DEMO


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """The demo clip as if it were live, over and over, with all outputs."""
    command = [sys.executable, "-m", "leaf_rt", "video", str(DEMO), "--realtime", "--loop", "--out", str(out)]
    command += ["--save-video", "--csv", str(out / "r.csv"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wait_for_records(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "no records came"
        time.sleep(0.02)


def decoded(path: Path) -> Iterator[float]:
    """Times of the frames that a video gives, until it ends or is cut."""
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                yield float(frame.pts * frame.time_base)
        except av.error.InvalidDataError:
            return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_complete_files_and_a_true_summary(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 25)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    records = rows(tmp_path / "demo.leaf.jsonl")
    shown = list(decoded(tmp_path / "demo.leaf.mp4"))
    table = (tmp_path / "r.csv").read_text().splitlines()
    frames = int(next(line for line in out.splitlines() if " frames in " in line).split(": ")[1].split()[0])
    assert len(shown) == frames >= len({r["frame_index"] for r in records})
    assert len(table) == len(records) + 1
    first = min(r["pts_s"] for r in records)
    assert {round(r["pts_s"] - first, 3) for r in records} <= {round(t - shown[0], 3) for t in shown} | {
        round(t - shown[0] + d, 3) for t in shown for d in (-0.001, 0.001)
    }
    assert all(r["captured_at"] for r in records)


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_time_leaves_valid_files(tmp_path: Path, seed: int) -> None:
    wait = random.Random(seed).uniform(0.0, 2.5)
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 30)
        time.sleep(wait)
        process.kill()
        process.communicate(timeout=30)
    data = (tmp_path / "demo.leaf.jsonl").read_bytes()
    assert data.endswith(b"\n")
    records = rows(tmp_path / "demo.leaf.jsonl")
    shown = list(decoded(tmp_path / "demo.leaf.mp4"))
    span = records[-1]["pts_s"] - records[0]["pts_s"]
    assert shown[-1] - shown[0] > span - 2.5  # a fragment of 1 s, the encoder's and the writer's few frames
    assert (tmp_path / "r.csv").read_bytes().endswith(b"\n")


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        wait_for_records(tmp_path / "demo.leaf.jsonl", 5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode in (0, 130, -signal.SIGINT)
    rows(tmp_path / "demo.leaf.jsonl")
