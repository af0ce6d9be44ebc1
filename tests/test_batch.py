"""`leaf-rt batch`: which files, where their results go, what is done again, and what goes wrong."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from batches import FAST, comparable, states
from clips import broken
from commands import Leaf
from full_disk import small_disk

import leaf_rt
from leaf_rt.batch.archive import Totals, Watch, run_archive
from leaf_rt.batch.clips import clips, read_list
from leaf_rt.batch.job import Clip, Job, Outcome, Ready
from leaf_rt.batch.manifest import LOCK, NAME, Manifest
from leaf_rt.batch.worker import Worker
from leaf_rt.errors import DataError, NotFound, OutputError
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.sinks.reading import read_records
from leaf_rt.system.signals import StopSignal

RECOGNITION = RecognitionConfig(backend="onnxruntime", detector="onnxruntime")
QUIET = Watch(lambda *_: None, lambda *_: None, lambda *_: None)


def job_in(out: Path) -> Job:
    out.mkdir(exist_ok=True)
    return Job(str(out), leaf_rt.__version__, RECOGNITION)


def here(job: Job, files: Sequence[Clip], ready: Callable[[Ready], None], stop: StopSignal) -> Iterator[Outcome]:
    """A runner with one worker in this process."""
    with Worker(job) as worker:
        ready(worker.ready)
        for clip in files:
            yield worker.process(clip)


def names(found: Sequence[Clip], out: Path) -> dict[str, str]:
    return {clip.name: os.path.relpath(clip.result, out) for clip in found}


def test_every_file_has_a_result_of_its_own(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "in"
    files = [folder / "a.mp4", folder / "a.mkv", folder / "day 1" / "a.mp4", tmp_path / "else" / "a.mp4"]
    found = names(clips([*map(str, files), str(files[0])], [folder], out, "csv"), out)
    assert found == {
        "a.mp4": "a.mp4.leaf.csv",
        "a.mkv": "a.mkv.leaf.csv",
        "day 1/a.mp4": "day 1/a.mp4.leaf.csv",
        str(files[3]).lstrip("/"): f"{files[3]}.leaf.csv".lstrip("/"),
    }


def test_two_files_that_would_have_the_same_result_are_refused(tmp_path: Path) -> None:
    files = [str(tmp_path / "a" / "x.mp4"), str(tmp_path / "b" / "x.mp4")]
    with pytest.raises(OutputError, match="would have the same result"):
        clips(files, [tmp_path / "a", tmp_path / "b"], tmp_path / "out", "jsonl")


def test_long_names_stay_different_and_fit(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{'ä' * 120}{ending}") for ending in ("1.mp4", "2.mp4")]
    results = [Path(clip.result).name for clip in clips(files, [tmp_path], tmp_path, "parquet")]
    assert len(set(results)) == 2
    assert all(len(os.fsencode(f"{name}.part")) < 255 for name in results)


def test_the_largest_files_come_first(tmp_path: Path) -> None:
    for name, size in {"a.mp4": 1, "b.mp4": 3, "c.mp4": 2}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    found = clips([str(path) for path in tmp_path.iterdir()], [tmp_path], tmp_path, "jsonl")
    assert [clip.name for clip in found] == ["b.mp4", "c.mp4", "a.mp4"]


def test_a_list_names_files_beside_it_and_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.mp4\r\n\n../b c.mp4\n/data/\xff.mp4\n")
    assert read_list(path) == [str(tmp_path / "a.mp4"), str(tmp_path.parent / "b c.mp4"), "/data/\udcff.mp4"]
    path.write_text("\n")
    with pytest.raises(DataError, match="names no file"):
        read_list(path)
    with pytest.raises(NotFound):
        read_list(tmp_path / "none.txt")


def test_the_manifest_knows_what_must_be_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = [
        Clip(f"/in/{name}", "x", str(out / f"{name}.leaf.jsonl"), 10, 1)
        for name in ("same", "changed", "touched", "gone", "failed", "new", "bytes\udcff")
    ]
    with Manifest(out) as manifest:
        manifest.start({"stride": 1}, redo=False)
        for clip in found:
            if clip.path != "/in/new":
                state = "failed" if clip.path == "/in/failed" else "done"
                Path(clip.result).write_text("{}\n")
                manifest.add(Outcome(clip, state, "reason \udcff"), "1")
    Path(found[3].result).unlink()
    now = [found[0], replace(found[1], size=11), replace(found[2], mtime_ns=2), *found[3:]]
    with Manifest(out) as manifest:
        assert manifest.options == {"stride": 1}
        assert [clip.path[4:] for clip in manifest.left(now)] == ["changed", "touched", "gone", "failed", "new"]
        manifest.start({"stride": 2}, redo=True)
        assert manifest.left(now) == now


def test_the_folder_of_results_can_be_moved(tmp_path: Path) -> None:
    clip = Clip("/in/a.mp4", "a.mp4", str(tmp_path / "one" / "a"), 1, 1)
    with Manifest(tmp_path / "one") as manifest:
        Path(clip.result).touch()
        manifest.add(Outcome(clip, "done"), "1")
    (tmp_path / "one").rename(tmp_path / "two")
    with Manifest(tmp_path / "two") as manifest:
        assert manifest.left([replace(clip, result=str(tmp_path / "two" / "a"))]) == []


def test_a_second_batch_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(OutputError, match="another batch is writing there"):
        Manifest(tmp_path)
    Manifest(tmp_path).close()


def test_a_manifest_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("a letter to my aunt\n" * 100)
    with pytest.raises(OutputError, match=r"cannot be used .*move it away"):
        Manifest(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        Manifest(tmp_path)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(job_in(tmp_path_factory.mktemp("worker"))) as worker:
        yield worker


def test_the_records_are_those_of_video_and_image(
    worker: Worker, leaf: Leaf, clip: Path, face: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for kind, path in {"video": clip, "image": face}.items():
        assert leaf(kind, path, *FAST, "--jsonl", tmp_path / kind, "--out", tmp_path, "--no-save-" + {
            "video": "video", "image": "picture"}[kind]).code == 0  # fmt: skip
        (each,) = clips([str(path)], [path.parent], out, "jsonl")
        done = worker.process(each)
        assert (done.state, done.reason, done.backend) == ("done", "", "onnxruntime")
        expected = comparable(tmp_path / kind)
        assert comparable(Path(each.result)) == expected
        assert (done.faces, done.frames) == (len(expected), 30 if kind == "video" else 1)
        assert json.loads(Path(each.result).read_text().splitlines()[0])["source"] == each.name


@pytest.mark.parametrize(
    ("kind", "code"),
    [("missing", 3), ("folder", 5), ("text", 5), ("empty", 5), ("sound", 5), ("not a single frame", 6), ("pipe", 5)],
)
def test_a_bad_file_is_a_reason_and_leaves_nothing(worker: Worker, tmp_path: Path, kind: str, code: int) -> None:
    path = tmp_path / "in" / "bad.mp4"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        broken(kind, path)
    (each,) = clips([str(path)], [path.parent], tmp_path / "out", "jsonl")
    failed = worker.process(each)
    assert (failed.state, failed.exit_code, failed.fatal) == ("failed", code, False)
    assert "bad.mp4" in failed.reason
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_link_to_itself_is_a_reason(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (each,) = clips([str(tmp_path / "loop.mp4")], [tmp_path], tmp_path / "out", "jsonl")
    assert "symbolic links" in worker.process(each).reason


def test_tables(worker: Worker, face: Path, tmp_path: Path) -> None:
    faces = []
    for kind in ("csv", "parquet"):
        with Worker(replace(job_in(tmp_path / "out"), format=kind)) as other:
            (each,) = clips([str(face)], [face.parent], tmp_path / "out", kind)
            assert other.process(each).state == "done"
            faces.append([len(found) for _, found in read_records(Path(each.result)).frames()])
    assert faces == [[1], [1]]
    with (tmp_path / "out" / "face.png.leaf.csv").open() as file:
        assert [row["source"] for row in csv.DictReader(file)] == ["face.png"]


def test_a_full_disk_stops_the_batch(worker: Worker, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip, folder / name)
    with small_disk(tmp_path / "out", 60) as out:
        files = clips([str(path) for path in folder.iterdir()], [folder], out, "jsonl")
        with pytest.raises(OutputError, match="free some space"):
            run_archive(job_in(out), files, here, QUIET)
        assert list(out.glob("*.part")) == []
        with contextlib.suppress(OSError), (out / "rest").open("wb", buffering=0) as rest:
            while rest.write(bytes(1024)):
                pass
        failed = worker.process(files[0])
        assert (failed.state, failed.exit_code, failed.fatal) == ("failed", 9, True)
        assert "no space left" in failed.reason


def test_a_batch_goes_on_where_it_was(leaf: Leaf, clip: Path, face: Path, tmp_path: Path) -> None:
    """The whole command, with real worker processes, three times."""
    folder, out = tmp_path / "in", tmp_path / "in" / "out"
    (folder / "day 1").mkdir(parents=True)
    shutil.copy(face, folder / "day 1" / "face.png")
    (folder / "bad.mp4").write_text("no video")
    command = ("batch", folder, "--out", out, "--jobs", "2", *FAST)
    done = leaf(*command)
    assert done.code == 5
    assert "bad.mp4" in done.sentence()
    assert "done     1, 1 frame, 1 face" in done.out
    assert states(out) == {"day 1/face.png.leaf.jsonl": "done", "bad.mp4.leaf.jsonl": "failed"}
    totals = json.loads((out / "leaf-batch.json").read_text())
    assert totals["files"] == {"all": 2, "skipped": 0, "done": 1, "failed": 1, "left": 0}
    assert [(each["file"], each["exit_code"]) for each in totals["failures"]] == [("bad.mp4", 5)]

    (folder / "bad.mp4").unlink()
    again = leaf(*command)
    assert (again.code, "back end" in again.err) == (0, False)  # no worker was started
    assert "nothing left to do" in again.out

    other = leaf(*command, "--stride", "2", "--pose")
    assert other.code == 9
    assert "pose was False and is True, stride was 1 and is 2" in other.sentence()
    assert "--redo" in other.err


def test_redo_does_all_again(clip: Path, face: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job, files = job_in(out), clips([str(face)], [face.parent], out, "jsonl")
    assert run_archive(job, files, here, QUIET).done == 1
    posed = replace(job, recognition=replace(RECOGNITION, pose=True))
    with pytest.raises(OutputError, match="pose was False and is True"):
        run_archive(posed, files, here, QUIET)
    totals: Totals = run_archive(posed, files, here, QUIET, redo=True)
    assert (totals.done, totals.skipped) == (1, 0)
    assert "yaw" in (out / "face.png.leaf.jsonl").read_text()
    assert run_archive(posed, files, here, QUIET).skipped == 1
    # How it runs does not matter, only what comes out.
    slower = replace(posed, threads=2, recognition=replace(posed.recognition, backend="auto", threads=3))
    assert run_archive(slower, files, here, QUIET).skipped == 1


def test_nothing_to_start_is_one_sentence(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert leaf("batch", "rtsp://camera/1", "--out", out).code == 2
    assert leaf("batch", "0", "--out", out).code == 2
    assert leaf("batch", clip).code == 2
    assert leaf("batch", clip, "--out", out, "--model", "none.onnx").code == 3
    (tmp_path / "file").touch()
    assert leaf("batch", clip, "--out", tmp_path / "file").code == 9
    (tmp_path / "empty").mkdir()
    empty = leaf("batch", tmp_path / "empty", "--out", out)
    assert (empty.code, "holds no video or picture file" in empty.sentence()) == (5, True)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE batch SET value = '[[[[' WHERE key = 'options'",
        f"UPDATE batch SET value = '{'[' * 100_000}' WHERE key = 'options'",
        "UPDATE batch SET value = '7' WHERE key = 'options'",
        "UPDATE batch SET value = x'ff00' WHERE key = 'options'",
        "UPDATE batch SET value = 99 WHERE key = 'layout'",
        "UPDATE files SET path = 5",
        "UPDATE files SET result = 1.5",
        "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END",
        "DROP TABLE files; CREATE TABLE files (a, b)",
        "DROP TABLE files; DROP TABLE batch; CREATE TABLE mine (a)",
        None,
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, damage: str | None) -> None:
    """It is not used, and left as it is."""
    made = Clip("/in/a", "a", str(tmp_path / "a"), 1, 1)
    with Manifest(tmp_path) as manifest:
        manifest.start({"pose": False}, redo=False)
        manifest.add(Outcome(made, "done"), "1")
    if damage is None:
        (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:3000])
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as base:
            base.executescript(damage)
    before = (tmp_path / NAME).read_bytes()

    def use() -> None:
        with Manifest(tmp_path) as manifest:
            _ = manifest.options
            manifest.left([made])

    with pytest.raises(OutputError, match=NAME):
        use()
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("name", [NAME, LOCK])
def test_a_link_or_a_pipe_in_the_way_of_the_batch_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("mine")
    for place in (tmp_path / "link", tmp_path / "pipe"):
        place.mkdir()
    (tmp_path / "link" / name).symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / "pipe" / name)
    for place in ("link", "pipe"):
        with pytest.raises(OutputError, match="stands in the way"):
            Manifest(tmp_path / place)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_pipe_in_the_place_of_a_result_is_a_reason(worker: Worker, face: Path, tmp_path: Path) -> None:
    """To open it would wait for its reader, for ever."""
    (each,) = clips([str(face)], [face.parent], tmp_path, "jsonl")
    os.mkfifo(each.result)
    failed = worker.process(each)
    assert (failed.state, failed.exit_code) == ("failed", 9)
    assert "is not a regular file" in failed.reason


def test_memory_that_runs_out_is_no_bug(
    worker: Worker, face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("leaf_rt.batch.worker.read_picture", full)
    (each,) = clips([str(face)], [face.parent], tmp_path, "jsonl")
    failed = worker.process(each)
    assert (failed.exit_code, "memory is too small" in failed.reason) == (17, True)


def test_the_manifest_can_be_read_while_a_batch_runs(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add(Outcome(Clip("/in/a", "a", str(tmp_path / "a")), "failed", "why"), "1")
        with sqlite3.connect(tmp_path / NAME) as base:
            assert base.execute("SELECT path, reason FROM files").fetchall() == [("/in/a", "why")]
        base.close()


def test_a_manifest_that_is_deleted_while_it_is_used(tmp_path: Path) -> None:
    with Manifest(tmp_path / "out") as manifest:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(OutputError, match="is gone, because somebody deleted or moved it or its folder"):
            manifest.start({}, redo=False)
