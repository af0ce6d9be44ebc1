"""Batches as processes of their own, to be killed in the middle."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import records

FAST = ("--backend", "onnxruntime", "--detector", "onnxruntime")
PATIENCE = 900.0  # s; only how long a test waits that fails
RAY_IS_LATE = "timed out during startup"  # Ray's limit for the start of its own programs is fixed
_CLOCK = ("latency_ms", "captured_at")  # fields of a record that differ from run to run


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Start `leaf-rt batch` in a session of its own, as a terminal does, with more environment variables."""
    command = [sys.executable, "-m", "leaf_rt", "batch", *map(str, arguments), *FAST]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, start_new_session=True, env={**os.environ, **variables})


@contextlib.contextmanager
def ray_cluster(cpus: int, **variables: str) -> Iterator[str]:
    """A Ray cluster that runs already, as `ray start --head` makes it; gives its address."""
    with tempfile.TemporaryDirectory(prefix="lr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", "--node-ip-address=127.0.0.1",
            f"--num-cpus={cpus}", "--include-dashboard=false", "--object-store-memory=80000000", f"--temp-dir={folder}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **variables}
            )
            found = re.search(r"ray start --address='([^']+)'", done.stdout)
            if found is None and RAY_IS_LATE in done.stdout + done.stderr:
                pytest.skip("Ray gives its programs 15 s to start, and they needed longer")
            assert found is not None, done.stdout + done.stderr
            yield found[1]
        finally:
            for place in Path("/proc").glob("[0-9]*"):  # `ray stop` would end the clusters of others, too
                with contextlib.suppress(OSError):
                    if f"{folder}/".encode() in (place / "cmdline").read_bytes():
                        os.kill(int(place.name), signal.SIGKILL)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end of a batch: exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        clean_up(process)
        raise
    assert "Traceback" not in err, err
    return process.returncode, out, err


def writer(result: Path, batch: subprocess.Popen[str]) -> int:
    """Wait until a worker writes a result; the id of its process."""
    part = f"{result}.part"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and batch.poll() is None:
        for folder in Path("/proc").glob("[0-9]*/fd"):
            with contextlib.suppress(OSError):
                if any(str(link.readlink()) == part for link in folder.iterdir()):
                    return int(folder.parent.name)
        time.sleep(0.01)
    _, err = batch.communicate(timeout=PATIENCE)
    if RAY_IS_LATE in err:
        pytest.skip("Ray gives its programs 15 s to start, and they needed longer")
    raise AssertionError(f"nobody wrote {part}: {err}")


def session(leader: int) -> set[int]:
    """All processes of a session that are not dead."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.add(int(folder.name))
    return found


def wait_for_the_end_of(leader: int) -> None:
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + PATIENCE
    while session(leader):
        assert time.monotonic() < deadline, f"still alive: {session(leader)}"
        time.sleep(0.05)


def clean_up(process: subprocess.Popen[str]) -> None:
    """End whatever a test has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def comparable(result: Path) -> list[dict[str, object]]:
    """The records of a result without what depends on the clock and the folder."""
    found = records(result.read_text(encoding="utf-8"))
    return [{key: value for key, value in record.items() if key not in (*_CLOCK, "source")} for record in found]


def states(out: Path) -> dict[str, str]:
    """State by result, as the manifest says."""
    with contextlib.closing(sqlite3.connect(out / "leaf-batch.sqlite")) as base:
        return {os.fsdecode(name): state for name, state in base.execute("SELECT result, state FROM files")}
