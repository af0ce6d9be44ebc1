"""Bad input gives one clear sentence and the right exit code, and files that were written stay valid."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import broken, demo_frames, frames_in, write_clip
from commands import Done, Leaf

from leaf_rt import errors
from leaf_rt.models.spec import DEFAULT_MODEL, spec_path


def child(*arguments: object, file_size: int = resource.RLIM_INFINITY, prefix: tuple[str, ...] = ()) -> Done:
    """Run the command in a process with a limit on the size of files, as on a disk that is nearly full."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "leaf_rt", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size)),
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("command", "kind", "error"),
    [
        ("video", "missing", errors.NotFound),
        ("video", "folder", errors.NotAVideo),
        ("video", "text", errors.NotAVideo),
        ("video", "empty", errors.NotAVideo),
        ("video", "noise", errors.NotAVideo),
        ("video", "sound", errors.NotAVideo),
        ("video", "index lost", errors.CodecError),
        ("image", "missing", errors.NotFound),
        ("image", "folder", errors.NotAVideo),
        ("image", "text", errors.NotAVideo),
        ("image", "empty", errors.NotAVideo),
        ("image", "cut", errors.CodecError),
    ],
)
def test_a_file_that_is_not_a_video_or_picture(
    leaf: Leaf, tmp_path: Path, command: str, kind: str, error: type[errors.LeafError]
) -> None:
    path = tmp_path / ("v.mp4" if command == "video" else "p.png")
    if kind == "cut":
        cv2.imwrite(str(path), demo_frames(1)[0])
        path.write_bytes(path.read_bytes()[:20_000])
    else:
        broken(kind, path)
    done = leaf(command, path, "--out", tmp_path / "out")
    assert str(path) in done.sentence()
    assert done.code == error.exit_code
    assert not list((tmp_path / "out").glob("*"))  # no empty results


@pytest.mark.slow
def test_frames_before_the_end_of_a_truncated_video_are_kept(leaf: Leaf, tmp_path: Path) -> None:
    """Matroska needs no index at its end, so all frames before the cut can be read."""
    path = write_clip(tmp_path / "cut.mkv", demo_frames(48))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    done = leaf("video", path)
    assert done.code in (0, errors.CodecError.exit_code)
    rows = [json.loads(line) for line in (tmp_path / "cut.leaf.jsonl").read_text().splitlines()]
    assert 10 < len(rows) < 48
    assert frames_in(tmp_path / "cut.leaf.mp4") >= len(rows)
    assert (tmp_path / "cut.leaf.png").exists()


@pytest.mark.slow
def test_the_frame_size_may_change(leaf: Leaf, tmp_path: Path) -> None:
    frames = demo_frames(24)
    large = write_clip(tmp_path / "a.ts", frames[:12]).read_bytes()
    small = write_clip(tmp_path / "b.ts", [cv2.resize(f, (320, 240)) for f in frames[12:]]).read_bytes()
    path = tmp_path / "changing.ts"
    path.write_bytes(large + small)
    done = leaf("video", path)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "changing.leaf.jsonl").read_text().splitlines()]
    assert frames_in(tmp_path / "changing.leaf.mp4") == 24
    assert {row["frame_index"] for row in rows} >= {0, 23}
    last = rows[-1]["box"]
    assert last[2] < 330, "the boxes of the small frames are in their own pixels"


def odd_picture(kind: str) -> np.ndarray:
    face = demo_frames(1)[0]
    return {
        "alpha": np.dstack([face, np.full(face.shape[:2], 255, np.uint8)]),
        "grey": cv2.cvtColor(face, cv2.COLOR_BGR2GRAY),
        "deep": face.astype(np.uint16) * 257,
        "deep-alpha": np.dstack([face.astype(np.uint16) * 257, np.full(face.shape[:2], 65535, np.uint16)]),
    }[kind]


@pytest.mark.parametrize("kind", ["alpha", "grey", "deep", "deep-alpha"])
def test_unusual_pixel_formats(leaf: Leaf, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.png"
    cv2.imwrite(str(path), odd_picture(kind))
    done = leaf("image", path)
    assert done.code == 0, done.err
    assert "1 face" in done.out
    assert len((tmp_path / f"{kind}.leaf.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("command", ["image", "video"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_float_picture_is_an_error(leaf: Leaf, tmp_path: Path, channels: int, command: str) -> None:
    path = tmp_path / "depth.tif"
    cv2.imwrite(str(path), np.linspace(0, 3, 64 * 64 * channels, dtype=np.float32).reshape(64, 64, channels))
    done = leaf(command, path)
    assert done.code == errors.CodecError.exit_code
    assert "is a 32-bit float picture" in done.sentence()
    assert "8 or 16 bits" in done.sentence()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (400, 1, 3), (2, 2)])
def test_pictures_too_small_for_a_face(leaf: Leaf, tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "tiny.png"
    cv2.imwrite(str(path), np.full(shape, 128, np.uint8))
    done = leaf("image", path)
    assert done.code == 0, done.err
    assert "no face found" in done.out
    assert (tmp_path / "tiny.leaf.jsonl").read_text() == ""
    assert cv2.imread(str(tmp_path / "tiny.leaf.jpg")).shape[:2] == shape[:2]


@pytest.mark.parametrize("command", ["video", "image"])
@pytest.mark.parametrize(("place", "code"), [("/proc/leaf", 9), ("file/below", 9), ("file", 9)])
def test_an_output_folder_that_cannot_be_created(
    leaf: Leaf, clip: Path, tmp_path: Path, command: str, place: str, code: int
) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / place  # an absolute path stays as it is
    path = clip if command == "video" else tmp_path / "missing.png"
    done = leaf(command, path, "--out", folder)
    assert "--out" in done.sentence()
    assert done.code in (code, errors.NoPermission.exit_code)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("rtsp://", "contains no host"),
        ("rtsp:///stream", "contains no host"),
        ("http://", "contains no host"),
        ("rtsp://127.0.0.1:99999/x", "the port is not a number from 1 to 65535"),
        ("http://127.0.0.1:99999/x", "the port is not a number from 1 to 65535"),
        ("https://127.0.0.1:0/x", "the port is not a number from 1 to 65535"),
        ("rtsp://no-such-host.invalid/x", "unknown host"),
        ("http://no-such-host.invalid/x", "unknown host"),
    ],
)
def test_invalid_addresses(leaf: Leaf, address: str, words: str) -> None:
    done = leaf("video", address, "--no-save-video")
    assert done.code == errors.ConnectionLost.exit_code
    assert words in done.sentence()


def test_a_pipe_is_not_a_video_file(leaf: Leaf, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        done = leaf("video", path)
        assert done.code == errors.NotAVideo.exit_code
        assert "is a pipe or a device" in done.sentence()


def test_a_picture_with_too_many_pixels(leaf: Leaf, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(10_000))), chunk(b"IEND", b""))
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    done = leaf("image", large)
    assert done.code == errors.CodecError.exit_code
    assert "the picture has 60000x60000 pixels" in done.sentence()
    assert "OpenCV" not in done.err


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--plot"])
def test_a_result_in_a_missing_folder(leaf: Leaf, clip: Path, tmp_path: Path, option: str) -> None:
    target = tmp_path / "no" / "such" / "folder" / "x"
    done = leaf("video", clip, "--out", tmp_path / "out", option, target)
    assert str(target) in done.sentence()
    assert done.code in (errors.OutputError.exit_code, errors.NotFound.exit_code)


def unprivileged() -> tuple[str, ...]:
    """Prefix of a command without the privileges of root, which can read and write everything."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root without setpriv cannot be refused"
)
def test_missing_permissions(clip: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(DEFAULT_MODEL, tmp_path / "mine.onnx"))
    spec_path(model).touch(mode=0)
    picture = tmp_path / "face.png"
    picture.touch(mode=0)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for name, arguments in {
        "face.png": ("image", picture),
        "mine.json": ("video", clip, "--model", model, "--out", tmp_path),
        "closed": ("video", clip, "--out", closed),
    }.items():
        done = child(*arguments, prefix=unprivileged())
        assert name in done.sentence()
        assert done.code == errors.NoPermission.exit_code
        assert "no face found" not in done.out


@pytest.mark.slow
def test_stdout_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "leaf_rt", "doctor"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == errors.OutputError.exit_code
    assert done.stderr == "error: standard output: no space left on the device; free some space\n"


@pytest.mark.slow
def test_records_on_a_full_disk(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    """/dev/full rejects every byte, like a full disk."""
    done = leaf("video", clip, "--jsonl", "/dev/full", "--out", tmp_path)
    assert "/dev/full" in done.sentence()
    assert done.code == errors.OutputError.exit_code
    one = write_clip(tmp_path / "one.mp4", demo_frames(1))
    assert "/dev/full" in leaf("video", one, "--jsonl", "/dev/full", "--no-save-video", "--no-plot").sentence()
    assert frames_in(tmp_path / "face.leaf.mp4") == 30  # the other results are complete


@pytest.mark.slow
def test_a_full_disk_leaves_valid_files(clip: Path, tmp_path: Path) -> None:
    done = child("video", clip, "--out", tmp_path, "--classify-fps", "0", file_size=12_000)
    assert done.code == errors.OutputError.exit_code, done.err
    assert "Traceback" not in done.err
    assert "error: " in done.err
    lines = (tmp_path / "face.leaf.jsonl.part").read_bytes().split(b"\n")
    for line in lines[:-1]:
        json.loads(line)
    assert not (tmp_path / "face.leaf.png").exists()  # a timeline is never written in part


def damaged_model(kind: str, folder: Path) -> Path:
    path = folder / "mine.onnx"
    if kind == "missing":
        return path
    shutil.copy(DEFAULT_MODEL, path)
    spec = json.loads(spec_path(DEFAULT_MODEL).read_text())
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "foreign":  # bytes that match their description but are not a model
        path.write_bytes(b"not an ONNX file")
        spec["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    elif kind == "labels":
        spec["labels"] = spec["labels"][:7]
    elif kind == "fields":
        del spec["margin"]
    if kind == "json":
        spec_path(path).write_text("{ not json")
    elif kind != "alone":
        spec_path(path).write_text(json.dumps(spec))
    return path


@pytest.mark.parametrize("command", ["video", "image"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("missing", errors.NotFound),
        ("alone", errors.ModelError),
        ("truncated", errors.ModelError),
        ("foreign", errors.ModelError),
        ("labels", errors.ModelError),
        ("fields", errors.ModelError),
        ("json", errors.ModelError),
    ],
)
def test_invalid_models(
    leaf: Leaf, clip: Path, tmp_path: Path, command: str, kind: str, error: type[errors.LeafError]
) -> None:
    model = damaged_model(kind, tmp_path)
    done = leaf(command, clip, "--model", model, "--out", tmp_path / "out")
    assert "mine" in done.sentence()
    assert done.code == error.exit_code
    assert not list((tmp_path / "out").iterdir())


def test_an_unknown_back_end(leaf: Leaf, clip: Path, tmp_path: Path) -> None:
    done = leaf("video", clip, "--backend", "abacus", "--out", tmp_path)
    assert "abacus" in done.sentence()
    assert done.code == errors.BackendError.exit_code


def test_a_missing_camera(leaf: Leaf) -> None:
    done = leaf("webcam", "--device", "77", "--no-show")
    assert "77" in done.sentence()
    assert done.code == errors.NotFound.exit_code


@pytest.mark.parametrize("source", ["rtsp://me:SECRET@camera/1", "0"])
def test_bench_takes_no_live_source(leaf: Leaf, source: str) -> None:
    done = leaf("bench", source)
    assert (done.code, done.out) == (5, "")
    assert "bench measures a file; record some seconds" in done.err
    assert "SECRET" not in done.err
