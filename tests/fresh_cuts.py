"""A second, held-out set of hard cuts, from other material than ``shot_clips.py``, and the command that measures on it.

    PYTHONPATH=tests:. python tests/fresh_cuts.py ../shared A 1000-1017 [FOLDER_OF_SCIKIT_IMAGE]

The scenes are film, photographs and people in rooms: grey, toned or colored. The camera moves over them. The clips have
six sizes, five codecs and three levels of noise. The sets A and B share no picture and no film.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from shot_clips import Clip, _decoded, _video

from leaf_rt.recognition.shots import Change, ShotDetector

FILMS = {"A": ("face_noface.mov", 0, 72), "B": ("noface_face.mov", 0, 96)}  # stretches without a cut: man, animation
PHOTOS = {  # file names in the packages scikit-learn, matplotlib and, if it is given, scikit-image
    "A": ("china.jpg", "grace_hopper.jpg", "coffee.png", "astronaut.png", "rocket.jpg", "camera.png"),
    "B": ("flower.jpg", "chelsea.png", "motorcycle_left.png", "coins.png", "moon.png", "hubble_deep_field.jpg"),
}
SIZES = [(320, 180), (480, 360), (640, 360), (854, 480), (360, 640), (960, 540)]
CODECS = [
    ("libx264", "mp4", {"preset": "veryfast", "crf": "23"}),
    ("libx264", "mp4", {"preset": "ultrafast", "crf": "34"}),
    ("mpeg4", "mp4", {"qscale": "8"}),
    ("mjpeg", "avi", {}),
    ("libx265", "mp4", {"preset": "ultrafast", "crf": "28", "x265-params": "log-level=none"}),
]
EFFECTS = (
    "flash",
    "weak flash",
    "black fade",
    "white fade",
    "pan",
    "zoom",
    "exposure",
    "walkers",
    "near face",
    "shake",
)
FPS = 25


@cache
def _faces(shared: Path, name: str) -> list[np.ndarray]:
    """Pictures of people with names from A to M, or from N to Z."""
    folder = shared / "data" / "webfaces"
    with (folder / "labels.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    first = "ABCDEFGHIJKLM" if name == "A" else "NOPQRSTUVWXYZ"
    chosen = [p for p in paths if Path(p).name[0] in first and Path(p).name.endswith("_0001.jpg")][:400]
    with zipfile.ZipFile(folder / "images.zip") as archive:
        return [cv2.imdecode(np.frombuffer(archive.read(p), np.uint8), cv2.IMREAD_COLOR) for p in chosen]


@cache
def _photos(name: str, more: Path | None) -> list[np.ndarray]:
    import matplotlib
    import sklearn

    folders = [Path(sklearn.__file__).parent, Path(matplotlib.__file__).parent, *([more] if more else [])]
    found = [path for wanted in PHOTOS[name] for folder in folders for path in folder.rglob(wanted)]
    return [cv2.imread(str(path)) for path in found]


def _cover(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale a picture so that it covers a size."""
    scale = max(width / picture.shape[1], height / picture.shape[0]) * 1.001
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=kind)


def _toned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a grey picture the tone of a film: other colors in its shadows than in its lights."""
    dark, light = rng.uniform(0, 60, 3), rng.uniform(190, 255, 3)
    table = dark + (light - dark) * np.linspace(0, 1, 256)[:, None]
    return table[picture[..., 0]].astype(np.uint8)


class Scene:
    """What one camera sees. ``frame`` is the view, (H, W, 3) uint8 BGR."""

    def __init__(self, shared: Path, name: str, more: Path | None, size: tuple[int, int], rng: np.random.Generator):
        self.size, self.rng = size, rng
        faces, photos = _faces(shared, name), _photos(name, more)
        kind = rng.choice(["film", "face", "toned face", "photo", "room"], p=[0.15, 0.2, 0.2, 0.25, 0.2])
        face = faces[int(rng.integers(len(faces)))]
        film, first, last = FILMS[name]
        self.film = _video(shared / "media" / film)[first:last] if kind == "film" else None
        self.start = int(rng.integers(0, last - first - 50))
        width, height = size
        photo = int(rng.integers(len(photos)))
        self.source = kind if kind == "film" else f"face {id(face)}" if "face" in kind else f"photo {photo}"
        if kind == "face":
            picture = face
        elif kind == "toned face":
            picture = _toned(face, rng)
        else:
            picture = photos[photo]
        self.picture = _cover(picture, width * 5 // 4, height * 5 // 4)
        self.people = []
        if kind == "room":
            self.picture = cv2.GaussianBlur(self.picture, None, width * float(rng.uniform(0.002, 0.02)))
            for _ in range(int(rng.integers(1, 4))):
                head = _toned(faces[int(rng.integers(len(faces)))], rng)
                side = int(min(size) * rng.uniform(0.3, 0.75))
                self.people.append((cv2.resize(head, (side * 4 // 5, side)), rng.uniform(0.1, 0.9), rng.uniform(0, 6)))
        self.view = float(rng.uniform(0.75, 0.98))
        self.center = rng.uniform(0.45, 0.55, 2)
        self.drift = rng.uniform(-0.002, 0.002, 2)  # a hand holds the camera; shares of the size per frame

    def frame(self, k: int, shift: float = 0.0, zoom: float = 1.0, shake: tuple[float, float] = (0.0, 0.0)):
        """The view at a frame, moved by a share of its size, and magnified."""
        width, height = self.size
        image = self.picture
        if self.film is not None:
            image = _cover(self.film[min(self.start + k, len(self.film) - 1)], width * 5 // 4, height * 5 // 4)
        if self.people:
            image = image.copy()
            for head, place, phase in self.people:
                x = round(image.shape[1] * (place + 0.01 * np.sin(k / 9 + phase)) - head.shape[1] / 2)
                _paste(image, head, x, image.shape[0] - head.shape[0] - round(height * 0.05))
        side = np.array(self.size) * self.view * 1.2 / zoom
        middle = self.center * image.shape[1::-1] + self.drift * k * self.size
        corner = middle + np.array([shift + shake[0], shake[1]]) * self.size - side / 2
        matrix = np.array([[side[0] / width, 0, corner[0]], [0, side[1] / height, corner[1]]])
        return cv2.warpAffine(image, matrix, self.size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_REFLECT)  # fmt: skip


def _paste(image: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    x0, x1, y0, y1 = max(x, 0), min(x + part.shape[1], image.shape[1]), max(y, 0), min(y + part.shape[0], len(image))
    if x1 > x0 and y1 > y0:
        image[y0:y1, x0:x1] = part[y0 - y : y1 - y, x0 - x : x1 - x]


def _play(effect: str, scene: Scene, length: int, at: int, walkers: list[np.ndarray], rng: np.random.Generator):
    """The frames of a scene in which one thing happens from frame ``at`` on."""
    width, height = scene.size
    sign, speed = float(rng.choice([-1, 1])), float(rng.uniform(0.04, 0.1))
    gain, target = float(rng.choice([0.5, 0.65, 1.5, 1.9])), float(rng.uniform(1.3, 1.8))
    long = int(rng.integers(1, 4))  # frames of a flash
    for k in range(length):
        t = k - at
        on = t >= 0
        if effect == "pan" and on:
            image = scene.frame(k, shift=sign * speed * min(t, 9))
            image = cv2.blur(image, (max(int(speed * width * 0.5), 1), 1)) if t < 9 else image
        elif effect == "zoom" and on:
            image = scene.frame(k, zoom=target ** min(t / 10, 1.0))
        elif effect == "shake" and 0 <= t < 15:
            image = scene.frame(k, shake=tuple(rng.normal(0, 0.04, 2)))
        else:
            image = scene.frame(k)
        if effect == "flash" and 0 <= t < long:
            image = np.full_like(image, 255)
        elif effect == "weak flash" and 0 <= t < long:
            image = cv2.convertScaleAbs(image, alpha=0.55, beta=115)
        elif effect == "exposure" and on:
            image = cv2.convertScaleAbs(image, alpha=gain)
        elif effect in ("black fade", "white fade") and 0 <= t < 20:
            here = abs(t - 10) / 10
            image = cv2.convertScaleAbs(image, alpha=here, beta=0 if effect[0] == "b" else 255 * (1 - here))
        elif effect == "walkers" and 0 <= t < 16:
            for number, walker in enumerate(walkers):
                person = cv2.resize(walker, (height * 2 // 3 * 4 // 5, height * 2 // 3))
                way = (t - 3 * number) / 12
                x = round((width + person.shape[1]) * (way if sign > 0 else 1 - way)) - person.shape[1]
                _paste(image, person, x, height - len(person))
        elif effect == "near face" and 0 <= t < 20:
            side = int(height * (0.3 + 1.0 * min(t, 20 - t) / 10))  # comes near until it fills the view, and goes
            _paste(image, cv2.resize(walkers[0], (side, side)), (width - side) // 2, (height - side) // 2)
        yield image


def make(shared: Path, name: str, seed: int, more: Path | None = None, scenes: int = 5) -> Clip:
    """Make one clip of ``scenes`` scenes joined by hard cuts; one thing that is no cut happens in each scene.

    Args:
        shared: Folder with ``media`` and ``data/webfaces``.
        name: "A" or "B".
        seed: Chooses everything.
        more: Folder of further photographs.
        scenes: Number of scenes.
    """
    rng = np.random.default_rng([seed, ord(name)])
    size = SIZES[seed % len(SIZES)]
    faces = _faces(shared, name)
    frames: list[np.ndarray] = []
    cuts: list[int] = []
    effects: list[tuple[str, int]] = []
    previous = ""
    for number in range(scenes):
        length, at = int(rng.integers(34, 50)), int(rng.integers(9, 14))
        effect = EFFECTS[(seed * scenes + number) % len(EFFECTS)]
        walkers = [_toned(faces[int(rng.integers(len(faces)))], rng) for _ in range(2)]
        scene = Scene(shared, name, more, size, rng)
        while scene.source == previous:
            scene = Scene(shared, name, more, size, rng)
        previous = scene.source
        if frames:
            cuts.append(len(frames))
        effects.append((effect, len(frames) + at))
        frames += list(_play(effect, scene, length, at, walkers, rng))
    noise = float(rng.choice([0, 3, 7]))
    if noise:
        grain = rng.normal(0, noise, frames[0].shape).astype(np.int16)  # moved by a random distance for every frame
        moved = (np.roll(grain, int(rng.integers(grain.size)) // 3 * 3) for _ in frames)
        frames = [np.clip(f + g, 0, 255).astype(np.uint8) for f, g in zip(frames, moved, strict=True)]
    return Clip(_decoded(frames, *CODECS[seed % len(CODECS)]), cuts, effects)


def count(clip: Clip, stride: int, light: float = 1.0) -> tuple[int, int, int, list[str]]:
    """Return the true cuts, those that were found, all that were found, and what the wrong ones were."""
    shots = ShotDetector()
    frames = [cv2.convertScaleAbs(image, alpha=light) for image in clip.frames[::stride]]
    answers = {
        k for k, image in enumerate(frames) if shots.compare(image, k * stride / FPS) in (Change.CUT, Change.FADE)
    }
    cuts = {-(-cut // stride) for cut in clip.cuts}
    wrong = [[effect for effect, first in clip.effects if first <= (k + 1) * stride][-1:] for k in answers - cuts]
    return len(cuts), len(cuts & answers), len(answers), [w[0] if w else "start" for w in wrong]


def main() -> None:
    """Print recall and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("set", choices=["A", "B"])
    parser.add_argument("seeds", help="first and last, for example 1000-1017")
    parser.add_argument("pictures", type=Path, nargs="?", help="folder of scikit-image, for more photographs")
    parser.add_argument("--light", type=float, default=1.0, help="share of the light of every frame")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split("-"))
    totals = {stride: np.zeros(3, int) for stride in (1, 2, 3)}
    wrong: dict[int, Counter[str]] = {stride: Counter() for stride in totals}
    happened: Counter[str] = Counter()
    for seed in range(first, last + 1):
        clip = make(given.shared, given.set, seed, given.pictures)
        happened.update(effect for effect, _ in clip.effects)
        for stride in totals:
            *numbers, names = count(clip, stride, given.light)
            totals[stride] += numbers
            wrong[stride].update(names)
    print("not cuts:", sum(happened.values()), dict(happened))  # noqa: T201
    for stride, (cuts, hits, answers) in totals.items():
        print(f"stride {stride}: recall {hits}/{cuts} = {hits / cuts:.3f}  precision {hits}/{answers} = "  # noqa: T201
              f"{hits / max(answers, 1):.3f}  wrong {dict(wrong[stride])}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
