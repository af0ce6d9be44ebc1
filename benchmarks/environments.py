"""Makes one environment per peer, by pip in a venv or by npm, and tells its size and licence. Must not run a peer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import ROOT, Peer

_CLONE = Path(__file__).parents[1]
_SCRIPTS = Path(__file__).with_name("scripts")  # a user's script imports peer.py from there

_STAMP = "installed.json"
_TIMEOUT = 3600.0  # s for the packages of one peer
_LICENCE = re.compile(r"^(?:License-Expression|License|Classifier: License :: OSI Approved ::) ?:? ?(\S.*)$", re.M)


class PeerError(Exception):
    """Why a peer cannot be installed or run, in one line."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a peer runs.

    Attributes:
        folder: Working folder of its processes.
        command: What runs its script.
        variables: Environment variables of its processes.
        size_mb: Of its packages, MB; None if it runs in the environment of the command itself.
        licence: As the package says; "" if it does not say.
    """

    folder: Path
    command: tuple[str, ...]
    variables: dict[str, str]
    size_mb: float | None
    licence: str


def prepare(peer: Peer, work: Path, constraint: Path | None) -> Environment:
    """Install a peer, unless it is installed already.

    Args:
        peer: What to install.
        work: Folder of all environments.
        constraint: Constraints file for pip, or None.

    Raises:
        PeerError: The packages cannot be installed.
    """
    folder = work / "environments" / peer.environment
    # Downloads and caches of a peer stay here, and none of this user's is used. Rows that share packages do not share
    # it, because one may put random weights there.
    home = folder / "home" / peer.key
    home.mkdir(parents=True, exist_ok=True)
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    variables |= {"HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": str(home / ".cache")}
    paths = [_SCRIPTS]
    if not peer.packages or ROOT in peer.packages:
        paths.append(_CLONE)  # the code of this clone, not the installed copy
    variables["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    if not peer.packages:
        return Environment(folder, (sys.executable,), variables, None, "")
    stamp = folder / _STAMP
    wanted = json.dumps(list(peer.packages))
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        stamp.unlink(missing_ok=True)
        _install(peer, folder, constraint)
        stamp.write_text(wanted, encoding="utf-8")
    if peer.runtime == "node":
        packages, command = folder / "node_modules", ("node",)
    else:
        packages = next((folder / "lib").glob("python*/site-packages"))
        command = (str(folder / "bin" / "python"),)
    return Environment(folder, command, variables, _size_mb(packages), _licence(peer, packages))


def _install(peer: Peer, folder: Path, constraint: Path | None) -> None:
    packages = [str(_CLONE) if package == ROOT else package for package in peer.packages]
    if peer.runtime == "node":
        (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        _call(["npm", "install", "--no-audit", "--no-fund", *packages], folder)
        return
    python = folder / "bin" / "python"
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(folder)], folder)
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _call([*pip, *(["--constraint", str(constraint.resolve())] if constraint else []), *packages], folder)


def _call(command: list[str], folder: Path) -> None:
    """Run an installer."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PeerError(f"cannot be installed: {e}") from e
    if done.returncode:
        raise PeerError(f"cannot be installed: {reason(done.stderr or done.stdout)}")


def reason(output: str) -> str:
    """The line of a program's output that says best why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|npm error|[\w.]*(Error|Exception)\b)", line)]
    return ((errors or lines or ["no message"])[-1])[:300]


def _size_mb(folder: Path) -> float:
    """Disk space of the packages, without pip and setuptools, which every venv has."""
    own = [
        path
        for path in folder.iterdir()
        if not re.match(r"(pip|setuptools|_distutils_hack|pkg_resources)\b", path.name)
    ]
    files = [file for path in own for file in (path.rglob("*") if path.is_dir() else [path])]
    return round(sum(f.stat().st_size for f in files if f.is_file() and not f.is_symlink()) / 1e6, 1)


def _licence(peer: Peer, packages: Path) -> str:
    """The licence of the first package, as its metadata says."""
    if peer.runtime == "node":
        name = peer.packages[0].rpartition("@")[0]
        text = (packages / name / "package.json").read_text(encoding="utf-8")
        return str(json.loads(text).get("license", ""))
    name = "leaf-rt" if peer.packages[0] == ROOT else re.split(r"[\[=<>]", peer.packages[0])[0]
    pattern = re.sub(r"[-_.]+", "_", name).lower()
    for file in packages.glob("*.dist-info/METADATA"):
        if re.sub(r"[-_.]+", "_", file.parent.name.partition("-")[0]).lower() == pattern:
            found = _LICENCE.search(file.read_text(encoding="utf-8").partition("\n\n")[0])
            return found[1].strip()[:40] if found else ""
    return ""
