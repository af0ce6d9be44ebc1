"""Folders and patterns as input, and ``--skip-existing``: what is processed, in which order, and where results go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import DEMO
from commands import Leaf, records

from leaf_rt.cli.folders import VIDEOS, expand
from leaf_rt.cli.video import groups
from leaf_rt.errors import NotAVideo, NotFound
from leaf_rt.sources.base import Target
from leaf_rt.system.result_file import ResultFile

FAST = ("--no-save-video", "--no-plot", "--no-report", "--backend", "onnxruntime")


@pytest.fixture
def clips(clip: Path, tmp_path: Path) -> Path:
    """A folder of three clips, one of them below, beside files of other kinds."""
    folder = tmp_path / "clips"
    (folder / "day 2").mkdir(parents=True)
    (folder / ".trash").mkdir()
    for name in ("clip10.mp4", "clip2.mp4", "day 2/clip2.mp4", ".trash/old.mp4"):
        shutil.copy(clip, folder / name)
    (folder / "notes.txt").write_text("notes")
    (folder / "clip2.leaf.jsonl").write_text("from an earlier run\n")
    (folder / "clip2.leaf.mp4.part").write_text("from a killed run\n")
    return folder


def test_a_folder_is_searched_in_natural_order(clips: Path) -> None:
    found = expand([str(clips)], VIDEOS, "video")
    assert [os.path.relpath(name, clips) for name in found.files] == ["clip2.mp4", "clip10.mp4", "day 2/clip2.mp4"]
    assert found.notes == [f"{clips}: skipped 1 file whose name does not end like that of a video: notes.txt"]
    assert not found.errors


def test_other_arguments_stay_as_they_are(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].mp4"  # the name of a file that looks like a pattern
    odd.touch()
    arguments = ["0", "rtsp://camera/x?y=[1]", "none.mp4", str(odd), "/dev/video0"]
    assert expand(arguments, VIDEOS, "video").files == arguments


def test_patterns(clips: Path) -> None:
    every = expand([f"{clips}/**/*.mp4"], VIDEOS, "video")
    assert [os.path.relpath(name, clips) for name in every.files] == ["clip2.mp4", "clip10.mp4", "day 2/clip2.mp4"]
    assert [Path(name).name for name in expand([f"{clips}/clip?.*"], VIDEOS, "video").files] == ["clip2.mp4"]
    (clips / "odd.dav").touch()
    assert [Path(name).name for name in expand([f"{clips}/*.dav"], VIDEOS, "video").files] == ["odd.dav"]
    twice = expand([str(clips), f"{clips}/*.mp4"], VIDEOS, "video")
    assert len(twice.files) == 3
    (error,) = expand([f"{clips}/*.mkv"], VIDEOS, "video").errors
    assert isinstance(error, NotFound)
    (error,) = expand([f"{clips}/*.t[x]t"], VIDEOS, "video").errors
    assert isinstance(error, NotAVideo)


def test_a_link_to_the_folder_itself_is_not_followed(clips: Path) -> None:
    (clips / "again").symlink_to(clips)
    assert len(expand([str(clips)], VIDEOS, "video").files) == 3


@pytest.mark.parametrize("command", ["video", "image"])
def test_a_folder_without_the_right_files_is_one_sentence(leaf: Leaf, tmp_path: Path, command: str) -> None:
    (tmp_path / "a.txt").touch()
    done = leaf(command, tmp_path)
    assert done.code == NotAVideo.exit_code
    assert "this folder holds no " in done.sentence()
    assert done.out == ""


def test_the_results_of_a_folder_have_its_structure(leaf: Leaf, clips: Path, tmp_path: Path) -> None:
    (clips / "clip3.mp4").write_text("no video")
    out = tmp_path / "out"
    done = leaf("video", clips, "--out", out, *FAST)
    assert done.code == NotAVideo.exit_code  # of the bad one; the others are done
    assert "clip3.mp4" in done.sentence()
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert [name for name in names if name.endswith(".jsonl")] == [
        "clip10.leaf.jsonl",
        "clip2.leaf.jsonl",
        "day 2/clip2.leaf.jsonl",
    ]
    assert (clips / "clip2.leaf.jsonl").read_text() == "from an earlier run\n"
    again = leaf("video", clips, "--out", out, *FAST, "--skip-existing")
    assert again.code == NotAVideo.exit_code
    assert "skipped 3 files that have all their results" in again.err
    (clips / "clip3.mp4").unlink()
    last = leaf("video", clips, "--out", out, *FAST, "--skip-existing")
    assert (last.code, last.out) == (0, "")
    assert "back end" not in last.err  # the model is not even loaded


def test_a_folder_of_pictures(leaf: Leaf, face: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/a.png"):
        shutil.copy(face, folder / name)
    assert leaf("image", folder, "--out", out).code == 0
    results = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert results == ["a.leaf.jpg", "a.leaf.jsonl", "more/a.leaf.jpg", "more/a.leaf.jsonl"]
    (out / "a.leaf.jpg").unlink()
    done = leaf("image", folder, "--out", out, "--skip-existing")
    assert done.code == 0, done.err
    assert "skipped 1 file that has all its results: a.png" in done.err
    assert (out / "a.leaf.jpg").exists()


def test_equal_names_are_refused_where_their_numbers_could_change(leaf: Leaf, clips: Path, tmp_path: Path) -> None:
    files = [clips / "clip2.mp4", clips / "day 2" / "clip2.mp4"]
    done = leaf("video", *files, "--out", tmp_path / "out", *FAST, "--skip-existing")
    assert done.code == 9
    assert "would have the same result clip2.leaf.jsonl" in done.sentence()
    assert leaf("video", *files, "--out", tmp_path / "out", *FAST).code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        "clip2-2.leaf.jsonl",
        "clip2.leaf.jsonl",
    ]


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--events", "--parquet"])
def test_shared_files_are_refused_with_skip_existing(leaf: Leaf, clip: Path, tmp_path: Path, option: str) -> None:
    assert leaf("video", clip, option, tmp_path / "a", "--skip-existing").code == 2


def test_partial_files_of_skipped_clips_are_removed_unless_a_run_writes_them(
    leaf: Leaf, clip: Path, tmp_path: Path
) -> None:
    records = tmp_path / "face.leaf.jsonl"
    records.write_text("complete\n")
    part = records.with_name("face.leaf.jsonl.part")
    with ResultFile(records) as running:
        running.write(b"now\n")
        assert leaf("video", clip, "--out", tmp_path, *FAST, "--skip-existing").code == 0
        assert part.read_text() == "now\n"
    assert leaf("video", clip, "--out", tmp_path, *FAST, "--skip-existing").code == 0
    assert not part.exists()
    assert records.read_text() == "complete\n"


@pytest.mark.slow
def test_after_a_kill_the_same_command_goes_on_where_it_was(leaf: Leaf, tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for number in range(1, 9):
        shutil.copy(DEMO, clips / f"c{number}.mp4")
    command = ["video", str(clips), "--out", str(out), "--end", "3", "--no-save-video", "--backend", "onnxruntime"]
    with subprocess.Popen(
        [sys.executable, "-m", "leaf_rt", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        part = out / "c3.leaf.jsonl.part"
        while not (part.exists() and part.stat().st_size > 1000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    names = {path.name for path in out.iterdir()}
    assert {"c1.leaf.jsonl", "c1.leaf.png", "c2.leaf.jsonl", "c2.leaf.png", "c3.leaf.jsonl.part"} <= names
    assert "c3.leaf.jsonl" not in names
    assert part.read_bytes().endswith(b"\n")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("c[12].*")}
    done = leaf(*command, "--skip-existing")
    assert done.code == 0, done.err
    assert "skipped 2 files that have all their results: c1.mp4, c2.mp4" in done.err
    assert f"replaces the unfinished results of an earlier run: {part}" in done.err
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("c[12].*")} == before
    assert len(list(out.glob("*.leaf.jsonl"))) == len(list(out.glob("*.leaf.png"))) == 8
    assert not list(out.glob("*.part"))


@pytest.mark.parametrize("command", ["video", "image", "doctor", "export", "bench"])
def test_a_name_that_is_too_long_is_one_sentence(leaf: Leaf, tmp_path: Path, command: str) -> None:
    name = "a" * 300
    more = {"doctor": ("--model",), "export": ("--out", tmp_path)}.get(command, ())
    done = leaf(command, *more, name)
    assert done.code not in (0, 70), done.err
    assert len(done.sentence()) < 1000


@pytest.mark.slow
def test_several_files_at_once_give_the_same_results(leaf: Leaf, clips: Path, tmp_path: Path) -> None:
    (clips / "clip3.mp4").write_text("no video")
    results = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        done = leaf("video", clips, "--out", out, *FAST, "--jobs", jobs)
        assert done.code == NotAVideo.exit_code
        assert "clip3.mp4" in done.sentence()
        found = {path.relative_to(out): records(path.read_text()) for path in out.rglob("*.jsonl")}
        for record in (record for one in found.values() for record in one):
            del record["latency_ms"]
        results.append(found)
    assert results[0] == results[1]
    assert [len(rows) for rows in results[0].values()] == [30, 30, 30]


def test_files_that_share_an_output_come_one_after_the_other(leaf: Leaf, clips: Path, tmp_path: Path) -> None:
    done = leaf("video", clips, "--jsonl", tmp_path / "all.jsonl", "--jobs", "2")
    assert done.code == 2
    assert "contradicts --jsonl" in done.err
    assert leaf("video", clips, "--jobs", "0").code == 2
    assert leaf("video", clips, "--jobs", "many").code == 2


def test_files_of_one_name_are_not_processed_at_the_same_time() -> None:
    names = ["a.mp4", "b.mp4", "c.mp4", "x/a.mp4", "x/c.mov", "y/c.mp4"]
    found = groups([Target(name) for name in names], 3)
    assert [[target.target for target in part] for part in found] == [names[:3], names[3:5], names[5:]]
