"""All sinks: paths that cannot be written, a full disk, closing."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from clips import empty_frames, write_clip
from sinks import make
from streams import INFO, LABELS, estimates, frame

from leaf_rt.errors import OutputError
from leaf_rt.sinks.jsonl import JsonlSink

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "video"])
@pytest.mark.parametrize("place", ["missing/r", "folder"])
def test_a_path_that_cannot_be_written_raises_at_once(tmp_path: Path, kind: str, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"folder"):
        make(kind, tmp_path / place)


def test_a_full_disk_leaves_no_partial_line(tmp_path: Path) -> None:
    code = f"""
        import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from pathlib import Path
        from streams import INFO, LABELS, estimates, frame
        from leaf_rt.errors import OutputError
        from leaf_rt.sinks.jsonl import JsonlSink
        sink = JsonlSink(Path({str(tmp_path / "r.jsonl")!r}), LABELS)
        try:
            for i in range(1000):
                sink.write(INFO, frame(i), estimates(i / 25, 3), 0.0)
        except OutputError as e:
            sys.exit(str(e))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert "no space left" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 3000
    assert len(rows) % 3 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_full_device(kind: str) -> None:
    with pytest.raises(OutputError, match="no space left"):
        make(kind, Path("/dev/full")).write(INFO, frame(0), estimates(0.0), 0.0)


def test_no_permission(tmp_path: Path) -> None:
    """Runs in a process that is not root, because root may write everywhere."""
    code = f"""
        import os, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from pathlib import Path
        import pyarrow.parquet  # the user nobody may not read our libraries
        from sinks import make
        from leaf_rt.errors import NoPermission
        os.chmod({str(tmp_path)!r}, 0o555)
        if os.geteuid() == 0:
            os.setuid(65534)
        for kind in ("jsonl", "csv", "parquet", "video"):
            try:
                make(kind, Path({str(tmp_path)!r}) / kind)
            except NoPermission:
                print(kind)
    """
    for folder in tmp_path.parents:
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["jsonl", "csv", "parquet", "video"], done.stderr


def test_sinks_may_be_closed_twice_but_not_written_to_afterwards(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv", "video"):
        sink = make(kind, tmp_path / f"r.{kind}")
        sink.write(INFO, frame(0), estimates(0.0), 0.0)
        sink.close()
        sink.close()
        with pytest.raises(ValueError, match="after close"):
            sink.write(INFO, frame(1), estimates(0.04), 0.0)


def test_a_file_cannot_be_a_folder(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", empty_frames(3))
    with pytest.raises(OutputError):
        JsonlSink(clip / "below-a-file.jsonl", LABELS)
