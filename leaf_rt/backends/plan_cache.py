"""The cache of TensorRT engines in the user's cache folder: each one is built once.

Knows files, locks and hashes; must not know runtimes. If the folder cannot be written, engines are built for every
run, and the user is notified.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from leaf_rt.backends.base import ProgressCallback
from leaf_rt.errors import LeafError, TimedOut
from leaf_rt.system.files import write_whole
from leaf_rt.system.parsing import read_json
from leaf_rt.system.reading import open_regular
from leaf_rt.system.user_cache import user_cache

TIMEOUT = 1800.0  # s; building an engine for a large network takes minutes
POLL = 0.05  # s


def cache_folder() -> Path:
    """The folder of this user's engines: $LEAF_RT_CACHE, or leaf-rt/engines in the system's cache folder."""
    if folder := os.environ.get("LEAF_RT_CACHE"):
        return Path(folder)
    return user_cache("engines")


def folder_problem(folder: Path) -> str | None:
    """Create the folder, and check that it can be used.

    Engines contain code, so a folder that other users own or can write to is not used.

    Returns:
        None if it can be used, else a description of the problem.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid not in (os.getuid(), 0):
            return f"{folder} belongs to another user"
        if status.st_mode & 0o002:
            return f"{folder} can be written by every user"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return f"{folder} cannot be written ({e.strerror or e})"


@contextlib.contextmanager
def locked(path: Path, notify: ProgressCallback, timeout: float = TIMEOUT) -> Iterator[None]:
    """Hold a lock between processes. The operating system releases it when the process ends in any way.

    Args:
        path: The lock file.
        notify: Called once if another process holds the lock.
        timeout: How long to wait for it, s.

    Raises:
        TimedOut: The other process did not finish in time.
    """
    import filelock  # here, because only a build needs it and the import takes 40 ms

    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        notify("another process is building this engine; waiting for it")
        try:
            lock.acquire(timeout=timeout, poll_interval=POLL)
        except filelock.Timeout as e:
            raise TimedOut(
                f"{path}: another process has held this lock for more than {timeout:.0f} s; end it or wait"
            ) from e
    try:
        yield
    finally:
        lock.release()


def set_aside(path: Path, reason: str) -> str:
    """Rename a damaged file of the cache, so that it is made again; returns a sentence for users."""
    bad = path.with_name(f"{path.name}.bad")
    try:
        path.replace(bad)
    except OSError as e:
        return f"{path}: is damaged ({reason}) and cannot be set aside ({e.strerror}); delete it"
    return f"{path}: is damaged ({reason}); it was set aside as {bad.name} and is made again"


def hashed_name(key: dict[str, Any]) -> str:
    """A file name for a key; equal keys have equal names."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def read_entry(folder: Path, key: dict[str, Any]) -> tuple[bytes | None, str]:
    """Read an entry of the cache.

    An entry is used only if the JSON file beside it has exactly this key and the hash of these bytes.

    Returns:
        The bytes and "", or None and what is wrong with the entry; that is "" if there is no entry.
    """
    path = folder / f"{hashed_name(key)}.plan"
    try:
        sidecar = read_json(path.with_suffix(".json"))
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None, f"the description of {path.name} is missing" if path.exists() else ""
    except (OSError, ValueError) as e:
        return None, f"{path.name} cannot be read ({e})"
    if not isinstance(sidecar, dict) or sidecar.get("key") != key:
        return None, f"{path.name} was built for another machine, version or model"
    if sidecar.get("sha256") != hashlib.sha256(content).hexdigest():
        return None, f"{path.name} is damaged"
    return content, ""


def get_or_build(
    key: dict[str, Any],
    build: Callable[[], bytes],
    notify: ProgressCallback,
    folder: Path | None = None,
    timeout: float = TIMEOUT,
) -> tuple[bytes, str]:
    """Get an entry of the cache, building it first if necessary. One process builds; the others wait.

    Args:
        key: Everything that the entry depends on, as JSON values.
        build: Returns the content.
        notify: Called with one sentence about each problem or wait.
        folder: None means ``cache_folder()``.
        timeout: How long to wait for another process, s.

    Returns:
        The content, and a phrase for users that says where it comes from.

    Raises:
        TimedOut: See ``locked``. Errors of ``build`` are raised as they are.
    """
    folder = folder or cache_folder()
    if (problem := folder_problem(folder)) is not None:
        notify(f"the engine is built but not stored: {problem}; set LEAF_RT_CACHE to a folder that you own")
        return build(), "built now, not stored"
    content, problem = read_entry(folder, key)
    if content is not None:
        return content, "from the cache"
    with locked(folder / f"{hashed_name(key)}.lock", notify, timeout):
        content, problem = read_entry(folder, key)
        if content is not None:
            return content, "from the cache, built by another process"
        if problem:
            notify(f"{problem}; building it again")
        start = time.monotonic()
        content = build()
        seconds = time.monotonic() - start
        path = folder / f"{hashed_name(key)}.plan"
        sidecar = {"key": key, "sha256": hashlib.sha256(content).hexdigest(), "seconds": round(seconds, 1)}
        try:
            write_whole(path, content)
            write_whole(path.with_suffix(".json"), (json.dumps(sidecar, indent=2) + "\n").encode())
        except LeafError as e:
            notify(f"the engine is built but not stored: {e}")
            return content, "built now, not stored"
    return content, f"built now in {seconds:.0f} s"
