"""Files from outside are read only if they are regular files, and never beyond a limit."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from leaf_rt.errors import CodecError, DataError, LeafError, NotAVideo
from leaf_rt.media.images import read_picture
from leaf_rt.sources.opening import open_source
from leaf_rt.sources.sources_file import load_targets
from leaf_rt.system import reading
from leaf_rt.system.reading import UnreadableFile, read_regular, read_text
from train.data.image_store import FolderStore, ZipStore
from train.data.tables import read_csv, read_json_lines

_MEMORY = 3 << 30  # bytes of address space; a command needs about half of it


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    return path


def within(seconds: float, work: threading.Thread) -> None:
    work.start()
    work.join(seconds)
    assert not work.is_alive(), f"still reading after {seconds} s"


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
@pytest.mark.parametrize(
    "reader", [read_picture, open_source, load_targets, lambda p: FolderStore(p.parent).read(p.name)]
)
def test_devices_and_pipes_are_not_read(fifo: Path, name: str, reader: object) -> None:
    path = fifo if name == "fifo" else Path(name)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            reader(str(path) if reader is open_source else path)  # type: ignore[operator]
        except (LeafError, OSError) as e:
            errors.append(e)

    within(5.0, threading.Thread(target=read, daemon=True))
    assert "is a pipe or a device, not a file" in str(errors[0])


def test_a_file_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 2001)
    assert len(read_regular(path, 2001)) == 2001
    with pytest.raises(UnreadableFile, match="is larger than 0 MB, the limit for a file of this kind"):
        read_regular(path, 2000)
    with pytest.raises(UnreadableFile):
        read_text(path, 2000)


def test_a_sparse_picture_and_list_of_gigabytes(tmp_path: Path) -> None:
    for name in ("p.png", "list.toml"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(8 << 30)
    with pytest.raises(NotAVideo, match="larger than"):
        read_picture(tmp_path / "p.png")
    with pytest.raises(DataError, match="larger than"):
        load_targets(tmp_path / "list.toml")


def test_a_member_of_a_zip_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for what is unpacked, not for what the archive states."""
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(4 << 20))
        archive.writestr("good.png", b"picture")
    data = path.read_bytes().replace((4 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    (tmp_path / "lying.zip").write_bytes(data)
    monkeypatch.setattr("train.data.image_store.MAX_PICTURE", 1 << 20)
    assert ZipStore(path).read("good.png") == b"picture"
    for archive_path in (path, tmp_path / "lying.zip"):
        with pytest.raises(OSError):  # noqa: PT011 - too large, or damaged
            ZipStore(archive_path).read("bomb.png")


def test_a_list_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(DataError, match="not valid TOML"):
        load_targets(path)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_line_of_a_list_without_an_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("path,label\n")
    os.truncate(path, 8 << 30)
    read = read_json_lines(path) if name.endswith("jsonl") else read_csv(path, ("path", "label"))
    with pytest.raises(DataError, match=r"list\.\w+:(1|2): (the line is over 1 MiB long|not a JSON object)"):
        list(read)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("image", "{}"), ("video", "{}"), ("video", "--sources", "{}")], ids=" ".join)
@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_a_command_that_is_given_a_device(fifo: Path, arguments: tuple[str, ...], name: str) -> None:
    """It ends at once, within its memory, with one sentence."""
    target = str(fifo) if name == "fifo" else name
    done = subprocess.run(
        [sys.executable, "-m", "leaf_rt", *(a.format(target) for a in arguments)],
        capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY)),
    )  # fmt: skip
    assert done.returncode in (NotAVideo.exit_code, CodecError.exit_code, DataError.exit_code), done.stderr
    assert done.stderr.count("error: ") == 1
    assert "is a pipe or a device" in done.stderr


def test_the_limits_leave_room_for_real_files() -> None:
    assert reading.MAX_PICTURE >= 200 << 20
    assert reading.MAX_TEXT >= 50 << 20
