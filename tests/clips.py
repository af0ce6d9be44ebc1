"""Clips and pictures for tests, made on the spot or cut from the bundled demo clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"
RATE = 24


def write_clip(path: Path, images: list[np.ndarray], rate: int = RATE, **container: str) -> Path:
    """Encode (H, W, 3) uint8 BGR pictures as H.264; the ending of ``path`` chooses the container."""
    with av.open(str(path), "w", options=container) as out:
        stream = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "threads": "1"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, rate)
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return path


def demo_frames(count: int, first: int = 0) -> list[np.ndarray]:
    """Frames of the demo clip: each shows the same woman."""
    with av.open(str(DEMO)) as container:
        found: list[np.ndarray] = []
        for index, frame in enumerate(container.decode(video=0)):
            if index >= first:
                found.append(frame.to_ndarray(format="bgr24"))
            if len(found) == count:
                break
    return found


def empty_frames(count: int, height: int = 180, width: int = 320) -> list[np.ndarray]:
    """Frames without people: a slowly moving pattern."""
    y, x = np.mgrid[0:height, 0:width]
    return [np.dstack([(x + i) % 256, (y * 2) % 256, (x + y + i) % 256]).astype(np.uint8) for i in range(count)]


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        layout = "mono"
        total = int(44100 * seconds)
        for start in range(0, total, 1024):
            t = (np.arange(start, start + 1024) / 44100).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.sin(2 * np.pi * 440 * t)[None].astype(np.float32), "fltp", layout)
            frame.sample_rate = 44100
            frame.pts = start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def broken(kind: str, path: Path) -> Path:
    """Write a file that is not a complete video; "missing" writes nothing."""
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is a letter to my aunt\n" * 50)
    elif kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(1).bytes(50_000))
    elif kind == "sound":
        write_sound(path)
    elif kind == "index lost":  # an MP4 file with its index at the end
        data = write_clip(path, empty_frames(24)).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "not a single frame":
        packets = bytearray(write_clip(path, empty_frames(3), movflags="faststart").read_bytes())
        begin = packets.index(b"mdat") + 4
        packets[begin:] = bytes(len(packets) - begin)
        path.write_bytes(packets)
    return path


def frames_in(path: Path) -> int:
    """Number of frames of a video file; raises if one cannot be decoded."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
