"""Which files a batch processes, under which names, and where the result of each goes.

Looks at files but opens none of them. Two files never have the same result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from leaf_rt.batch.job import Clip
from leaf_rt.errors import DataError, NoPermission, NotFound, OutputError
from leaf_rt.sinks.factory import RecordFormat
from leaf_rt.system.reading import UnreadableFile, read_regular
from leaf_rt.text import readable

LIST = ".txt"  # ending of a file that lists others
_MAX_LIST = 1 << 30  # bytes
_MAX_NAME = 200  # bytes of a file's name that its result keeps; file systems allow 255 with all endings


def read_list(path: Path) -> list[str]:
    """The files in a list, one per line, absolute. Those without a folder lie in the folder of the list.

    Raises:
        NotFound, NoPermission: It cannot be read.
        DataError: It names no file.
    """
    try:
        data = read_regular(path, _MAX_LIST)
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read this list; change its permissions") from e
    except UnreadableFile as e:
        raise NotFound(f"{e}; give a text file with one path per line") from e
    except OSError as e:
        raise NotFound(f"{path}: this list cannot be read ({e.strerror})") from e
    lines = [os.fsdecode(line.removesuffix(b"\r")) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    folder = os.path.abspath(path.parent)  # noqa: PTH100 - Path.resolve would follow links
    found = [os.path.normpath(os.path.join(folder, line)) for line in lines if line.strip()]  # noqa: PTH118
    if not found:
        raise DataError(f"{path}: names no file; write one path per line")
    return found


def clips(files: Iterable[str], roots: Sequence[Path], out: Path, kind: RecordFormat) -> list[Clip]:
    """Describe the files of a batch, the largest first, so that no worker is left with a long one at the end.

    A file below one of the roots keeps its path from there under ``out``. Any other file keeps its whole path.

    Args:
        files: The files; one that comes twice is taken once.
        roots: Folders whose structure the results have.
        out: Folder of the results.
        kind: Format of the records.

    Raises:
        OutputError: Two files would have the same result.
    """
    tops = [os.path.abspath(root) for root in roots]  # noqa: PTH100
    folder = os.path.abspath(out)  # noqa: PTH100
    found: dict[str, Clip] = {}
    for file in files:
        path = os.path.abspath(file)  # noqa: PTH100
        relative = _below(path, tops)
        place, name = os.path.split(relative)
        result = os.path.join(folder, place, f"{_cut(name)}.leaf.{kind}")  # noqa: PTH118
        if result not in found:
            found[result] = Clip(path, readable(relative), result, *_size_and_time(path))
        elif found[result].path != path:
            raise OutputError(
                f"{found[result].path} and {path} would have the same result {result}; name the folder that holds "
                "both, or use another --out for each"
            )
    return sorted(found.values(), key=lambda clip: -clip.size)


def _below(path: str, tops: Iterable[str]) -> str:
    """The path from the first root above it; without one, the whole path without its first slash."""
    for top in tops:
        prefix = top.rstrip(os.sep) + os.sep
        if path.startswith(prefix):
            return path[len(prefix) :]
    return path.lstrip(os.sep)


def _cut(name: str) -> str:
    """Shorten a long name; a hash keeps two of them apart."""
    data = os.fsencode(name)
    if len(data) <= _MAX_NAME:
        return name
    return f"{data[:_MAX_NAME].decode('utf-8', 'ignore')}-{hashlib.sha256(data).hexdigest()[:12]}"


def _size_and_time(path: str) -> tuple[int, int]:
    """Size and time of change of a file. What is wrong with it is found out when it is opened."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns
