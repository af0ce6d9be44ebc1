"""Reading and writing pictures."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from leaf_rt.errors import CodecError, NoPermission, NotAVideo, NotFound, OutputError
from leaf_rt.media.images import read_picture, write_picture
from leaf_rt.system.files import write_whole


def save(path: Path, image: np.ndarray) -> Path:
    fine, data = cv2.imencode(path.suffix, image)
    assert fine
    path.write_bytes(data.tobytes())
    return path


def gradient(channels: int, dtype: type, top: int) -> np.ndarray:
    ramp = np.linspace(0, top, 40 * 30).reshape(40, 30).astype(dtype)
    return ramp if channels == 1 else np.dstack([ramp] * channels)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_16_bit_become_8_bit_color(tmp_path: Path, suffix: str, channels: int) -> None:
    small = read_picture(save(tmp_path / f"a{suffix}", gradient(channels, np.uint8, 255)))
    deep = read_picture(save(tmp_path / f"b{suffix}", gradient(channels, np.uint16, 65535)))
    assert small.shape == deep.shape == (40, 30, 3)
    assert deep.dtype == np.uint8
    assert np.abs(small.astype(int) - deep).max() <= 1
    assert (small[..., 0] == small[..., 2]).all()


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_transparent_pixels_become_white(tmp_path: Path, dtype: type, full: int) -> None:
    image = np.zeros((4, 3, 4), dtype)
    image[..., 2] = full  # red
    image[1, :, 3], image[2, :, 3] = full // 2, full
    seen = read_picture(save(tmp_path / "a.png", image))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[2, 0].tolist() == [0, 0, 255]
    assert seen[1, 0, 2] == 255
    assert abs(int(seen[1, 0, 0]) - 128) <= 1


def test_one_pixel(tmp_path: Path) -> None:
    assert read_picture(save(tmp_path / "a.png", np.full((1, 1, 3), 7, np.uint8))).tolist() == [[[7, 7, 7]]]


def test_paths_with_any_letters(tmp_path: Path) -> None:
    folder = tmp_path / "Gesicht ü 顔"
    folder.mkdir()
    path = folder / "été $1.jpg"
    write_picture(path, np.full((5, 6, 3), 200, np.uint8))
    assert read_picture(path).shape == (5, 6, 3)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_rotation(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :32] = 255  # the upper left of the stored picture is white
    _, data = cv2.imencode(".jpg", image)
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    jpeg = data.tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    seen = read_picture(path)
    assert seen.shape[:2] == ((96, 64) if orientation in (6, 8) else (64, 96))
    corners = {(y, x): int(seen[y, x].mean()) for y in (0, -1) for x in (0, -1)}
    assert max(corners, key=lambda at: corners[at]) == corner


def test_bad_files_raise_typed_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    cases = {"none.jpg": NotFound, ".": NotAVideo, "text.jpg": NotAVideo, "empty.jpg": NotAVideo, "cut.png": CodecError}
    for name, error in cases.items():
        with pytest.raises(error) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_writing_without_permission(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(OutputError, match="none"):
        write_picture(tmp_path / "none" / "a.png", image)
    with pytest.raises((OutputError, NoPermission)):
        write_picture(Path("/proc/a.png"), image)


def test_a_full_disk_keeps_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "full.bin"
    target.write_bytes(b"older")
    (tmp_path / f".full.bin.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="no space left"):
        write_whole(target, b"x" * 100_000)
    assert target.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["full.bin"]


_SMALL_MEMORY = """
import re, resource, sys
from pathlib import Path
import cv2, numpy as np
from leaf_rt.media.images import decode_picture
data = cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))[1].tobytes()
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
decode_picture(data, "large.png")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds its memory as Linux does")
def test_a_picture_that_needs_more_memory_than_there_is() -> None:
    """It is not damaged."""
    done = subprocess.run([sys.executable, "-c", _SMALL_MEMORY], capture_output=True, text=True, check=False)
    assert "OutOfResources: large.png: the memory is too small" in done.stderr


def flat_png(path: Path, width: int, height: int, rows: int | None = None) -> Path:
    """A black picture that is small as a file; with ``rows``, it ends after so many."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    pixels = (
        b"".join(packer.compress(bytes(1 + width)) for _ in range(height if rows is None else rows)) + packer.flush()
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (1_000_000, 1000), (1 << 14, (1 << 14) + 1)])
def test_a_small_file_with_a_huge_picture_is_not_decoded(tmp_path: Path, width: int, height: int) -> None:
    path = flat_png(tmp_path / "huge.png", width, height, rows=10)
    with pytest.raises(CodecError, match=f"{width}x{height} pixels, and at most 268 million are read; make it smaller"):
        read_picture(path)


@pytest.mark.slow
def test_a_picture_of_200_megapixels_is_read(tmp_path: Path) -> None:
    assert read_picture(flat_png(tmp_path / "large.png", 16_384, 12_288)).shape == (12_288, 16_384, 3)
