"""The crop cache after a kill, an interruption and damage; and that it grows on disk, not in memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from leaf_rt.errors import DataError, OutputError
from train.data import crop_cache
from train.data.crop_cache import Crops, CropSpec, prepare
from train.data.image_store import FolderStore

PLAIN = CropSpec(16, 0.0, "grey", align=False)
IDS = [f"{i}.png" for i in range(8)]


class Broken(FolderStore):
    """Is interrupted at the image ``last``. Records the number of saved crops at every read."""

    def __init__(self, root: Path, last: str) -> None:
        super().__init__(root)
        self.last = last
        self.saved: list[int] = []
        self.reads: list[str] = []

    def read(self, name: str) -> bytes:
        images = self.root / "cache" / "images.npy"
        self.saved.append(len(np.load(images, mmap_mode="r")) if images.is_file() else 0)
        if name == self.last:
            raise KeyboardInterrupt
        self.reads.append(name)
        return super().read(name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, name in enumerate(IDS):
        cv2.imwrite(str(tmp_path / name), np.full((20, 20), 20 * i, np.uint8))
    return tmp_path


def check(crops: Crops, ids: list[str] = IDS) -> None:
    """Check that every image has its own crop and hash."""
    assert crops.unreadable == ()
    assert crops.images[crops.row, 0, 8, 8].tolist() == [20 * IDS.index(name) for name in ids]
    assert len(crops.pixels) == len(crops.found) == len(crops.images)
    assert len({crops.pixels[r] for r in crops.row.tolist()} - {""}) == len(ids)


@pytest.mark.parametrize("known", [0, 3])
def test_a_kill_between_writing_the_two_files(root: Path, known: int) -> None:
    folder = root / "cache"
    meta = folder / "cache.json"
    if known:
        prepare(IDS[:known], FolderStore(root), folder, PLAIN)
        shutil.copy(meta, root / "old.json")
    prepare(IDS[:6], FolderStore(root), folder, PLAIN)
    meta.unlink()
    if known:
        shutil.copy(root / "old.json", meta)
    check(prepare(IDS[2:], FolderStore(root), folder, PLAIN), IDS[2:])
    check(prepare(IDS, FolderStore(root), folder, PLAIN))
    check(prepare(IDS, FolderStore(root), folder, PLAIN))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cache.json", b""),
        ("cache.json", b"{"),
        ("cache.json", b"\xff"),
        ("cache.json", b"[]"),
        ("cache.json", b"{}"),
        ("images.npy", b""),
        ("images.npy", b"junk"),
        ("images.npy", 100),
        ("images.npy", -1),
        ("images.npy", np.zeros((7, 1, 16, 16), np.uint8)),
        ("images.npy", np.zeros((8, 1, 8, 8), np.uint8)),
        ("images.npy", np.zeros((8, 1, 16, 16), np.float32)),
    ],
)
def test_a_damaged_cache_is_an_error(root: Path, name: str, content: bytes | int | np.ndarray) -> None:
    folder = root / "cache"
    prepare(IDS, FolderStore(root), folder, PLAIN)
    if isinstance(content, np.ndarray):
        np.save(folder / name, content)
    else:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(DataError, match=r"cache .*: is damaged .*delete its cache\.json and images\.npy"):
        prepare(IDS, FolderStore(root), folder, PLAIN)
    for file in ("cache.json", "images.npy"):
        (folder / file).unlink()
    check(prepare(IDS, FolderStore(root), folder, PLAIN))


@pytest.mark.parametrize("key", ["files", "entries"])
@pytest.mark.parametrize("value", [None, [], {"x": 1}, {"x": []}])
def test_a_damaged_table_is_an_error(root: Path, key: str, value: object) -> None:
    meta = root / "cache" / "cache.json"
    prepare(IDS, FolderStore(root), root / "cache", PLAIN)
    meta.write_text(json.dumps({**json.loads(meta.read_text()), key: value}))
    with pytest.raises(DataError, match="is damaged"):
        prepare(IDS, FolderStore(root), root / "cache", PLAIN)


def test_an_interruption_keeps_finished_work(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(IDS, Broken(root, "5.png"), root / "cache", PLAIN)
    source = Broken(root, "")
    check(prepare(IDS, source, root / "cache", PLAIN))
    assert source.reads == IDS[5:]


def test_the_interval_between_saves_grows_with_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_cache, "MIN_NEW", 1)
    source = Broken(root, "")
    crops = prepare(IDS, source, root / "cache", PLAIN)
    assert source.saved == [0, 1, 2, 2, 4, 4, 4, 4]
    check(crops)
    monkeypatch.undo()
    whole = prepare(IDS, FolderStore(root), root / "whole", PLAIN)
    assert (whole.images == crops.images).all()
    assert (root / "whole" / "images.npy").read_bytes() == (root / "cache" / "images.npy").read_bytes()


def test_a_complete_cache_is_not_written(root: Path) -> None:
    folder = root / "cache"
    prepare([*IDS, "gone.png"], FolderStore(root), folder, PLAIN)
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    prepare([*IDS, "gone.png"], FolderStore(root), folder, PLAIN)
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    assert set(before) == {"cache.json", "images.npy"}


def test_unreadable_images_are_tried_again(root: Path) -> None:
    class Failing(FolderStore):
        def read(self, name: str) -> bytes:
            raise OSError("a broken cable")

    assert prepare(IDS, Failing(root), root / "cache", PLAIN).unreadable == tuple(IDS)
    check(prepare(IDS, FolderStore(root), root / "cache", PLAIN))


def test_a_full_disk_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_cache, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))  # noqa: SIM115 - the cache closes it
    with pytest.raises(OutputError, match=r"images\.npy: no space left on the device"):
        prepare(IDS, FolderStore(root), root / "cache", PLAIN)
    assert list((root / "cache").iterdir()) == []
    monkeypatch.undo()
    check(prepare(IDS, FolderStore(root), root / "cache", PLAIN))


def test_an_error_about_the_cache_folder_names_the_option(root: Path) -> None:
    with pytest.raises(OutputError, match=r"--data\.cache .*0\.png: cannot be created \(a file of that name"):
        prepare(IDS, FolderStore(root), root / "0.png", PLAIN)


def test_incomplete_files_of_killed_processes_are_removed(root: Path) -> None:
    folder = root / "cache"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    halves = [folder / f".images.npy.{process}.part" for process in (gone.pid, os.getpid())]
    others = [folder / name for name in (f".images.npy.{os.getppid()}.part", ".images.npy.part", "images.npy.1.part")]
    for file in (*halves, *others):
        file.write_bytes(b"x")
    check(prepare(IDS, FolderStore(root), folder, PLAIN))
    assert {p.name for p in folder.iterdir()} == {"cache.json", "images.npy", *(p.name for p in others)}
