"""Opens result files so that only one process writes to each of them.

Uses ``flock`` directly. The filelock package cannot replace it: it locks a file of its own and does not give its
descriptor away, so the result file could not be checked and truncated under the lock, and every result would get a
lock file beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from leaf_rt.errors import OutputError
from leaf_rt.system.files import output_error


def open_exclusive(path: Path | str, flags: int = 0, name: Path | str | None = None) -> int:
    """Open an empty file for writing, and lock it until the descriptor is closed.

    The operating system releases the lock when the process ends in any way. Pipes and devices are not locked, because
    several processes may write to them.

    Args:
        path: The file; it is created if it does not exist.
        flags: More flags for ``os.open``.
        name: Name of the file for users, if that is not its path.

    Returns:
        The file descriptor.

    Raises:
        NoPermission, OutputError: The file cannot be created, or another run is writing it. It is left unchanged.
    """
    name = path if name is None else name
    fd = _open_locked(path, flags, name)
    if not _is_at(path, fd):  # the previous writer moved or removed it before it released the lock
        os.close(fd)
        fd = _open_locked(path, flags, name)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
    except OSError as e:
        os.close(fd)
        raise output_error(name, e) from e
    return fd


def lock_existing(path: Path, name: Path | str) -> int | None:
    """Lock a file that stays unchanged, against another run that writes it, until the descriptor is closed.

    Returns:
        The file descriptor; None if there is no such file, or its file system has no locks.

    Raises:
        OutputError: Another run is writing it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        _lock(fd)
    except BlockingIOError as e:
        os.close(fd)
        raise _being_written(name) from e
    except OSError:
        os.close(fd)
        return None
    return fd


def release(fd: int, path: Path | str) -> None:
    """Close a descriptor of ``open_exclusive``.

    Raises:
        NoPermission, OutputError: Data could not be written; network file systems report this only on closing.
    """
    try:
        os.close(fd)
    except OSError as e:
        raise output_error(path, e) from e


def _open_locked(path: Path | str, flags: int, name: Path | str) -> int:
    """Open a file without truncating it, and lock it if it is a regular file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    except OSError as e:
        raise output_error(name, e) from e
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            _lock(fd)
    except BlockingIOError as e:
        os.close(fd)
        raise _being_written(name) from e
    except OSError as e:
        os.close(fd)
        raise output_error(name, e) from e
    return fd


def _being_written(name: Path | str) -> OutputError:
    return OutputError(
        f"{name}: is already being written by another run or another option of this run; wait until it has "
        "ended, or choose another place with --out"
    )


def _is_at(path: Path | str, fd: int) -> bool:
    """Whether the path still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(fd), Path(path).stat())
    except OSError:
        return False


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):  # this file system has no locks
            raise
