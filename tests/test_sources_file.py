"""Video files: every frame once, in order, with its time; errors of other files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import DEMO, broken, empty_frames, write_clip, write_sound

from leaf_rt.errors import CodecError, LeafError, NoFrames, NotAVideo, NotFound
from leaf_rt.sources.base import SourceOptions
from leaf_rt.sources.opening import open_source
from leaf_rt.types import Frame

ROOT = Path(__file__).parents[1]


def read(path: Path, **options: Any) -> list[Frame]:
    with open_source(str(path), SourceOptions(**options)) as source:
        return list(source)


def numbered(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Images whose brightness gives their number."""
    return [np.full((height, width, 3), 8 * i + 4, np.uint8) for i in range(count)]


def number_of(frame: Frame) -> int:
    return round((float(frame.image.mean()) - 4) / 8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 numbered frames at 10 per second, with key frames 12 apart at most."""
    path = tmp_path_factory.mktemp("clip") / "numbered.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image in numbered(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return path


def test_every_frame_comes_once_in_order(clip: Path) -> None:
    with open_source(str(clip)) as source:
        frames = list(source)
        assert (source.info.width, source.info.height, source.info.fps) == (96, 64, 10.0)
        assert (source.info.frame_count, source.info.duration) == (30, pytest.approx(3.0))
        assert (source.info.kind, source.info.is_live, source.info.has_audio) == ("file", False, False)
        assert source.warnings == []
    assert [number_of(f) for f in frames] == [f.index for f in frames] == list(range(30))
    assert [f.timestamp for f in frames] == pytest.approx([i / 10 for i in range(30)])
    assert all(f.image.flags.c_contiguous and f.source == "numbered.mp4" for f in frames)
    assert {(f.generation, f.captured_at) for f in frames} == {(0, None)}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"stride": 7}, [0, 7, 14, 21, 28]),
        ({"start": 1.45}, list(range(15, 30))),
        ({"start": 0.6, "end": 1.2}, list(range(6, 12))),
        ({"end": 0.35, "stride": 2}, [0, 2]),
        ({"max_fps": 5.0}, list(range(0, 30, 2))),
        ({"start": 2.0, "stride": 4}, [20, 24, 28]),
    ],
)
def test_the_options_select_frames(clip: Path, options: dict[str, Any], wanted: list[int]) -> None:
    frames = read(clip, **options)
    assert [number_of(f) for f in frames] == wanted
    assert [f.index for f in frames] == wanted
    assert [f.timestamp for f in frames] == pytest.approx([i / 10 for i in wanted])
    with open_source(str(clip), SourceOptions(**options)) as source:
        assert source.info.frame_count == pytest.approx(len(wanted), abs=1)


def test_a_loop_continues_times_and_indexes(clip: Path) -> None:
    with open_source(str(clip), SourceOptions(loop=True, start=2.5)) as source:
        frames = [frame for frame, _ in zip(source, range(13), strict=False)]
        assert (source.info.frame_count, source.info.duration) == (None, None)
    assert [number_of(f) for f in frames] == [25, 26, 27, 28, 29] * 2 + [25, 26, 27]
    assert [f.index for f in frames] == list(range(13))
    assert np.diff([f.timestamp for f in frames]) == pytest.approx(np.full(12, 0.1))


def test_timestamps_of_a_variable_frame_rate(tmp_path: Path) -> None:
    wanted = [0.0, 0.1, 0.15, 0.9, 1.0, 3.0]
    with av.open(str(tmp_path / "v.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for t, image in zip(wanted, numbered(6), strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            picture.pts, picture.time_base = round(t * 20), Fraction(1, 20)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    frames = read(tmp_path / "v.mkv")
    assert [f.timestamp for f in frames] == pytest.approx(wanted, abs=1e-3)
    assert [f.index for f in read(tmp_path / "v.mkv", start=0.5)] == [3, 4, 5]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotated_clip_is_shown_upright(tmp_path: Path, turn: int) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 255  # upper left
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    with open_source(str(path)) as source:
        shown = next(iter(source)).image
        assert shown.shape == (source.info.height, source.info.width, 3)
    upright = np.rot90(image, turn // 90)  # counter-clockwise, as FFmpeg's display matrix counts
    assert np.abs(shown.astype(int) - upright).mean() < 5


@pytest.mark.parametrize(
    ("codec", "pixels", "ending"),
    [
        ("libx264", "yuv444p", "mkv"),
        ("libx264", "yuv420p10le", "mkv"),
        ("libx264", "gray", "mkv"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "bgra", "mkv"),
        ("gif", "rgb8", "gif"),
        ("mjpeg", "yuvj422p", "avi"),
    ],
)
def test_odd_pixel_formats(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    path = tmp_path / f"v.{ending}"
    image = np.full((50, 70, 3), 200, np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 70, 50, pixels
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)))
        out.mux(stream.encode(None))
    frames = read(path)
    assert len(frames) == 3
    assert frames[2].image.shape == (50, 70, 3)
    assert frames[2].image.mean() == pytest.approx(200, abs=16)  # grey H.264 states no range; few colours in a GIF


def test_the_frame_size_may_change(tmp_path: Path) -> None:
    large = write_clip(tmp_path / "a.ts", empty_frames(5)).read_bytes()
    small = write_clip(tmp_path / "b.ts", empty_frames(5, 90, 160)).read_bytes()
    (tmp_path / "c.ts").write_bytes(large + small)
    frames = read(tmp_path / "c.ts")
    assert [f.image.shape[:2] for f in frames] == [(180, 320)] * 5 + [(90, 160)] * 5
    assert (np.diff([f.timestamp for f in frames]) > 0).all()


def test_mirror_swaps_left_and_right(tmp_path: Path) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = 255
    path = write_clip(tmp_path / "v.mp4", [image])
    assert read(path)[0].image[:, :40].min() > 240
    assert read(path, mirror=True)[0].image[:, 56:].min() > 240


def test_the_demo_clip_is_read_completely() -> None:
    assert len(read(DEMO, stride=10)) == 48


# Files that are not videos


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", NotFound, "no such file"),
        ("folder", NotAVideo, "is a folder"),
        ("text", NotAVideo, "not a video that FFmpeg can read"),
        ("empty", NotAVideo, "0 bytes"),
        ("sound", NotAVideo, "only audio"),
        ("noise", NotAVideo, "not a video that FFmpeg can read"),
        ("index lost", CodecError, "cut off"),
        ("not a single frame", LeafError, "get a fresh copy"),
    ],
)
def test_files_that_do_not_open(tmp_path: Path, kind: str, error: type[LeafError], words: str, capfd: Any) -> None:
    path = tmp_path / "film: 1.mp4"  # a name that FFmpeg would read as a URL
    broken(kind, path)
    with pytest.raises(error, match=words) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")  # no output of FFmpeg


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command to put a cover into a song")
def test_the_cover_of_a_song_is_not_a_video(tmp_path: Path) -> None:
    song, cover, path = tmp_path / "s.m4a", tmp_path / "c.png", tmp_path / "song.mp3"
    write_sound(song)
    cv2.imwrite(str(cover), empty_frames(1)[0])
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", song, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy",
         "-disposition:v", "attached_pic", path],
        check=True, timeout=30, capture_output=True,
    )  # fmt: skip
    with pytest.raises(NotAVideo, match="only audio"):
        open_source(str(path))


def test_a_start_after_the_end_is_an_error_with_the_duration(clip: Path) -> None:
    with pytest.raises(NoFrames, match=r"--start 99 s, the file is 3.0 s long"):
        open_source(str(clip), SourceOptions(start=99))


def test_a_file_without_read_permission(tmp_path: Path) -> None:
    clip = tmp_path / "v.mp4"
    clip.touch(mode=0)
    code = (
        "import os, sys\n"
        "from leaf_rt.errors import NoPermission\n"
        # Import all now: the user "nobody" has no permission to read our libraries.
        "import leaf_rt.sources.opening, leaf_rt.sources.video_file, leaf_rt.sources.picture\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        f"try: leaf_rt.sources.opening.open_source({str(clip)!r})\n"
        "except NoPermission: sys.exit(42)\n"
    )
    for folder in tmp_path.parents:
        if folder.owner() == tmp_path.owner() and folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False, capture_output=True)
    assert done.returncode == 42, done.stderr.decode()


def test_a_cut_file_gives_its_frames_and_one_warning(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", empty_frames(60), movflags="faststart").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
        assert 5 < len(frames) < 55
        assert [f.index for f in frames] == list(range(len(frames)))
        assert len(source.warnings) == 1
        assert "cut off" in source.warnings[0]


def test_damaged_data_is_skipped_with_one_warning(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", empty_frames(60), movflags="faststart")
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        frames = list(source)
        assert 20 < len(frames) <= 60
        assert len(source.warnings) <= 1


def test_words_for_links_and_lists(clip: Path, tmp_path: Path) -> None:
    """A link to itself, a list that FFmpeg does not follow, and a name that is too long."""
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    with pytest.raises(NotFound, match="is a symbolic link that leads back to itself"):
        open_source(str(loop))
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {clip}\n")  # not below the list's folder
    (tmp_path / "gone.ffconcat").write_text("ffconcat version 1.0\nfile gone.mp4\n")
    for name in ("list.ffconcat", "gone.ffconcat"):
        with pytest.raises(NotAVideo, match="is a list of other files"):
            open_source(str(tmp_path / name))
    with pytest.raises(NotFound, match="the name is too long"):
        open_source("x" * 300 + ".mp4")


def test_a_playlist_in_a_file_does_not_reach_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        part = f"http://127.0.0.1:{server.getsockname()[1]}/part.ts"
        path = tmp_path / "list.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n")
        with pytest.raises(NotAVideo):
            open_source(str(path))
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_rotation_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "zeros.mp4", empty_frames(3))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # behind the times, the duration, the layer and the volume
    assert data[matrix : matrix + 4] == (1 << 16).to_bytes(4)
    data[matrix : matrix + 36] = bytes(36)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        assert (source.info.width, source.info.height) == (320, 180)
        assert [frame.image.shape for frame in source] == [(180, 320, 3)] * 3
