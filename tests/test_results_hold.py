"""A result has its final name only when it is complete, and a good earlier one stands until then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from clips import DEMO, frames_in
from commands import Leaf
from full_disk import small_disk

from leaf_rt.errors import OutputError
from leaf_rt.system.result_file import ResultFile, ResultFiles, partial_path

FAST = ("--backend", "onnxruntime")


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "leaf_rt", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > size):
        assert time.monotonic() < deadline, f"{path} did not grow"
        time.sleep(0.01)


# --- the file itself


def test_a_result_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("earlier")
    with ResultFile(path) as file:
        file.write(b"new")
        assert (path.read_text(), partial_path(path).read_text()) == ("earlier", "new")
        file.complete()
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize("command", ["video", "image"])
def test_when_no_source_can_be_read_nothing_is_left_and_nothing_replaced(
    leaf: Leaf, tmp_path: Path, command: str
) -> None:
    """Tables have a head even if nothing has been found."""
    (tmp_path / "text.mp4").write_text("no video and no picture")
    table = tmp_path / "out" / "faces.parquet"
    outputs = ("--out", table.parent, "--jsonl", table.with_suffix(".jsonl"), "--csv", table.with_suffix(".csv"))
    for sources in (["text.mp4"], ["text.mp4", "none.mp4"]):
        done = leaf(command, *(tmp_path / name for name in sources), *outputs, "--parquet", table)
        assert done.code in (3, 5), done.err
        assert ".part" not in done.err
        assert not list(table.parent.iterdir())
    table.write_text("earlier")
    assert leaf(command, tmp_path / "text.mp4", tmp_path / "none.mp4", *outputs, "--parquet", table).code in (3, 5)
    assert table.read_text() == "earlier"


def test_a_result_that_is_not_complete_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("earlier")
    files = ResultFiles()
    files.open(path).write(b"half")
    files.open(tmp_path / "empty.csv")
    done = files.finish(complete=False)
    assert (done.partial, done.errors, done.complete) == ({str(path): partial_path(path)}, [], [])
    assert path.read_text() == "earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.jsonl", "r.jsonl.part"]
    with ResultFile(path) as again:
        assert again.replaced
        assert partial_path(path).read_text() == ""


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("earlier")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with ResultFile(tmp_path / "link.csv") as file:
        file.write(b"new")
        file.complete()
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"


@pytest.mark.parametrize("follow", [True, False])
def test_a_deleted_result_is_an_error(tmp_path: Path, follow: bool) -> None:
    file = ResultFile(tmp_path / "r.csv", follow=follow)
    file.write(b"new")
    file.path.unlink()
    with pytest.raises(OutputError, match="was deleted while it was being written"):
        file.complete()
    assert list(tmp_path.iterdir()) == []


def test_a_moved_result_is_an_error_unless_people_follow_it(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "r.csv")
    file.path.rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="was moved while it was being written"):
        file.complete()
    log = ResultFile(tmp_path / "log.csv", follow=True)
    log.path.rename(tmp_path / "log.csv.1")  # as logrotate does
    log.complete()


def test_a_run_that_follows_and_one_that_completes_exclude_each_other(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "r.csv", follow=True), pytest.raises(OutputError, match="already being written"):
        ResultFile(tmp_path / "r.csv")


def test_what_stands_in_the_way_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.csv.part")
    with pytest.raises(OutputError, match="not a regular file"):
        ResultFile(tmp_path / "r.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        ResultFile(tmp_path / "folder")


# --- commands


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_full_disk_keeps_the_earlier_result(leaf: Leaf, clip: Path, tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        earlier = disk / f"a.{kind}"
        others = ("--no-jsonl",) if kind != "jsonl" else ()
        command = ("video", clip, "--no-save-video", "--no-plot", *others, f"--{kind}", earlier, *FAST)
        assert leaf(*command).code == 0
        whole = earlier.read_bytes()
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(bytes(free - 4096))
        done = leaf(*command)
        assert done.code == OutputError.exit_code
        assert "no space left" in done.sentence()
        assert earlier.read_bytes() == whole
        left = sorted(path.name for path in disk.iterdir())
        assert left == sorted([earlier.name, "filler"] + ([f"{earlier.name}.part"] if kind != "parquet" else []))
        if kind == "jsonl":
            assert [json.loads(line) for line in (disk / "a.jsonl.part").read_text().splitlines()]
        if kind == "parquet":
            assert pq.read_table(earlier).num_rows == 30


def test_a_full_disk_during_the_video_keeps_the_earlier_video(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        out = ("--out", disk, "--no-plot", "--no-report", "--no-jsonl", *FAST)
        assert leaf("video", clip, *out).code == 0
        film = disk / "face.leaf.mp4"
        assert frames_in(film) == 30
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
        done = leaf("video", clip, *out)
        assert done.code == OutputError.exit_code
        assert "no space left" in done.sentence()
        assert frames_in(film) == 30


def test_a_full_disk_names_both_files_of_a_picture(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        (disk / "filler").write_bytes(bytes(4096))
        done = leaf("image", face, "--out", disk, *FAST)
        assert done.code == OutputError.exit_code
        errors = [line for line in done.err.splitlines() if line.startswith("error")]
        assert len(errors) == 2, done.err
        assert "face.leaf.jsonl: no space left" in errors[0]
        assert "face.leaf.jpg: no space left" in errors[1]
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_plot_that_cannot_be_written_is_found_out_at_the_start(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    done = leaf("video", clip, "--no-save-video", "--plot", tmp_path / "none" / "a.png", "--out", tmp_path, *FAST)
    assert done.code == OutputError.exit_code
    assert "folder does not exist" in done.sentence()
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("live", [True, False])
def test_deleted_outputs_are_said(tmp_path: Path, live: bool) -> None:
    options = ["--realtime", "--loop"] if live else []
    table = tmp_path / "r.csv"
    with start("video", DEMO, "--out", tmp_path, "--csv", table, "--no-plot", *options, *FAST) as process:
        growing = table if live else partial_path(table)
        wait_for(growing, 5000)
        growing.unlink()
        if live:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert process.returncode == OutputError.exit_code, err
    assert f"error: {table}: was deleted while it was being written" in err
    assert "Traceback" not in err
    assert "demo.leaf.jsonl" in out


@pytest.mark.slow
def test_sighup_ends_the_run_in_good_order(tmp_path: Path) -> None:
    command = ("--realtime", "--loop", "--out", tmp_path, "--parquet", tmp_path / "r.parquet", *FAST)
    with start("video", DEMO, *command) as process:
        wait_for(tmp_path / "demo.leaf.jsonl", 5000)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = [json.loads(line) for line in (tmp_path / "demo.leaf.jsonl").read_text().splitlines()]
    assert pq.read_table(tmp_path / "r.parquet").num_rows == len(rows) > 0
    assert (tmp_path / "demo.leaf.png").exists()
    assert "on screen" in out
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_nohup_keeps_ignoring_sighup(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    arguments = ("video", DEMO, "--out", tmp_path, "--no-plot", "--no-save-video", "--end", "4", *FAST)
    with start(*arguments, preexec_fn=ignore) as process:
        wait_for(tmp_path / "demo.leaf.jsonl.part", 1000)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "stopped" in err) == (0, False)
    assert (tmp_path / "demo.leaf.jsonl").exists()
