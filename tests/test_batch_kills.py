"""`leaf-rt batch` when its processes are killed or stopped: every result is complete or absent, and a start goes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from batches import clean_up, comparable, finish, ray_cluster, session, start, states, wait_for_the_end_of, writer
from clips import DEMO, demo_frames, write_clip

from leaf_rt.batch.job import TRIES
from leaf_rt.errors import ConnectionLost

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds processes in /proc, which is Linux's"),
]
LONG = "long.mp4"  # the largest, so it is the first


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One long clip and four short ones."""
    folder = tmp_path_factory.mktemp("in")
    shutil.copy(DEMO, folder / LONG)
    short = write_clip(folder / "0.mp4", demo_frames(6))
    for number in range(1, 4):
        shutil.copy(short, folder / f"{number}.mp4")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a batch that nobody disturbs."""
    out = tmp_path_factory.mktemp("expected")
    code, text, _ = finish(start(folder, "--out", out, "--jobs", "1"))
    assert (code, "done     5" in text) == (0, True)
    return out


def assert_complete(out: Path, expected: Path) -> None:
    """Every file exactly once, with the same records, and nothing else."""
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_file())
    for name in [name for name in files if name.endswith(".jsonl")]:
        assert comparable(out / name) == comparable(expected / name), name
    assert set(states(out).values()) == {"done"}


def assert_complete_without_a_worker(batch: subprocess.Popen[str], out: Path, expected: Path) -> None:
    """Kill the worker that writes the long result; the batch must be complete all the same."""
    try:
        os.kill(writer(out / f"{LONG}.leaf.jsonl", batch), signal.SIGKILL)
        code, text, err = finish(batch)
    finally:
        clean_up(batch)
    assert (code, "done     5" in text) == (0, True), err
    assert_complete(out, expected)


def test_a_killed_worker_is_replaced_and_its_file_is_tried_again(folder: Path, expected: Path, tmp_path: Path) -> None:
    batch = start(folder, "--out", tmp_path, "--jobs", "2")
    assert_complete_without_a_worker(batch, tmp_path, expected)


def test_a_file_that_ends_its_worker_every_time_fails_alone(folder: Path, tmp_path: Path) -> None:
    batch = start(folder, "--out", tmp_path, "--jobs", "1")
    killed = 0
    try:
        while killed < TRIES:
            process = writer(tmp_path / f"{LONG}.leaf.jsonl", batch)
            os.kill(process, signal.SIGKILL)
            while process in session(batch.pid):
                pass
            killed += 1
        code, out, err = finish(batch)
    finally:
        clean_up(batch)
    assert code == 16
    assert f"{LONG}: its worker process ended by signal 9, {TRIES} times" in err
    assert "done     4" in out
    assert not list(tmp_path.glob(f"{LONG}*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_batch_that_is_ended_goes_on_exactly(
    folder: Path, expected: Path, tmp_path: Path, number: signal.Signals
) -> None:
    batch = start(folder, "--out", tmp_path, "--jobs", "2")
    try:
        writer(tmp_path / f"{LONG}.leaf.jsonl", batch)
        if number == signal.SIGKILL:
            os.kill(batch.pid, number)
            batch.communicate()
        else:
            os.killpg(batch.pid, number)  # as a terminal and systemd do: the workers get it too
            code, out, err = finish(batch)
            assert (code, "left" in out) == (130, True)
            assert "stopped early; the same command goes on" in err
            assert not list(tmp_path.glob("*.part"))
        wait_for_the_end_of(batch.pid)  # no worker outlives the parent
    finally:
        clean_up(batch)
    for result in tmp_path.glob("*.jsonl"):
        assert comparable(result) == comparable(expected / result.name)
    assert not (tmp_path / f"{LONG}.leaf.jsonl").exists()
    second = start(folder, "--out", tmp_path, "--jobs", "2")
    code, _, err = finish(second)
    assert code == 0, err
    assert_complete(tmp_path, expected)


def test_on_a_ray_cluster_a_lost_worker_loses_nothing(folder: Path, expected: Path, tmp_path: Path) -> None:
    """A cluster of three worker processes on this machine; one of them is killed in mid-run."""
    pytest.importorskip("ray", reason="Ray is not installed")
    batch = start(folder, "--out", tmp_path, "--ray", "local", "--jobs", "3")
    assert_complete_without_a_worker(batch, tmp_path, expected)


def test_a_ray_cluster_that_runs_already_can_be_joined(folder: Path, expected: Path, tmp_path: Path) -> None:
    """As on many machines: `ray start --head`, then the address that it prints; a worker of it is killed in mid-run."""
    pytest.importorskip("ray", reason="Ray is not installed")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "1" * 64}
    with ray_cluster(2, **quiet, **token) as address:
        batch = start(folder, "--out", tmp_path, "--ray", address, **token)
        assert_complete_without_a_worker(batch, tmp_path, expected)


def test_a_ray_address_where_nobody_listens_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = finish(start(folder, "--out", tmp_path, "--ray", address))
    assert code == ConnectionLost.exit_code
    assert err.startswith(f"error: --ray {address}: nobody listens there (")
