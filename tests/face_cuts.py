"""Hard cuts between photographs with a face in the same place, the hardest ones, and the command that measures them.

    PYTHONPATH=tests:. python tests/face_cuts.py ../shared A [--light 1 0.25 0.1] [--stride 1]

Set A has the people with names from A to M, on whom constants are chosen. Set B has those from N to Z: held out. Both
have 60 cuts: a third in grey, a third in one tone, and a third with a tone of its own for each photograph. In every
scene something happens that is no cut. The whole pipeline runs, but for the classification.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from fakes import FakeBackend
from fresh_cuts import CODECS, _faces, _toned
from shot_clips import Clip, _decoded

from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.recognition.people import PeopleMemory
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.recognition.shots import ShotDetector
from leaf_rt.types import Frame

WIDTH, HEIGHT = 640, 360
CLIPS, SCENES = 12, 6  # of a set
LENGTH = 14  # frames of a scene
TONES = ("grey", "one tone", "own tones")
EFFECTS = ("none", "flash", "weak flash", "exposure", "zoom", "shake", "hand")
FPS = 25


@cache
def _detector() -> ImageFaceDetector:
    return ImageFaceDetector(range="short")


def _person(faces: list[np.ndarray], rng: np.random.Generator, used: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of somebody else with one face, and its box (4,)."""
    while True:
        k = int(rng.integers(len(faces)))
        found = [] if k in used else _detector().detect(faces[k]).xyxy
        used.add(k)
        if len(found) == 1:
            return faces[k], found[0]


def _scene(picture: np.ndarray, box: np.ndarray, width: float, effect: str, rng: np.random.Generator):
    """Frames with the face in the middle, about ``width`` px wide, before the blurred photograph."""
    size = width * float(rng.uniform(0.93, 1.07))
    middle = np.array([WIDTH, HEIGHT]) * (0.5, 0.5) + rng.normal(0, 0.03, 2) * width
    cover = max(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    room = cv2.GaussianBlur(cv2.resize(picture, None, fx=cover, fy=cover), None, 25)
    x, y = (room.shape[1] - WIDTH) // 2, (room.shape[0] - HEIGHT) // 2
    room = room[y : y + HEIGHT, x : x + WIDTH]
    drift, phase, gain = rng.normal(0, 0.3, 2), float(rng.uniform(0, 6)), float(rng.choice([0.5, 0.7, 1.4, 1.8]))
    for k in range(LENGTH):
        t = k - LENGTH // 2
        scale = size / (box[2] - box[0]) * (1 + 0.05 * k / LENGTH)
        center = middle + drift * k + 1.5 * np.sin(k / 4 + phase)
        if effect == "zoom" and t >= 0:
            scale *= 1 + 0.04 * t
        if effect == "shake" and t >= 0:
            center = center + rng.normal(0, 0.06, 2) * width
        corner = center - scale * (box[:2] + box[2:]) / 2
        matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        image = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), room.copy(), borderMode=cv2.BORDER_TRANSPARENT)
        if effect == "flash" and t == 0:
            image = cv2.convertScaleAbs(image, beta=120)
        elif effect == "weak flash" and 0 <= t < 2:
            image = cv2.convertScaleAbs(image, alpha=0.7, beta=70)
        elif effect == "exposure" and t >= 0:
            image = cv2.convertScaleAbs(image, alpha=gain)
        elif effect == "hand" and 0 <= t < 4:  # over the mouth
            at = (int(center[0] - width / 2 + width * t / 4), int(center[1] + width * 0.3))
            cv2.ellipse(image, at, (int(width * 0.4), int(width * 0.25)), 20, 0, 360, (120, 150, 190), -1)
        yield image


def make(shared: Path, name: str, number: int) -> Clip:
    """Make clip ``number`` of set ``name``, "A" or "B"."""
    rng = np.random.default_rng([number, ord(name), 17])
    faces, used = _faces(shared, name), set[int]()
    width, tones = float(rng.uniform(90, 180)), TONES[number % len(TONES)]
    tone = int(rng.integers(1 << 30))
    frames: list[np.ndarray] = []
    cuts: list[int] = []
    effects: list[tuple[str, int]] = []
    for scene in range(SCENES):
        picture, box = _person(faces, rng, used)
        if tones != "grey":
            picture = _toned(picture, np.random.default_rng(tone) if tones == "one tone" else rng)
        effect = EFFECTS[(number * SCENES + scene) % len(EFFECTS)]
        if frames:
            cuts.append(len(frames))
        effects.append((effect, len(frames) + LENGTH // 2))
        frames += list(_scene(picture, box, width, effect, rng))
    noise = float(rng.choice([0, 3, 7]))
    frames = [np.clip(f + rng.normal(0, noise, f.shape), 0, 255).astype(np.uint8) for f in frames]
    return Clip(_decoded(frames, *CODECS[number % len(CODECS)]), cuts, effects)


def follow(clip: Clip, stride: int = 1, light: float = 1.0) -> list[tuple[int, list[tuple[int, int]]]]:
    """Run the pipeline; return the shot of each frame, and track and person of its faces."""
    detector = VideoFaceDetector(detector="onnxruntime")
    pipeline = Pipeline(detector, FaceTracker(), FakeBackend(), shots=ShotDetector(), people=PeopleMemory(30.0))
    found = []
    try:
        for k, image in enumerate(clip.frames[::stride]):
            frame = Frame(cv2.convertScaleAbs(image, alpha=light), k, k * stride / FPS, "clip")
            result = pipeline.step(frame)
            found.append((result.shot, list(zip(result.track_id.tolist(), result.person_id.tolist(), strict=True))))
    finally:
        pipeline.close()
    return found


def count(clip: Clip, stride: int = 1, light: float = 1.0) -> Counter[str]:
    """Count the cuts, those found, the answers, tracks and persons with two people, tracks, and what was no cut."""
    found = follow(clip, stride, light)
    shots = [shot for shot, _ in found]
    cuts = {-(-cut // stride) for cut in clip.cuts}
    answers = {k for k in range(1, len(shots)) if shots[k] > shots[k - 1]}
    scene = [sum(k >= cut for cut in cuts) for k in range(len(shots))]
    people: dict[str, set[int]] = defaultdict(set)
    for k, (_, rows) in enumerate(found):
        for track, person in rows:
            people[f"track {track}"].add(scene[k])
            people[f"person {person}"].add(scene[k])
    result = Counter({"cuts": len(cuts), "found": len(cuts & answers), "answers": len(answers)})
    result["scenes"] = SCENES
    result["frames with a face"] = sum(bool(rows) for _, rows in found)
    result["frames with two faces"] = sum(len(rows) > 1 for _, rows in found)
    for who, scenes in people.items():
        result[f"{who.split()[0]}s"] += 1
        result[f"{who.split()[0]}s of two people"] += len(scenes) > 1
    for k in answers - cuts:
        result["no cut: " + [effect for effect, first in clip.effects if first <= (k + 1) * stride][-1]] += 1
    return result


def main() -> None:
    """Print the counts of a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("set", choices=["A", "B"])
    parser.add_argument("--light", type=float, nargs="+", default=[1.0], help="shares of the light of every frame")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th frame")
    given = parser.parse_args()
    totals: dict[float, Counter[str]] = {light: Counter() for light in given.light}
    for number in range(CLIPS):
        clip = make(given.shared, given.set, number)
        for light, total in totals.items():
            total += count(clip, given.stride, light)
    for light, total in totals.items():
        recall, precision = total["found"] / total["cuts"], total["found"] / max(total["answers"], 1)
        print(f"light {light:g}: recall {recall:.3f}  precision {precision:.3f}  {dict(total)}")  # noqa: T201


if __name__ == "__main__":
    main()
