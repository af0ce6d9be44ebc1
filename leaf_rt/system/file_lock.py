"""A result has one writer at a time: a second run into the same file is refused. Knows the operating system's locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from leaf_rt.errors import OutputError
from leaf_rt.system.files import output_error


def open_exclusive(path: Path | str, flags: int = 0, name: Path | str | None = None) -> int:
    """Open a file for writing, empty, and hold it against other writers until the descriptor is closed.

    The lock goes with the process, however that ends. Pipes and devices are not held: many may write to them.

    Args:
        path: Created where it does not exist.
        flags: For ``os.open``, beside those that make it writable.
        name: What people call it, where that is not its path.

    Raises:
        NoPermission, OutputError: It cannot be created, or somebody is writing it; it is then left as it was.
    """
    name = path if name is None else name
    fd = _held(path, flags, name)
    if not _stands(fd, path):  # its writer moved or removed it just before letting go: this is that one's result
        os.close(fd)
        fd = _held(path, flags, name)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
    except OSError as e:
        os.close(fd)
        raise output_error(name, e) from e
    return fd


def release(fd: int, path: Path | str) -> None:
    """Close a descriptor of ``open_exclusive``.

    Raises:
        NoPermission, OutputError: A network file system says only now that the data was lost.
    """
    try:
        os.close(fd)
    except OSError as e:
        raise output_error(path, e) from e


def _held(path: Path | str, flags: int, name: Path | str) -> int:
    """Open a file as it is, and lock it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    except OSError as e:
        raise output_error(name, e) from e
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            _lock(fd)
    except BlockingIOError as e:
        os.close(fd)
        raise OutputError(
            f"{name}: is being written already, by another run or another option of this one; wait until that has "
            "ended, or choose another place with --out"
        ) from e
    except OSError as e:
        os.close(fd)
        raise output_error(name, e) from e
    return fd


def _stands(fd: int, path: Path | str) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(fd), Path(path).stat())
    except OSError:
        return False


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):  # a file system without locks
            raise
