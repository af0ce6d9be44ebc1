"""Measures how well descriptions of faces tell people apart, on pictures of people with names.

    python -m experiments.face_descriptions ../shared/data/webfaces [--reid-model face.onnx]

Every pair of pictures is compared. People with names from A to M choose the threshold of a description, at a given
share of wrong matches (FMR); the others are measured with it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.appearance import describe, difference
from leaf_rt.faces.encoder import FaceEncoder
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.people import MAX_DIFFERENCE, MIN_SIMILARITY
from leaf_rt.types import F32

BORDER = 20  # px around each picture, because the faces fill them
PER_PERSON = 4  # pictures
RATES = (1e-3, 1e-4)  # FMR


def read_faces(folder: Path, backend: Backend, encoder: FaceEncoder | None) -> tuple[list[str], dict[str, F32], float]:
    """Describe the largest face of up to four pictures of everybody who has two.

    Returns:
        The N names, the descriptions (N, D) by their names, and the seconds that the encoder took per face.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(folder / "images.zip") as archive, ImageFaceDetector(range="short") as detector:
        for path in sorted(archive.namelist()):
            if match := re.match(r".*/(.*)_\d{4}\.jpg", path):
                by_name[match.group(1)].append(path)
        names: list[str] = []
        found: dict[str, list[F32]] = defaultdict(list)
        spent = []
        for name, paths in sorted(by_name.items()):
            for path in paths[:PER_PERSON] if len(paths) > 1 else []:
                picture = cv2.imdecode(np.frombuffer(archive.read(path), np.uint8), cv2.IMREAD_COLOR)
                image = np.pad(np.asarray(picture, np.uint8), ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), "edge")
                faces = detector.detect(image)
                if len(faces) == 0:
                    continue
                face = faces[[int((faces.xyxy[:, 2] - faces.xyxy[:, 0]).argmax())]]
                names.append(name)
                crops = crop_faces(image, face.keypoints, backend.spec.side, backend.spec.margin)
                features = backend.infer(crops).features
                if features is not None:
                    found["features of the expression network"].append(features[0])
                found["colors of the head"].append(describe(image, face.xyxy)[0])
                if encoder is not None:
                    start = time.perf_counter()
                    found["face-recognition network"].append(encoder.encode(image, face.keypoints)[0])
                    spent.append(time.perf_counter() - start)
    return names, {k: np.array(v, np.float32) for k, v in found.items()}, float(np.median(spent)) if spent else 0.0


def angle(a: F32, b: F32) -> F32:
    """Return 1 - cosine of every pair, (N, M)."""
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9) for v in (a, b))
    return np.asarray(1.0 - a @ b.T, np.float32)


def pairs(vectors: F32, people: np.ndarray, distance: Callable[[F32, F32], F32]) -> tuple[F32, F32]:
    """Return the sorted distances of all pairs of the same person, and of different people."""
    same, other = [], []
    for k in range(len(vectors) - 1):
        found = distance(vectors[k : k + 1], vectors[k + 1 :])[0]
        alike = people[k + 1 :] == people[k]
        same.append(found[alike])
        other.append(found[~alike])
    return np.sort(np.concatenate(same)), np.sort(np.concatenate(other))


def share(values: F32, threshold: float) -> float:
    """Return the share of sorted values that are at most the threshold."""
    return int(np.searchsorted(values, threshold, side="right")) / len(values)


def report(name: str, same: tuple[F32, F32], other: tuple[F32, F32], in_use: float | None) -> list[str]:
    """Return the lines on one description. Each pair of arrays is of the people A to M, and N to Z."""
    below = np.searchsorted(same[1], other[1], side="left") + np.searchsorted(same[1], other[1], side="right")
    auc = float(below.mean()) / (2 * len(same[1]))
    lines = [f"{name}: {len(same[1])} pairs of the same person, {len(other[1])} of others; AUC {auc:.3f}"]
    for rate in RATES:
        limit = float(other[0][int(rate * len(other[0]))])
        lines.append(f"  chosen on A to M for FMR {rate:g}: {limit:.3f}")
        lines.append(f"    on N to Z: FMR {share(other[1], limit):.1e}, accepted {share(same[1], limit):.3f}")
    if in_use is not None:
        rates = ", ".join(
            f"FMR {share(o, in_use):.1e}, accepted {share(s, in_use):.3f}" for s, o in zip(same, other, strict=True)
        )
        lines.append(f"  in use: {in_use:.3f}; A to M and N to Z: {rates}")
    return lines


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reid-model", type=Path)
    given = parser.parse_args()
    encoder = FaceEncoder(given.reid_model) if given.reid_model is not None else None
    backend = RecognitionConfig(backend="onnxruntime").open_backend()
    try:
        names, descriptions, seconds = read_faces(given.folder, backend, encoder)
    finally:
        backend.close()
    numbers = {name: k for k, name in enumerate(sorted(set(names)))}
    people = np.array([numbers[name] for name in names])
    early = np.array([name[0].upper() <= "M" for name in names])
    lines = [f"{len(names)} pictures of {len(numbers)} people; {len(set(people[early]))} of them A to M"]
    for name, vectors in descriptions.items():
        heads = name == "colors of the head"
        distance = difference if heads else angle
        halves = [pairs(vectors[half], people[half], distance) for half in (early, ~early)]
        limit = MAX_DIFFERENCE if heads else 1.0 - MIN_SIMILARITY if "recognition" in name else None
        lines += report(name, (halves[0][0], halves[1][0]), (halves[0][1], halves[1][1]), limit)
    if encoder is not None:
        lines.append(f"face-recognition network: {1000 * seconds:.1f} ms per face (median)")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
