"""Faces that talk and do not change their expression: real pictures whose jaw moves.

    python tests/talking_faces.py table ../shared/media             # classifies the pictures again
    python tests/talking_faces.py measure                           # label changes and delays, before and after
    python tests/talking_faces.py clip ../shared/media talking.mp4  # a clip of 30 s for leaf-rt video

``data/talking.json`` holds what the bundled network answers for jaws open by 0, 0.05, ... 0.7 of the distance of the
eyes.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.recognition.smoothing import Smoother, SmoothOptions

TABLE = Path(__file__).with_name("data") / "talking.json"
STEP = 0.05  # of the distance of the eyes, between two rows of a table
RATE = 120  # samples per second of a series
PICTURES = {  # name: file and number of the frame
    "woman": ("neutral.jpeg", 0),
    "man": ("single_face.mp4", 2),
    "man smiling": ("single_face.mp4", 22),
    "actress": ("expressive_woman_pexels.mp4", 205),  # between sadness, neutral and surprise: the hardest
    "actress crying": ("expressive_woman_pexels.mp4", 150),
    "actress smiling": ("expressive_woman_pexels.mp4", 300),
    "angry man": ("angry.jpg", 0),
    "sad baby": ("sad-baby.jpeg", 0),
    "happy baby": ("happy-baby.jpeg", 0),
}
TALKERS = ("woman", "man", "actress", "actress crying")
CHANGES = (  # while talking, from one expression to another
    ("woman", "happy baby"),
    ("man", "man smiling"),
    ("woman", "sad baby"),
    ("actress", "actress smiling"),
    ("woman", "angry man"),
)


def mouth(seconds: float, seed: int, loud: float) -> np.ndarray:
    """Return how far a jaw is open, (seconds * RATE,): syllables in phrases of 1 to 3 s with pauses."""
    rng = np.random.default_rng(seed)
    out, t = np.zeros(int(seconds * RATE)), 0.3
    while t < seconds:
        end, level = t + rng.uniform(1, 3), loud * rng.uniform(0.8, 1.2)
        while t < end and t < seconds:
            duration = rng.uniform(0.12, 0.35)
            start, n = int(t * RATE), int(duration * RATE)
            syllable = min(0.7, level * rng.lognormal(0, 0.4)) * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n))
            out[start : start + n] = syllable[: len(out[start : start + n])]
            t += duration
        t += rng.uniform(0.25, 0.8)
    return out


def answers(name: str, opening: np.ndarray) -> np.ndarray:
    """Return what the network says of a picture while its jaw moves, (T, 8) float32."""
    table = np.array(json.loads(TABLE.read_text())[name])
    at = np.clip(opening / STEP, 0, len(table) - 1)
    low = np.floor(at).astype(int)
    part = (at - low)[:, None]
    probs = table[low] * (1 - part) + table[np.minimum(low + 1, len(table) - 1)] * part
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def shown(probs: np.ndarray, options: SmoothOptions, fps: int = 10) -> list[tuple[float, int]]:
    """Return time and shown label of every classification of a series, (T, 8) at RATE."""
    smoother, out = Smoother(8, options), []
    for k in range(0, len(probs), RATE // fps):
        smoother.update(1, probs[k], k / RATE)
        out.append((k / RATE, smoother.at(1, k / RATE)[1]))
    return out


def changes_per_minute(labels: list[tuple[float, int]]) -> float:
    changes = sum(a[1] != b[1] for a, b in itertools.pairwise(labels))
    return 60 * changes / (labels[-1][0] - labels[0][0])


def delay(before: str, after: str, seed: int, loud: float, options: SmoothOptions) -> float:
    """Return how long a change of the expression after 10 s takes to be shown, s, while the face talks."""
    opening = mouth(14, seed, loud)
    change = 10 * RATE
    probs = np.concatenate([answers(before, opening[:change]), answers(after, opening[change:])])
    wanted = int(answers(after, np.zeros(1))[0].argmax())
    return next((t for t, label in shown(probs, options) if t >= 10 and label == wanted), np.inf) - 10


def open_jaw(image: np.ndarray, keypoints: np.ndarray, amount: float) -> np.ndarray:
    """Return a picture whose jaw is open by ``amount`` of the distance of the eyes; keypoints (6, 2) px."""
    eyes, (mouth_x, mouth_y) = float(np.linalg.norm(keypoints[1] - keypoints[0])), keypoints[3]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    lips = np.clip(1 - ((x - mouth_x) / (0.45 * eyes)) ** 2, 0, 1) * amount * eyes
    jaw = np.clip(1 - ((x - mouth_x) / (1.1 * eyes)) ** 2, 0, 1) * amount * eyes
    below = y > mouth_y
    down = np.where(below, jaw * np.clip(1 - (y - mouth_y) / (2.2 * eyes), 0, 1), 0)
    up = np.where(below, 0, 0.25 * lips * np.exp((y - mouth_y) / (0.25 * eyes)))
    moved = cv2.remap(image, x, (y - down + up).astype(np.float32), cv2.INTER_LINEAR)
    inside = (np.abs(y - (mouth_y + lips * 0.4)) < lips * 0.5) & (lips > 0)
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(1, 0.02 * eyes))[..., None]
    return (moved * (1 - soft) + np.array([30, 25, 60], np.float32) * soft).astype(np.uint8)


def picture(media: Path, name: str) -> np.ndarray:
    """Return one of PICTURES, at most 640 px wide and high."""
    file, number = PICTURES[name]
    video = cv2.VideoCapture(str(media / file))
    image = next(image for k in itertools.count() for image in [video.read()[1]] if k == number)
    scale = min(1.0, 640 / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def classify(media: Path) -> None:
    """Write TABLE."""
    from leaf_rt.backends.opening import open_backend
    from leaf_rt.faces.alignment import crop_faces
    from leaf_rt.faces.image_detector import ImageFaceDetector
    from leaf_rt.models.spec import DEFAULT_MODEL

    table: dict[str, list[list[float]]] = {}
    backend = open_backend(DEFAULT_MODEL, "onnxruntime", 1)
    with ImageFaceDetector() as detector:
        for name in PICTURES:
            image = picture(media, name)
            points = detector.detect(image).keypoints[:1]
            openings = np.arange(15) * STEP
            crops = [
                crop_faces(open_jaw(image, points[0], a), points, backend.spec.side, backend.spec.margin)
                for a in openings
            ]
            table[name] = backend.infer(np.concatenate(crops)).probs.astype(float).round(4).tolist()
    rows = (f'  "{name}": [\n    ' + ",\n    ".join(map(json.dumps, probs)) + "\n  ]" for name, probs in table.items())
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def measure() -> None:
    """Print label changes per minute of faces that talk, and delays of real changes while they talk."""
    for title, options in (("before", SmoothOptions(talking_time_constant=0.0)), ("after", SmoothOptions())):
        for name in TALKERS:
            series = [answers(name, mouth(60, s, loud)) for loud in (0.25, 0.35, 0.45, 0.55) for s in range(6)]
            rates = [changes_per_minute(shown(probs, options)) for probs in series]
            print(  # noqa: T201
                f"{title:7s} {name:15s} changes per minute: mean {np.mean(rates):.1f}, most {max(rates):.1f}"
            )
        delays = [delay(*pair, s, 0.45, options) for pair in CHANGES for s in range(8)]
        print(  # noqa: T201
            f"{title:7s} delay of a change while talking: mean {np.mean(delays):.2f} s, most {max(delays):.2f} s"
        )


def write_clip(media: Path, out: Path, name: str = "actress", seconds: int = 30, fps: int = 24) -> None:
    from leaf_rt.faces.image_detector import ImageFaceDetector

    image = picture(media, name)
    with ImageFaceDetector() as detector:
        points = detector.detect(image).keypoints[0]
    size = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for amount in mouth(seconds, 0, 0.45)[:: RATE // fps]:
        writer.write(open_jaw(image, points, float(amount))[: size[1], : size[0]])
    writer.release()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["table", media]:
            classify(Path(media))
        case ["measure"]:
            measure()
        case ["clip", media, out]:
            write_clip(Path(media), Path(out))
        case _:
            sys.exit(__doc__)
