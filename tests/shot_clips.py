"""A labelled set of clips with hard cuts, made from real clips and pictures with a known seed.

Between the cuts there are changes that are no cuts: fades through black within a scene, flashes, exposure steps, fast
pans and zooms, and a person who walks past the camera. Some scenes are joined by a dissolve. The scenes are in two
halves: constants were chosen on the half "tune", the tests measure on the half "test".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 480, 270
# A video with its first and last frame, or a picture. Videos whose scenes look the same are in one half.
SCENES = {
    "tune": [
        ("expressive_woman_pexels.mp4", 0, 470), ("no_face.mp4", 0, 70), "angry.jpg", "group.jpeg", "happy-baby.jpeg",
        "solvay_1927.jpg",
    ],
    "test": [
        ("single_face.mp4", 0, 70), ("street_1080p.mp4", 0, 104), "neutral.jpeg", "surprised.jpeg", "sad-baby.jpeg",
        "multi_face.jpg",
    ],
}  # fmt: skip
CODECS = [
    ("libx264", "mp4", {"preset": "veryfast", "crf": "20"}),
    ("libx264", "mp4", {"preset": "veryfast", "crf": "36"}),
    ("mpeg4", "mp4", {"qscale": "6"}),
    ("mjpeg", "avi", {}),
]
EFFECTS = ("none", "flash", "exposure", "pan", "zoom", "walker", "fade", "dissolve")


@dataclass
class Clip:
    """Frames (H, W, 3) uint8 BGR after encoding and decoding.

    Attributes:
        cuts: Numbers of the first frames after a hard cut.
        effects: What happens, with the number of its first frame.
    """

    frames: list[np.ndarray]
    cuts: list[int]
    effects: list[tuple[str, int]] = field(default_factory=list)
    fps: int = 25


@cache
def _video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            cv2.resize(f.to_ndarray(format="bgr24"), (640, 360), interpolation=cv2.INTER_AREA)
            for f in container.decode(video=0)
        ]


class _Scene:
    """Frames of one camera position: a part of a video, or of a picture that the camera moves over."""

    def __init__(self, media: Path, scene: str | tuple[str, int, int], length: int, rng: np.random.Generator) -> None:
        if isinstance(scene, tuple):
            name, first, last = scene
            start = int(rng.integers(first, max(first + 1, last - length)))
            frames = _video(media / name)
            self.images = [frames[min(start + k, last)] for k in range(length)]
        else:
            picture = cv2.imread(str(media / scene))
            scale = 640 / min(picture.shape[1], picture.shape[0] * 16 / 9)
            self.images = [cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)] * length
        height, width = self.images[0].shape[:2]
        self.scale = float(rng.uniform(0.7, 0.95))
        side = np.array([min(width, height * 16 / 9), min(height, width * 9 / 16)])
        self.side = side * self.scale
        self.center = (
            np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * (np.array([width, height]) - self.side) / 2
        )
        self.drift = rng.uniform(-0.4, 0.4, 2)  # px per frame: a hand holds the camera

    def frame(self, k: int, shift: float = 0.0, zoom: float = 1.0) -> np.ndarray:
        """The view at a frame, moved to the right by a share of its width, and magnified."""
        image = self.images[k]
        side = self.side / zoom
        center = self.center + self.drift * k + (shift * self.side[0], 0)
        corner = center - side / 2
        matrix = np.array([[side[0] / WIDTH, 0, corner[0]], [0, side[1] / HEIGHT, corner[1]]])
        return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_REFLECT)  # fmt: skip


def _walker(media: Path, half: str) -> np.ndarray:
    name = {"tune": "happy-baby.jpeg", "test": "neutral.jpeg"}[half]
    picture = cv2.imread(str(media / name))
    height = HEIGHT * 4 // 5
    return cv2.resize(picture, (height * 3 // 5, height), interpolation=cv2.INTER_AREA)


def _apply(effect: str, scene: _Scene, length: int, at: int, walker: np.ndarray, rng: np.random.Generator):
    """Frames of a scene in which one thing happens at frame ``at``."""
    sign = float(rng.choice([-1, 1]))
    speed = float(rng.uniform(0.05, 0.12))  # of a pan, widths per frame
    gain = float(rng.choice([0.45, 0.6, 1.6, 2.0]))
    for k in range(length):
        since = k - at
        if effect == "pan" and since >= 0:
            shift = sign * speed * min(since, 8)
            image = scene.frame(k, shift)
            if since < 8:  # blurred by the motion
                image = cv2.blur(image, (max(int(speed * WIDTH * 0.5), 1), 1))
        elif effect == "zoom" and since >= 0:
            image = scene.frame(k, zoom=1.0 + 0.06 * min(since, 10))
        else:
            image = scene.frame(k)
        if effect == "flash" and since == 0:
            image = np.full_like(image, 255)
        elif effect == "flash" and since == 8:  # a weaker one: the picture is still there
            image = cv2.convertScaleAbs(image, alpha=0.6, beta=110)
        elif effect == "exposure" and since >= 0:
            image = cv2.convertScaleAbs(image, alpha=gain, beta=0)
        elif effect == "fade" and 0 <= since < 20:
            image = cv2.convertScaleAbs(image, alpha=abs(since - 10) / 10, beta=0)
        elif effect == "walker" and 0 <= since < 12:
            x = round((WIDTH + walker.shape[1]) * since / 12) - walker.shape[1]
            x0, x1 = max(x, 0), min(x + walker.shape[1], WIDTH)
            if x1 > x0:
                image[-walker.shape[0] :, x0:x1] = walker[:, x0 - x : x1 - x]
        yield image


def make(media: Path, half: str, seed: int, scenes: int = 5) -> Clip:
    """Make one clip: ``scenes`` scenes joined by hard cuts.

    Args:
        media: Folder of the clips and pictures.
        half: "tune" or "test".
        seed: Chooses everything.
        scenes: Number of scenes.
    """
    rng = np.random.default_rng([seed, half == "test"])
    walker = _walker(media, half)
    frames: list[np.ndarray] = []
    cuts: list[int] = []
    effects: list[tuple[str, int]] = []
    previous = -1
    for number in range(scenes):
        choice = int(rng.choice([k for k in range(len(SCENES[half])) if k != previous]))
        length = int(rng.integers(30, 50))
        effect = EFFECTS[(seed + number * 3) % len(EFFECTS)]
        at = int(rng.integers(8, 14))
        scene = _Scene(media, SCENES[half][choice], length, rng)
        made = list(_apply(effect, scene, length, at, walker, rng))
        if effect == "dissolve" and frames:  # the last 10 frames of the scene before turn into this one
            for k in range(10):
                frames[-10 + k] = cv2.addWeighted(made[0], (k + 0.5) / 10, frames[-10 + k], 1 - (k + 0.5) / 10, 0)
            effects.append((effect, len(frames) - 10))
        else:
            if frames:
                cuts.append(len(frames))
            effects.append((effect, len(frames) + at))
        frames += made
        previous = choice
    noise = float(rng.choice([0, 3, 8]))
    noisy = [np.clip(f + rng.normal(0, noise, f.shape), 0, 255).astype(np.uint8) if noise > 0 else f for f in frames]
    return Clip(_decoded(noisy, *CODECS[seed % len(CODECS)]), cuts, effects)


def _decoded(frames: list[np.ndarray], codec: str, container: str, options: dict[str, str]) -> list[np.ndarray]:
    """Encode and decode frames."""
    import io

    memory = io.BytesIO()
    with av.open(memory, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = Fraction(1, 25)
        for image in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    memory.seek(0)
    with av.open(memory) as container_in:
        decoded = [f.to_ndarray(format="bgr24") for f in container_in.decode(video=0)]
    if len(decoded) != len(frames):
        raise ValueError(f"wrote {len(frames)} frames, read {len(decoded)}")
    return decoded
