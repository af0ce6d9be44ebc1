"""The engine cache, with real files and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leaf_rt.backends import plan_cache
from leaf_rt.errors import TimedOut

KEY = {"gpu": "a", "version": "1"}


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def build() -> bytes:
        calls.append(1)
        return b"plan"

    messages: list[str] = []
    first = plan_cache.get_or_build(KEY, build, messages.append, tmp_path)
    second = plan_cache.get_or_build(KEY, build, messages.append, tmp_path)
    assert (first[0], second[0], len(calls), messages) == (b"plan", b"plan", 1, [])
    assert (first[1].startswith("built now"), second[1]) == (True, "from the cache")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "a temporary file is left"


@pytest.mark.parametrize("field", sorted(KEY))
def test_another_key_is_another_engine(tmp_path: Path, field: str) -> None:
    plan_cache.get_or_build(KEY, lambda: b"old", print, tmp_path)
    content, _ = plan_cache.get_or_build({**KEY, field: "other"}, lambda: b"new", print, tmp_path)
    assert content == b"new"
    assert plan_cache.read_entry(tmp_path, KEY)[0] == b"old"


@pytest.mark.parametrize("harm", ["truncated", "changed", "foreign", "no description", "broken description"])
def test_an_invalid_plan_is_built_again(tmp_path: Path, harm: str) -> None:
    plan_cache.get_or_build(KEY, lambda: b"plan " * 100, print, tmp_path)
    plan = next(tmp_path.glob("*.plan"))
    sidecar = plan.with_suffix(".json")
    if harm == "truncated":
        plan.write_bytes(plan.read_bytes()[:50])
    elif harm == "changed":
        plan.write_bytes(b"evil " * 100)
    elif harm == "foreign":
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "key": {**KEY, "gpu": "b"}}))
    elif harm == "no description":
        sidecar.unlink()
    else:
        sidecar.write_text("{")
    messages: list[str] = []
    content, how = plan_cache.get_or_build(KEY, lambda: b"fresh", messages.append, tmp_path)
    assert content == b"fresh"
    assert "built now" in how
    assert "building it again" in messages[0]
    assert plan_cache.read_entry(tmp_path, KEY) == (b"fresh", "")


def test_a_failed_build_leaves_no_plan_and_releases_the_lock(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        plan_cache.get_or_build(KEY, fail, print, tmp_path)
    assert not list(tmp_path.glob("*.plan"))
    assert plan_cache.get_or_build(KEY, lambda: b"plan", print, tmp_path, timeout=0.1)[0] == b"plan"


BUILDER = """
import sys, time
from pathlib import Path
from leaf_rt.backends import plan_cache
folder = Path(sys.argv[1])
def build():
    with (folder / "builds.log").open("a") as f:
        f.write("built\\n")
    end = time.monotonic() + 60
    while not (folder / "waits").exists() and time.monotonic() < end:  # for the other process
        time.sleep(0.02)
    return b"plan" * 1000
def message(text):
    (folder / "waits").touch()
    print("message:", text)
content, how = plan_cache.get_or_build({"k": 1}, build, message, folder)
assert content == b"plan" * 1000
print("how:", how)
"""


def test_two_processes_build_once(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    texts = sorted(p.communicate(timeout=60)[0] for p in both)
    assert [p.returncode for p in both] == [0, 0]
    assert (tmp_path / "builds.log").read_text().count("built") == 1
    assert "how: built now" in texts[0]
    assert "how: from the cache, built by another process" in texts[1]
    assert "waiting" in texts[1]


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path)])
    end = time.monotonic() + 60
    while not (tmp_path / "builds.log").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait(timeout=60)
    content, how = plan_cache.get_or_build({"k": 1}, lambda: b"mine", print, tmp_path, timeout=60)
    assert (content, how.startswith("built now")) == (b"mine", True)


def test_waiting_for_the_lock_times_out(tmp_path: Path) -> None:
    messages: list[str] = []
    with (
        plan_cache.locked(tmp_path / "lock", messages.append),
        pytest.raises(TimedOut, match="another process has held this lock"),
        plan_cache.locked(tmp_path / "lock", messages.append, timeout=0.1),
    ):
        pass
    assert len(messages) == 1


def test_a_folder_that_cannot_be_created_gives_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    messages: list[str] = []
    content, how = plan_cache.get_or_build(KEY, lambda: b"plan", messages.append, tmp_path / "file" / "cache")
    assert (content, how) == (b"plan", "built now, not stored")
    assert "cannot be written" in messages[0]
    assert "LEAF_RT_CACHE" in messages[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_read_only_folder_gives_a_message(tmp_path: Path) -> None:
    """As another user, because root can write everywhere."""
    tmp_path.chmod(0o755)
    locked = tmp_path / "cache"
    locked.mkdir(mode=0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        messages: list[str] = []
        content, how = plan_cache.get_or_build(KEY, lambda: b"plan", messages.append, locked)
        good = content == b"plan" and how == "built now, not stored" and "cannot be written" in messages[0]
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_folder_that_all_users_can_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    assert "by every user" in (plan_cache.folder_problem(folder) or "")


def test_environment_variables_set_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEAF_RT_CACHE", str(tmp_path))
    assert plan_cache.cache_folder() == tmp_path
    monkeypatch.delenv("LEAF_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert plan_cache.cache_folder() == tmp_path / "leaf-rt" / "engines"
