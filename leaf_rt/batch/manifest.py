"""The manifest of a batch: which files are done, as a SQLite file beside the results.

A row is written after its result has got its name. So a result without a row is made again, and no row is without its
result. Only the process that started the batch writes here; a lock file keeps a second one out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from leaf_rt.batch.job import Clip, Outcome
from leaf_rt.errors import LeafError, OutputError
from leaf_rt.system.closing import Closing
from leaf_rt.system.file_lock import open_exclusive
from leaf_rt.system.files import make_folder
from leaf_rt.system.parsing import parse_json

NAME, LOCK = "leaf-batch.sqlite", "leaf-batch.lock"
_LAYOUT = 1
_NAMES = {("table", "batch"), ("table", "files")}
_TABLES = """
CREATE TABLE IF NOT EXISTS batch (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    result PRIMARY KEY, path NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, exit_code INTEGER NOT NULL, frames INTEGER NOT NULL, faces INTEGER NOT NULL,
    seconds REAL NOT NULL, result_size INTEGER NOT NULL, backend TEXT NOT NULL, host TEXT NOT NULL,
    version TEXT NOT NULL, finished_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
) WITHOUT ROWID;
"""


class Manifest(Closing):
    """Opens the manifest in a folder of results, or makes it.

    Args:
        folder: The folder; it is created if it does not exist.

    Raises:
        NoPermission, OutputError: It cannot be written, another batch is writing there, or the file is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = os.path.abspath(folder)  # noqa: PTH100 - as in the paths of clips
        self._path = folder / NAME
        for path in (folder / LOCK, self._path):
            if path.is_symlink() or (path.exists() and not (path.is_file() or path.is_dir())):
                raise OutputError(f"{path}: is not a regular file, and stands in the way of the batch; remove it")
        self._lock = _lock(folder)
        self._base: Any = None
        try:
            with self._readable():
                # Journals of the default kind also work on network file systems; a write-ahead log does not.
                self._base = sqlite3.connect(self._path, isolation_level=None, timeout=5)
                self._base.execute("PRAGMA synchronous = FULL")
                if self._names() not in (set(), _NAMES):
                    raise ValueError("it holds other tables than that of a batch")
                self._base.executescript(_TABLES)
                layout = self._value("layout")
                if layout is None:
                    self._set("layout", _LAYOUT)
                elif layout != _LAYOUT:
                    raise OutputError(f"{self._path}: was written by another version of leaf-rt; choose another --out")
        except BaseException:
            if self._base is not None:
                self._base.close()
            os.close(self._lock)
            raise

    @property
    def options(self) -> dict[str, Any] | None:
        """The options of the results that are done; None if there are none yet."""
        with self._readable():
            found = self._value("options")
            if not isinstance(found, dict | None):
                raise ValueError("its options are damaged")
        return found

    def start(self, options: dict[str, Any], *, redo: bool) -> None:
        """Keep the options of the results that follow.

        Args:
            options: See ``Job.options``.
            redo: Whether the results that are there are out of date.
        """
        with self._readable():
            self._base.execute("BEGIN")
            if redo:
                self._base.execute("UPDATE files SET state = 'outdated' WHERE state = 'done'")
            self._set("options", options)
            self._base.execute("COMMIT")

    def left(self, clips: Sequence[Clip]) -> list[Clip]:
        """The files that are not done: new ones, failed ones, changed ones, and those whose result is gone."""
        with self._readable():
            rows = self._base.execute(
                "SELECT result, path, size, mtime_ns, result_size FROM files WHERE state = 'done'"
            ).fetchall()
            done = {_text(row[0]): (_text(row[1]), *row[2:]) for row in rows}
        return [clip for clip in clips if not self._is_done(clip, done.get(self._key(clip)))]

    def add(self, outcome: Outcome, version: str) -> None:
        """Keep what became of a file, on the disk.

        Raises:
            NoPermission, OutputError: The manifest cannot be written.
        """
        clip = outcome.clip
        size = _size(clip.result) if outcome.state == "done" else -1
        row = (
            _stored(self._key(clip)), _stored(clip.path), clip.size, clip.mtime_ns, outcome.state,
            outcome.reason.encode("utf-8", "backslashreplace").decode(), outcome.exit_code, outcome.frames,
            outcome.faces, round(outcome.seconds, 3), size, outcome.backend, outcome.host, version,
        )  # fmt: skip
        columns = "result, path, size, mtime_ns, state, reason, exit_code, frames, faces, seconds, result_size, "
        columns += "backend, host, version"
        with self._readable():
            self._base.execute(f"REPLACE INTO files ({columns}) VALUES ({', '.join('?' * len(row))})", row)

    def close(self) -> None:
        """Close the file and let other batches in. May be called twice."""
        if self._lock >= 0:
            self._base.close()
            os.close(self._lock)
            self._lock = -1

    def _key(self, clip: Clip) -> str:
        """The result by its path below the folder, so that the whole folder can be moved."""
        return os.path.relpath(clip.result, self._folder)

    def _is_done(self, clip: Clip, row: tuple[Any, ...] | None) -> bool:
        return row == (clip.path, clip.size, clip.mtime_ns, _size(clip.result)) and clip.size >= 0

    def _value(self, key: str) -> Any:
        row = self._base.execute("SELECT value FROM batch WHERE key = ?", (key,)).fetchone()
        return None if row is None else parse_json(row[0])

    def _names(self) -> set[tuple[str, str]]:
        """Kind and name of everything in the file but the indices that SQLite makes."""
        return set(self._base.execute("SELECT type, name FROM sqlite_master WHERE type != 'index'"))

    def _set(self, key: str, value: Any) -> None:
        self._base.execute("REPLACE INTO batch VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn an error of SQLite into one sentence."""
        try:
            yield
        except (sqlite3.Error, ValueError) as e:
            if not self._path.exists():
                raise OutputError(
                    f"{self._path}: is gone, because somebody deleted or moved it or its folder; start the batch again"
                ) from e
            full = isinstance(e, sqlite3.Error) and getattr(e, "sqlite_errorname", "") == "SQLITE_FULL"
            hint = "free some space" if full else "move it away to begin again, or choose another --out"
            raise OutputError(f"{self._path}: this manifest cannot be used ({e}); {hint}") from e


def _lock(folder: Path) -> int:
    """Keep other batches out until the descriptor is closed, however this process ends."""
    try:
        return open_exclusive(folder / LOCK)
    except LeafError as e:
        if "being written" in str(e):
            raise OutputError(
                f"--out {folder}: another batch is writing there; wait until it has ended, or choose another --out"
            ) from e
        raise


def _stored(path: str) -> str | bytes:
    """A path as SQLite can keep it: text, or bytes if it is no text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _text(stored: object) -> str:
    if not isinstance(stored, str | bytes):
        raise ValueError("a path in it is damaged")
    return os.fsdecode(stored)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return -1
