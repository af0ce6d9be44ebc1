"""Faces that talk and do not change their expression: real pictures whose jaw moves.

    python tests/talking_faces.py table ../shared                   # classifies the pictures again
    python tests/talking_faces.py measure                           # label changes and delays, before and after
    python tests/talking_faces.py others                            # the same for faces that chose no constant
    python tests/talking_faces.py clip ../shared/media talking.mp4  # a clip of 30 s for leaf-rt video

``data/talking.json`` holds what the bundled network answers for jaws open by 0, 0.05, ... 0.7 of the distance of the
eyes. The constants of the smoother were chosen on these faces. ``data/talking_others.json`` holds the same for faces of
other pictures, on which the smoother is judged.
"""

from __future__ import annotations

import itertools
import json
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.recognition.smoothing import Smoother, SmoothOptions

TABLE = Path(__file__).with_name("data") / "talking.json"
OTHERS = TABLE.with_name("talking_others.json")
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


@cache
def table_of(name: str) -> np.ndarray:
    """Return what the network says of a face, of either file, for every opening of the jaw, (15, 8)."""
    return np.array((json.loads(TABLE.read_text()) | json.loads(OTHERS.read_text()))[name])


def answers(name: str, opening: np.ndarray) -> np.ndarray:
    """Return what the network says of a picture while its jaw moves, (T, 8) float32."""
    table = table_of(name)
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


def other_pictures(shared: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Groups of people, and pictures of 24 people of ``webfaces``: none of them is in PICTURES."""
    for name in ("group.jpeg", "multi_face.jpg", "surprised.jpeg"):
        yield name, cv2.imread(str(shared / "media" / name))
    with zipfile.ZipFile(shared / "data" / "webfaces" / "images.zip") as archive:
        first = [name for name in sorted(archive.namelist()) if name.endswith("_0001.jpg")]
        for number, name in enumerate(first[:: len(first) // 24][:24], 1):
            image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            yield f"web face {number}", cv2.copyMakeBorder(image, 20, 20, 20, 20, cv2.BORDER_REPLICATE)


def classify(shared: Path) -> None:
    """Write TABLE and OTHERS."""
    from leaf_rt.backends.opening import open_backend
    from leaf_rt.faces.alignment import crop_faces
    from leaf_rt.faces.image_detector import ImageFaceDetector
    from leaf_rt.models.spec import DEFAULT_MODEL

    backend = open_backend(DEFAULT_MODEL, "onnxruntime", 1)

    def row(image: np.ndarray, points: np.ndarray) -> list[list[float]]:
        openings = np.arange(15) * STEP
        crops = [
            crop_faces(open_jaw(image, points[0], a), points, backend.spec.side, backend.spec.margin) for a in openings
        ]
        return backend.infer(np.concatenate(crops)).probs.astype(float).round(4).tolist()

    known, others = {}, {}
    with ImageFaceDetector() as detector:
        for name in PICTURES:
            image = picture(shared / "media", name)
            known[name] = row(image, detector.detect(image).keypoints[:1])
        for name, image in other_pictures(shared):
            found = detector.detect(image)
            for number, (box, points) in enumerate(zip(found.xyxy, found.keypoints, strict=True), 1):
                x0, y0, x1, y1 = np.concatenate([1.5 * box[:2] - box[2:] / 2, 1.5 * box[2:] - box[:2] / 2]).astype(int)
                x0, y0 = max(x0, 0), max(y0, 0)
                part = np.ascontiguousarray(image[y0:y1, x0:x1])
                label = f"{name} {number}" if len(found) > 1 else name
                others[label] = row(part, (points - (x0, y0)).astype(np.float32)[None])
    for path, table in ((TABLE, known), (OTHERS, others)):
        rows = (f'  "{n}": [\n    ' + ",\n    ".join(map(json.dumps, probs)) + "\n  ]" for n, probs in table.items())
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def other_faces() -> list[str]:
    """Names of the faces of OTHERS."""
    return list(json.loads(OTHERS.read_text()))


def other_changes() -> list[tuple[str, str]]:
    """Pairs of faces of OTHERS whose closed mouths have two clear expressions: the first of each pair of labels."""
    clear: dict[int, list[str]] = {}
    for name in other_faces():
        closed = table_of(name)[0]
        if closed.max() >= 0.6:
            clear.setdefault(int(closed.argmax()), []).append(name)
    return [(clear[a][0], clear[b][-1]) for a in clear for b in clear if a != b]


def judge(options: SmoothOptions, seconds: float, loud: tuple[float, ...]) -> tuple[dict[str, float], list[float]]:
    """Return the changes per minute of every face of OTHERS (the mean of its runs), and the delays of changes, s."""
    rates = {
        name: float(np.mean([changes_per_minute(shown(answers(name, mouth(seconds, s, v)), options))
                             for s, v in enumerate(loud)]))
        for name in other_faces()
    }  # fmt: skip
    return rates, [delay(*pair, 0, 0.45, options) for pair in other_changes()]


def measure_others() -> None:
    """Print label changes and delays of the faces that chose no constant."""
    for title, options in (("before", SmoothOptions(talking_time_constant=0.0)), ("after", SmoothOptions())):
        rates, delays = judge(options, 30, (0.25, 0.35, 0.45, 0.55))
        worst = sorted(rates, key=rates.__getitem__)[-3:]
        print(  # noqa: T201
            f"{title:7s} {len(rates)} faces: changes per minute mean {np.mean(list(rates.values())):.1f}, "
            f"above 12: {sum(rate > 12 for rate in rates.values())}, worst {[(n, round(rates[n], 1)) for n in worst]}; "
            f"{len(delays)} changes of expression: mean {np.mean(delays):.2f} s, most {max(delays):.2f} s"
        )


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
        case ["table", shared]:
            classify(Path(shared))
        case ["measure"]:
            measure()
        case ["others"]:
            measure_others()
        case ["clip", media, out]:
            write_clip(Path(media), Path(out))
        case _:
            sys.exit(__doc__)
