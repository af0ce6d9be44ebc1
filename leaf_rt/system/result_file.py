"""Result files: written under a temporary name beside the final one, which they take only when they are complete.

Nothing else in leaf-rt decides when a result gets its name. Content that is ready as a whole can use ``write_whole``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from leaf_rt.errors import LeafError, OutputError
from leaf_rt.system.closing import Closing
from leaf_rt.system.file_lock import lock_existing, open_exclusive
from leaf_rt.system.files import fsync_folder, output_error

PARTIAL = ".part"  # what an incomplete result has behind its final name


def partial_path(path: Path) -> Path:
    """Where a result is until it is complete."""
    return path.with_name(f"{path.name}{PARTIAL}")


def remove_partial(path: Path) -> None:
    """Remove the partial file of a result, left by a run that was killed, unless a run is writing it."""
    part = partial_path(path)
    with contextlib.suppress(OSError, LeafError):
        lock = lock_existing(part, path)
        if lock is not None:
            part.unlink()
            os.close(lock)


class ResultFile(Closing):
    """A result that is being written, locked against other runs.

    An earlier result under the final name stands until ``complete``. If the process is killed, the partial file stays
    and the next run that writes this result replaces it. Pipes and devices are written directly.

    Args:
        path: Its final name. A link is followed, so that the file it leads to is replaced, not the link.
        follow: Write under the final name from the start, because people follow the file while it grows. Only for
            formats that are valid line by line.

    Attributes:
        name: The final name, for messages.
        path: Where to write.
        fd: The open and locked file, for appending.
        failed: Set this after a failed write: the result is not complete, and keeps its temporary name.
        bare: Set this while only the head of the format is written: a partial file of that holds nothing.
        replaced: Whether a partial file was there, left by a run that was killed.

    Raises:
        NoPermission, OutputError: It cannot be created, or another run is writing it.
    """

    def __init__(self, path: Path | str, *, follow: bool = False) -> None:
        self.name = str(path)
        self.failed = self.bare = False
        try:
            self._final = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
        except OSError as e:
            raise output_error(path, e) from e
        self._earlier: int | None = None  # lock of the earlier result
        found = _stat(self._final)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise output_error(path, IsADirectoryError())
        direct = follow or not self._final.name or (found is not None and not stat.S_ISREG(found.st_mode))
        self.path = self._final if direct else partial_path(self._final)
        before = None if direct else _stat(self.path)
        if before is not None and not stat.S_ISREG(before.st_mode):
            raise OutputError(f"{self.path}: is not a regular file, and stands in the way of {path}; remove it")
        self.replaced = before is not None and before.st_size > 0
        if not direct:
            self._earlier = lock_existing(self._final, path)
        try:
            self.fd = open_exclusive(self.path, os.O_APPEND, name=path)
        except BaseException:
            self._release_earlier()
            raise
        self._open = True

    def write(self, content: bytes) -> None:
        """Append bytes.

        Raises:
            NoPermission, OutputError: They cannot be written; ``failed`` is set.
        """
        try:
            while content:
                content = content[os.write(self.fd, content) :]
        except OSError as e:
            self.failed = True
            raise output_error(self.name, e) from e

    def complete(self) -> None:
        """Put the content on the disk, give the file its final name, and close it. Call it after the last write.

        Raises:
            NoPermission, OutputError: That failed, or somebody deleted or moved the file in the meantime.
        """
        if not self._open:
            return
        try:
            found = os.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_nlink == 0:
                raise OutputError(f"{self.name}: was deleted while it was being written; its content is lost")
            os.fsync(self.fd)
            if self.path == self._final:
                return
            now = _stat(self.path)
            if now is None or not os.path.samestat(now, found):
                raise OutputError(f"{self.path}: was moved while it was being written, so {self.name} is incomplete")
            self.path.replace(self._final)
            self.path = self._final
            fsync_folder(self._final.parent)
        except OSError as e:
            raise output_error(self.name, e) from e
        finally:
            self.close()

    def discard(self) -> None:
        """Remove what was written, unless it has its final name, and close the file."""
        if self._open:
            with contextlib.suppress(OSError):
                if self.path != self._final:
                    self.path.unlink()
            self.close()

    def close(self) -> None:
        """Close the file under its present name; a partial file that holds nothing is removed. May be called twice."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                if self.path != self._final and (self.bare or os.fstat(self.fd).st_size == 0):
                    self.path.unlink()
            os.close(self.fd)
            self._release_earlier()

    @property
    def partial(self) -> Path | None:
        """The partial file with something in it, or None: to be named to the user when the result is incomplete."""
        found = None if self.path == self._final else _stat(self.path)
        return self.path if found is not None and found.st_size > 0 else None

    def _release_earlier(self) -> None:
        if self._earlier is not None:
            os.close(self._earlier)
            self._earlier = None


@dataclass(slots=True)
class Finished:
    """What became of results.

    Attributes:
        complete: Those that have their final names, by these names.
        partial: The partial files that stay, by final name. Those without content are removed.
        errors: Why results could not be completed.
    """

    complete: list[str] = field(default_factory=list)
    partial: dict[str, Path] = field(default_factory=dict)
    errors: list[LeafError] = field(default_factory=list)


class ResultFiles:
    """Results that become complete together: those of one source, or those that all sources share."""

    def __init__(self) -> None:
        self._files: list[ResultFile] = []

    def open(self, path: Path, *, follow: bool = False) -> ResultFile:
        """Open a result; see ``ResultFile``."""
        file = ResultFile(path, follow=follow)
        self._files.append(file)
        return file

    def fail(self, names: set[str]) -> None:
        """Mark the results of these final names as incomplete."""
        for file in self._files:
            file.failed = file.failed or file.name in names

    @property
    def replaced(self) -> list[Path]:
        """Partial files of a killed run that these results have replaced."""
        return [file.path for file in self._files if file.replaced]

    def finish(self, complete: bool) -> Finished:
        """Close all results. May be called twice; the second call finds none.

        Args:
            complete: Whether the source was read to its end, so that results without an error get their final names.
        """
        done = Finished()
        for file in self._files:
            if complete and not file.failed:
                try:
                    file.complete()
                    done.complete.append(file.name)
                except LeafError as e:
                    done.errors.append(e)
            else:
                file.close()
                if file.partial is not None:
                    done.partial[file.name] = file.path
        self._files.clear()
        return done


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):  # does not exist, or is no valid path
        return None
