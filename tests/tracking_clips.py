"""Clips of known people: a street labelled by eye, and real faces that move, cross, hide and return."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.types import Frame

STREET = Path(__file__).parent / "data" / "street_people.csv"
PICTURES = (
    "group.jpeg", "multi_face.jpg", "angry.jpg", "neutral.jpeg", "surprised.jpeg", "happy-baby.jpeg", "sad-baby.jpeg",
)  # fmt: skip
FPS = 25
Truth = list[tuple[int, tuple[float, float, float, float]]]  # the people of a frame: number and box


def street_truth() -> dict[int, Truth]:
    """Frame number to the people in it. The boxes are the detector's; who is who was decided by eye."""
    truth: dict[int, Truth] = defaultdict(list)
    with STREET.open(newline="") as file:
        for row in csv.DictReader(file):
            box = (float(row["x0"]), float(row["y0"]), float(row["x1"]), float(row["y1"]))
            truth[int(row["frame"])].append((int(row["person"]), box))
    return truth


def video(path: Path) -> Iterator[Frame]:
    """The frames of a file."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield Frame(frame.to_ndarray(format="bgr24"), index, float(frame.time), path.name)


@cache
def heads(media: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Heads of 15 people, 110 px wide faces, and the box of the face in each."""
    found = []
    with ImageFaceDetector() as detector:
        for name in PICTURES:
            picture = cv2.imread(str(media / name))
            for box in detector.detect(picture).xyxy:
                width = box[2] - box[0]
                center = (box[:2] + box[2:]) / 2
                scale = 110 / width
                side = round(width * 2.0)
                corner = (center - side / 2).round().astype(int)
                padded = cv2.copyMakeBorder(picture, side, side, side, side, cv2.BORDER_REPLICATE)
                x, y = (corner + side).tolist()
                head = cv2.resize(padded[y : y + side, x : x + side], (220, 220), interpolation=cv2.INTER_AREA)
                found.append((head, (box - np.tile(corner, 2)) * scale))
    return found


def moving(media: Path, seed: int, people: int = 4, seconds: float = 24.0) -> Iterator[tuple[Frame, Truth]]:
    """Faces that walk through a picture, pass each other, leave it and come back 2 to 10 s later, under changing light.

    Args:
        media: Folder of the pictures.
        seed: Chooses people, paths and light.
        people: Number of people.
        seconds: Length.
    """
    rng = np.random.default_rng(seed)
    cast = [heads(media)[k] for k in rng.permutation(len(heads(media)))[:people]]
    width, height = 1000, 420
    background = rng.integers(60, 140, (7, 16, 3)).astype(np.uint8)
    background = cv2.resize(background, (width, height), interpolation=cv2.INTER_CUBIC)
    side = 220
    paths = []
    for _ in range(people):  # in, across, out; then in again from the other side
        times, places, t = [], [], float(rng.uniform(0, 3))
        left = bool(rng.random() < 0.5)
        while t < seconds:
            duration = float(rng.uniform(4, 7))
            times += [t, t + duration]
            places += [-side, width] if left else [width, -side]
            t += duration + float(rng.uniform(2, 10))
            left = not left if rng.random() < 0.7 else left
        paths.append((times, places, int(rng.integers(0, height - side)), float(rng.uniform(0, 6))))
    spare = 64  # px by which the noise moves at most: to draw it anew for every frame would take most of the time
    noise = np.floor(rng.normal(0, 3, (height + spare, width + spare, 3))).astype(np.int16)
    for index in range(int(seconds * FPS)):
        t = index / FPS
        image = background.copy()
        truth: Truth = []
        covered = np.zeros((height, width), np.int64)
        for person, ((head, face), (times, places, y, phase)) in enumerate(zip(cast, paths, strict=True), 1):
            x = round(float(np.interp(t, times, places)))
            top = y + round(6 * np.sin(3 * t + phase))
            x0, x1, y0, y1 = max(x, 0), min(x + side, width), max(top, 0), min(top + side, height)
            if x1 - x0 < 4:
                continue
            angle, size = 4 * np.sin(1.3 * t + phase), 1 + 0.05 * np.sin(0.7 * t + phase)
            turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(angle), float(size))
            turned = cv2.warpAffine(head, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
            light = 1 + 0.12 * np.sin(0.9 * t + 2 * phase)
            mask = np.zeros((side, side), np.uint8)
            cv2.ellipse(mask, (side // 2, side // 2), (int(side * 0.42), int(side * 0.5)), 0, 0, 360, 255, -1)
            part = cv2.convertScaleAbs(turned, alpha=float(light))[y0 - top : y1 - top, x0 - x : x1 - x]
            inside = mask[y0 - top : y1 - top, x0 - x : x1 - x] > 0
            image[y0:y1, x0:x1][inside] = part[inside]
            covered[y0:y1, x0:x1][inside] = person
            truth.append((person, (x + face[0], top + face[1], x + face[2], top + face[3])))
        down, right = rng.integers(0, spare, 2)
        image = cv2.add(image, noise[down : down + height, right : right + width], dtype=cv2.CV_8U)
        visible: Truth = []
        for person, (x0f, y0f, x1f, y1f) in truth:  # only faces that are mostly visible count
            part = covered[max(int(y0f), 0) : max(int(y1f), 0), max(int(x0f), 0) : max(int(x1f), 0)]
            if (part == person).sum() > 0.7 * (x1f - x0f) * (y1f - y0f):
                visible.append((person, (x0f, y0f, x1f, y1f)))
        yield Frame(image, index, t, "moving"), visible
