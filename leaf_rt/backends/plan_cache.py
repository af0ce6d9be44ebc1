"""What is dear to make is made once: plans and timings, kept in the user's cache folder.

Knows files, locks and hashes; must not know runtimes. A folder that cannot be written is no error: the thing is made
anew each time, and that is said.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from leaf_rt.errors import LeafError, TimedOut
from leaf_rt.system.files import write_whole

ProgressCallback = Callable[[str], None]
WAIT = 1800.0  # s; a full TensorRT build of a large network takes minutes


def cache_folder() -> Path:
    """Where this user's engines lie: $LEAF_RT_CACHE, or leaf-rt in the system's cache folder."""
    if chosen := os.environ.get("LEAF_RT_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "leaf-rt" / "engines"


def usable(folder: Path) -> str | None:
    """Make the folder; None where it can be used, else why not, for people.

    Plans hold code, so a folder of another user, or one that others may write to, is not used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid not in (os.getuid(), 0):
            return f"{folder} belongs to another user"
        if status.st_mode & 0o002:
            return f"{folder} can be written by everybody"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return f"{folder} cannot be written ({e.strerror or e})"


@contextlib.contextmanager
def locked(path: Path, say: ProgressCallback, timeout: float = WAIT) -> Iterator[None]:
    """Hold a lock file; the system frees it when a process dies.

    Args:
        path: The lock file; it stays.
        say: Told once where another process holds the lock.
        timeout: s.

    Raises:
        TimedOut: The other process did not finish.
    """
    end = time.monotonic() + timeout
    told = False
    with path.open("ab") as f:
        while not _try_lock(f):
            if not told:
                say("another process builds this engine; waiting for it")
                told = True
            if time.monotonic() > end:
                raise TimedOut(f"{path}: another process holds it for more than {timeout:.0f} s; end it or wait")
            time.sleep(0.05)
        try:
            yield
        finally:
            fcntl.flock(f, fcntl.LOCK_UN)


def name_of(key: dict[str, Any]) -> str:
    """A file name for a key: the same key, the same name."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def read_entry(folder: Path, key: dict[str, Any]) -> tuple[bytes | None, str]:
    """An entry, or None and what is wrong with it ("" where there is none).

    Only an entry whose sidecar names exactly this key and the hash of these bytes is given out.
    """
    path = folder / f"{name_of(key)}.plan"
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content = path.read_bytes()
    except FileNotFoundError:
        return None, f"{path.name} lacks its description" if path.exists() else ""
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
    say: ProgressCallback,
    folder: Path | None = None,
    timeout: float = WAIT,
) -> tuple[bytes, str]:
    """An entry of the cache, built if need be: by one process, while others wait for it.

    Args:
        key: All that the entry depends on, as JSON values.
        build: Makes it.
        say: Told what goes on.
        folder: None takes ``cache_folder()``.
        timeout: How long to wait for another process, s.

    Returns:
        The bytes, and where they come from, for people.

    Raises:
        TimedOut: See ``locked``. What ``build`` raises passes through.
    """
    folder = folder or cache_folder()
    if (why := usable(folder)) is not None:
        say(f"the engine is built but not kept: {why}; set LEAF_RT_CACHE to a folder of yours")
        return build(), "built now, not kept"
    content, wrong = read_entry(folder, key)
    if content is not None:
        return content, "from the cache"
    with locked(folder / f"{name_of(key)}.lock", say, timeout):
        content, wrong = read_entry(folder, key)
        if content is not None:
            return content, "from the cache, built by another process"
        if wrong:
            say(f"{wrong}: built again")
        start = time.monotonic()
        content = build()
        seconds = time.monotonic() - start
        path = folder / f"{name_of(key)}.plan"
        sidecar = {"key": key, "sha256": hashlib.sha256(content).hexdigest(), "seconds": round(seconds, 1)}
        try:
            write_whole(path, content)
            write_whole(path.with_suffix(".json"), (json.dumps(sidecar, indent=2) + "\n").encode())
        except LeafError as e:
            say(f"the engine is built but not kept: {e}")
            return content, "built now, not kept"
    return content, f"built now in {seconds:.0f} s"


def _try_lock(f: BinaryIO) -> bool:
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
