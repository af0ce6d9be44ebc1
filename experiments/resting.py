"""Measures ``--calibrate`` on clips that are joined from photographs of one person each.

    python -m experiments.resting ../shared/data/webfaces --people 100

A clip shows a neutral photograph of somebody for some seconds, as the face at rest, and then other photographs of the
same person, with labels. The eyes stay at one place, so that the whole clip is one track. It runs through the detector,
the tracker, the network and the smoothing of a video, with and without ``--calibrate``. People whose pictures chose the
settings of ``leaf_rt.recognition.resting`` are counted apart from the others.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import zipfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import typer

from leaf_rt.backends.base import Backend
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.alignment import MOUTH, similarity
from leaf_rt.faces.encoder import TEMPLATE
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.recognition.images import find_faces
from leaf_rt.types import U8, Frame

SIDE = 256  # px, of the clips
FPS = 5
FADE = 1.0  # s, from one photograph to the next; with a hard change, the tracker takes it for somebody else
SHOWN = 1.5  # s, for which each photograph after the first stays; its last label counts
AT_REST, MOVED = "neutral", "other expression"
MOST = {AT_REST: 3, MOVED: 2}  # photographs of one person after the first


def people_of(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Name to the pictures, as (path, label), of everybody with two neutral pictures, in the order of the file."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            if match := re.fullmatch(r"(?:.*/)?(.+)_\d{4}\.jpg", row["path"]):
                found[match[1]].append((row["path"], row["label"]))
    return {name: rows for name, rows in sorted(found.items()) if _neutral(rows) >= 2}


def chose_the_settings(rows: list[tuple[str, str]]) -> bool:
    """Whether the settings of ``leaf_rt.recognition.resting`` were chosen on somebody with these pictures."""
    return len(rows) >= 4 and _neutral(rows) >= 3


def _neutral(rows: list[tuple[str, str]]) -> int:
    return sum(label == "neutral" for _, label in rows)


def photographs(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first neutral picture, and those that follow it in the clip."""
    first = next(row for row in rows if row[1] == "neutral")
    left, chosen = Counter(MOST), [first]
    for row in rows:
        kind = AT_REST if row[1] == "neutral" else MOVED
        if row is not first and left[kind] > 0:
            left[kind] -= 1
            chosen.append(row)
    return chosen


def framed(image: U8, detector: ImageFaceDetector) -> U8 | None:
    """The largest face of a picture in the middle of a frame, (SIDE, SIDE, 3) uint8 BGR; None without a face."""
    found = find_faces(image, detector)
    if not len(found):
        return None
    best = int((found.xyxy[:, 2] - found.xyxy[:, 0]).argmax())
    template = TEMPLATE + np.float32((SIDE - 112) / 2)
    (matrix,) = similarity(np.ascontiguousarray(found.keypoints[[best], : MOUTH + 1]), template)
    if not np.isfinite(matrix).all():
        return None
    frame = cv2.warpAffine(image, matrix.astype(np.float64), (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(frame, np.uint8)


def watch(stills: list[U8], seconds: float, config: RecognitionConfig, backend: Backend) -> list[list[tuple[int, int]]]:
    """Without and with ``--calibrate``: label and track of each still but the first, at its end.

    The label -1 is "uncertain", -2 no face. Both see the same detections and the same answers of the network.
    """
    pipelines = [build_pipeline(chosen, backend) for chosen in (config, replace(config, calibrate=seconds))]
    shown: list[list[tuple[int, int]]] = [[], []]
    number, steps = 0, round(FPS * FADE)
    try:
        for k, still in enumerate(stills):
            shares = [i / steps for i in range(steps if k else 0)]
            fade = [cv2.addWeighted(stills[k - 1], 1 - share, still, share, 0) for share in shares]
            for image in [*fade, *[still] * round(FPS * (SHOWN if k else seconds + 1.0))]:
                found = pipelines[0].detect(Frame(np.asarray(image, np.uint8), number, number / FPS, "clip"))
                pending = [pipeline.plan(found) for pipeline in pipelines]
                answer = backend.infer(pending[0].crops)
                faces = [p.finish(waiting, answer) for p, waiting in zip(pipelines, pending, strict=True)]
                number += 1
            if k:
                for labels, last in zip(shown, faces, strict=True):
                    labels.append((int(last.emotion[0]), int(last.track_id[0])) if len(last) else (-2, 0))
    finally:
        for pipeline in pipelines:
            pipeline.close()
    return shown


def main() -> int:
    """Print the shares of wrong labels of both groups of people."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="images.zip and labels.csv, files named NAME_NNNN.jpg")
    parser.add_argument("--people", type=int, default=100, help="of each group, evenly spaced by name")
    parser.add_argument("--seconds", type=float, default=3.0, help="of --calibrate")
    args = parser.parse_args()
    config = RecognitionConfig(threads=1, range="short", cuts=False)
    backend = open_backend(config.model, "onnxruntime", 1)
    labels = backend.spec.labels
    groups: dict[str, list[list[tuple[str, str]]]] = {"others": [], "chose the settings": []}
    for rows in people_of(args.folder).values():
        groups["chose the settings" if chose_the_settings(rows) else "others"].append(rows)
    with zipfile.ZipFile(args.folder / "images.zip") as archive, ImageFaceDetector() as detector:
        for group, everybody in groups.items():
            step = np.linspace(0, len(everybody) - 1, min(args.people, len(everybody))).round().astype(int)
            counts: Counter[tuple[str, str, str]] = Counter()
            watched = 0
            for rows in (everybody[i] for i in step):
                stills: list[U8] = []
                truth: list[int] = []
                for path, label in photographs(rows):
                    picture = cv2.imdecode(np.frombuffer(archive.read(path), np.uint8), cv2.IMREAD_COLOR)
                    frame = framed(np.asarray(picture, np.uint8), detector)
                    if frame is None and not stills:
                        break
                    if frame is not None:
                        stills.append(frame)
                        truth.append(labels.index(label))
                if len(stills) < 2:
                    continue
                watched += 1
                shown = watch(stills, args.seconds, config, backend)
                for name, answers in zip(("without", "with"), shown, strict=True):
                    for (answer, track), wanted in zip(answers, truth[1:], strict=True):
                        kind = AT_REST if labels[wanted] == "neutral" else MOVED
                        counts[kind, name, "pictures"] += 1
                        counts[kind, name, "wrong"] += answer not in (wanted, -1, -2)
                        counts[kind, name, "uncertain"] += answer in (-1, -2)
                        counts[kind, name, "other track"] += track != 1
            typer.echo(f"{group}: {watched} people, --calibrate {args.seconds:g}")
            for kind in MOST:
                n = counts[kind, "without", "pictures"]
                for name in ("without", "with"):
                    wrong, unsure, lost = (counts[kind, name, k] for k in ("wrong", "uncertain", "other track"))
                    share = f"{wrong} of {n} wrong ({100 * wrong / max(n, 1):.1f} %)"
                    typer.echo(f"  {kind}, {name}: {share}, {unsure} uncertain, {lost} in another track")
    backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
