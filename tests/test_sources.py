from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import DEMO, empty_frames, write_clip, write_sound
from streams import FakeCapture

from leaf_rt.errors import (
    CodecError,
    ConnectionLost,
    DataError,
    DeviceBusy,
    LeafError,
    NoFrames,
    NoPermission,
    NotAVideo,
    NotFound,
)
from leaf_rt.sources import SourceOptions, load_targets, open_source, redact
from leaf_rt.sources.base import Selector, network_name
from leaf_rt.sources.camera import CameraSource
from leaf_rt.types import Frame

ROOT = Path(__file__).parents[1]


def read(path: Path, **options: Any) -> list[Frame]:
    with open_source(str(path), SourceOptions(**options)) as source:
        return list(source)


def numbered(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Pictures whose brightness tells their number."""
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


# Files


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
def test_the_part_that_was_asked_for(clip: Path, options: dict[str, Any], wanted: list[int]) -> None:
    frames = read(clip, **options)
    assert [number_of(f) for f in frames] == wanted
    assert [f.index for f in frames] == wanted
    assert [f.timestamp for f in frames] == pytest.approx([i / 10 for i in wanted])
    with open_source(str(clip), SourceOptions(**options)) as source:
        assert source.info.frame_count == pytest.approx(len(wanted), abs=1)


def test_a_rate_that_does_not_divide_is_kept_on_the_mean() -> None:
    selector = Selector(SourceOptions(max_fps=20.0))
    assert sum(selector.wants(i, i / 30) for i in range(300)) == pytest.approx(200, abs=1)


def test_a_loop_goes_on_in_time_and_number(clip: Path) -> None:
    with open_source(str(clip), SourceOptions(loop=True, start=2.5)) as source:
        frames = [frame for frame, _ in zip(source, range(13), strict=False)]
        assert (source.info.frame_count, source.info.duration) == (None, None)
    assert [number_of(f) for f in frames] == [25, 26, 27, 28, 29] * 2 + [25, 26, 27]
    assert [f.index for f in frames] == list(range(13))
    assert np.diff([f.timestamp for f in frames]) == pytest.approx(np.full(12, 0.1))


def test_times_of_a_variable_frame_rate(tmp_path: Path) -> None:
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
def test_a_clip_taken_upright_is_shown_upright(tmp_path: Path, turn: int) -> None:
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


def test_a_frame_size_that_changes(tmp_path: Path) -> None:
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


# Files that are none


def broken(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not a film\n" * 200)
    elif kind == "empty":
        path.touch()
    elif kind == "sound":
        write_sound(path)
    elif kind == "index lost":
        data = write_clip(path, empty_frames(12)).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(1).bytes(20_000))
    elif kind == "not a single frame":
        data = bytearray(write_clip(path, empty_frames(3), movflags="faststart").read_bytes())
        begin = data.index(b"mdat") + 4
        data[begin:] = bytes(len(data) - begin)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", NotFound, "no such file"),
        ("folder", NotAVideo, "is a folder"),
        ("text", NotAVideo, "no video that FFmpeg knows"),
        ("empty", NotAVideo, "0 bytes"),
        ("sound", NotAVideo, "sound only"),
        ("noise", NotAVideo, "no video that FFmpeg knows"),
        ("index lost", CodecError, "cut off"),
        ("not a single frame", LeafError, "get a fresh copy"),
    ],
)
def test_what_does_not_open(tmp_path: Path, kind: str, error: type[LeafError], words: str, capfd: Any) -> None:
    path = tmp_path / "film: 1.mp4"  # a name that FFmpeg would take for an address
    broken(kind, path)
    with pytest.raises(error, match=words) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")  # nothing of FFmpeg's own


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    song, cover, path = tmp_path / "s.m4a", tmp_path / "c.png", tmp_path / "song.mp3"
    write_sound(song)
    cv2.imwrite(str(cover), empty_frames(1)[0])
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", song, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy",
         "-disposition:v", "attached_pic", path],
        check=False, timeout=30, capture_output=True,
    ) if HAS_FFMPEG else None  # fmt: skip
    assert done is None or done.returncode == 0
    with pytest.raises(NotAVideo, match="sound only"):
        open_source(str(path if HAS_FFMPEG else song))


HAS_FFMPEG = any((Path(p) / "ffmpeg").exists() for p in os.environ.get("PATH", "").split(os.pathsep))


def test_start_after_the_end_says_how_long_the_file_is(clip: Path) -> None:
    with pytest.raises(NoFrames, match=r"--start 99 s, the file is 3.0 s long"):
        open_source(str(clip), SourceOptions(start=99))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    clip = tmp_path / "v.mp4"
    clip.touch(mode=0)
    code = (
        "import os, sys\n"
        "from leaf_rt.errors import NoPermission\n"
        "import leaf_rt.sources.file, leaf_rt.sources.still\n"  # nobody may not read our libraries
        "if os.geteuid() == 0: os.setuid(65534)\n"
        f"try: leaf_rt.sources.open_source({str(clip)!r})\n"
        "except NoPermission: sys.exit(42)\n"
    )
    for folder in tmp_path.parents:
        if folder.owner() == tmp_path.owner() and folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False, capture_output=True)
    assert done.returncode == 42, done.stderr.decode()


def test_a_cut_file_gives_what_it_has_and_one_warning(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", empty_frames(60), movflags="faststart").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(str(path)) as source:
        frames = list(source)
        assert 5 < len(frames) < 55
        assert [f.index for f in frames] == list(range(len(frames)))
        assert len(source.warnings) == 1
        assert "cut off" in source.warnings[0]


def test_a_damaged_middle_is_left_out_with_one_warning(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", empty_frames(60), movflags="faststart")
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        frames = list(source)
        assert 20 < len(frames) <= 60
        assert len(source.warnings) <= 1


# Pictures


def test_a_picture_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.full((1, 1, 4), 128, np.uint8))
    with open_source(str(tmp_path / "p.png")) as source:
        assert (source.info.kind, source.info.frame_count) == ("picture", 1)
        assert [f.image.shape for f in source] == [(1, 1, 3)]


# Cameras


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    for number in (0, 2, 10):
        (tmp_path / f"video{number}").touch()
    return tmp_path


def ticking() -> Any:
    time = iter(np.arange(0, 100, 0.01).tolist())
    return lambda: next(time)


def test_a_camera_gives_frames_until_it_is_unplugged(devices: Path) -> None:
    capture = FakeCapture()
    options = SourceOptions(width=1280, height=720, fps=30, mirror=True)
    with CameraSource("/dev/video2", options, lambda n: capture, ticking(), devices) as source:
        frames = iter(source)
        got = [next(frames) for _ in range(5)]
        with pytest.raises(ConnectionLost, match="plugged in"):
            next(frames)
        info = source.info
        assert (info.name, info.width, info.height, info.fps, info.is_live) == ("camera 2", 640, 480, 30.0, True)
        assert source.warnings == ["camera 2: does not have the size asked for; it gives 640x480"]
    assert capture.released == 1
    assert capture.asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert [f.index for f in got] == [0, 1, 2, 3, 4]
    assert (np.diff([f.timestamp for f in got]) > 0).all()
    assert got[0].image[0, -1].tolist() == [255, 255, 255]  # mirrored


@pytest.mark.parametrize(
    ("target", "capture", "error", "words"),
    [
        ("1", FakeCapture(), NotFound, "there is 0, 2, 10"),
        ("0", FakeCapture(opened=False), DeviceBusy, "another program"),
        ("0", FakeCapture(pictures=0), NoFrames, "gives no picture"),
    ],
)
def test_a_camera_that_does_not_open(
    devices: Path, target: str, capture: FakeCapture, error: type[LeafError], words: str
) -> None:
    with pytest.raises(error, match=words):
        CameraSource(target, SourceOptions(), lambda n: capture, ticking(), devices)


def test_no_camera_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no camera is plugged in"):
        CameraSource("0", SourceOptions(), lambda n: FakeCapture(), ticking(), tmp_path)


def test_a_camera_that_may_not_be_used(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may use everything
    with pytest.raises(NoPermission, match="group"):
        CameraSource("0", SourceOptions(), lambda n: FakeCapture(), ticking(), devices)


# Addresses, options, lists


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("rtsp://user:pass@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://user:p%40ss@10.0.0.1/a?channel=1&password=hunter2", "rtsp://10.0.0.1/a?channel=1&password=***"),
        ("http://cam/video?user=me&pwd=secret&token=abc&x=1", "http://cam/video?user=***&pwd=***&token=***&x=1"),
        ("rtsp://user:p@ss@cam/1", "rtsp://cam/1"),
        ("rtsp://user:pass@[::1", "rtsp://***"),
        ("C:/films/a@b.mp4", "C:/films/a@b.mp4"),
    ],
)
def test_credentials_are_taken_out(target: str, shown: str) -> None:
    assert redact(target) == shown


def test_a_network_source_is_named_by_host_and_path() -> None:
    assert network_name("rtsp://u:p@cam:8554/live?pw=x") == "cam:8554/live"


@pytest.mark.parametrize(
    "wrong", [{"stride": 0}, {"start": -1}, {"start": 2, "end": 1}, {"max_fps": 0}, {"rtsp_transport": "pigeon"},
              {"max_reconnects": -1}, {"open_timeout": 0}, {"start": float("nan")}]
)  # fmt: skip
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"SourceOptions\.\w+: wanted"):
        SourceOptions(**wrong)


def test_a_list_of_sources(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    path = tmp_path / "sources.toml"
    path.write_text(
        '[[source]]\nname = "door"\ntarget = "rtsp://u:p@cam/1"\nwait = true\n[[source]]\ntarget = "a.mp4"\n'
    )
    door, film = load_targets(path, SourceOptions(max_fps=5))
    assert (door.options.name, door.options.wait, door.options.max_fps) == ("door", True, 5)
    assert film.target == str(tmp_path / "a.mp4")
    assert "u:p" not in repr(door)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[source]\n", "not valid TOML"),
        ("", "got nothing"),
        ("[[camera]]\n", r"wanted tables \[\[source\]\]"),
        ("[[source]]\nname = 'a'\n", "source 1: target"),
        ("[[source]]\ntarget = 'a'\ncolour = 1\n", "colour: no such key"),
        ("[[source]]\ntarget = 'a'\nstride = 'two'\n", "stride: wanted int"),
        ("[[source]]\ntarget = 'a'\nstride = 0\n", "stride: wanted a whole number"),
        ("[[source]]\ntarget='a'\nname='x'\n[[source]]\ntarget='b'\nname='x'\n", "'x' is given to two"),
    ],
)
def test_a_list_that_is_wrong_says_where(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        load_targets(path)


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_targets(tmp_path / "none.toml")


def test_opening_nothing_loads_no_decoder() -> None:
    code = "import sys, leaf_rt.sources; sys.exit(any(m in sys.modules for m in ('av', 'cv2', 'numpy.testing')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_the_demo_clip_is_read_whole() -> None:
    assert len(read(DEMO, stride=10)) == 48
