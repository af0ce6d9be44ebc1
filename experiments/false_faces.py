"""Counts the faces that lose their label because they look like no face, and the false faces that get one.

    python -m experiments.false_faces ../shared/media --photographs ../shared/data/webfaces --sheet refused.png

Faces: everything that the runtime finds in the pictures and in all frames of the clips of a folder, and the largest
face of photographs in ``images.zip``. The share that is refused is an upper bound of the faces that are lost; the sheet
shows them, because some are no faces.

False faces: what the runtime finds in random parts of the pictures that show at most a tenth of a face, such as sky,
hair, hands and clothes. The score was fitted on the pictures and clips of ``../shared/media``, so count them in
other pictures too.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import typer

from engines.false_faces import pictures_of
from leaf_rt.backends.base import Backend
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.models.calibration import Calibration
from leaf_rt.recognition.config import PipelineOptions, RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.recognition.images import find_faces, judge
from leaf_rt.types import F32, U8, Detections, Frame

CLIPS = (".mp4", ".mov")
PICTURES = (".jpg", ".jpeg", ".png")
LEAST = 40  # px, longer side of a face that counts
TILE, COLUMNS = 96, 14  # of the sheet
SMALLEST_PART = 40  # px
LARGEST_PART = 0.7  # of the shorter side of the picture
SHARED = 0.1  # share of a face that a part may show


class Sheet:
    """Collects crops, to be looked at."""

    def __init__(self) -> None:
        self.tiles: list[U8] = []

    def add(self, crops: U8) -> None:
        """Add (N, S, S, 3) uint8 BGR."""
        self.tiles += [np.asarray(cv2.resize(crop, (TILE, TILE)), np.uint8) for crop in crops]

    def write(self, path: Path) -> None:
        """Write the file, if there is anything to show."""
        if self.tiles:
            empty = np.zeros((TILE, TILE, 3), np.uint8)
            tiles = [*self.tiles, *[empty] * (-len(self.tiles) % COLUMNS)]
            rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
            cv2.imwrite(str(path), np.vstack(rows))


def sides(xyxy: F32) -> F32:
    """Longer sides of boxes (N, 4), px."""
    return np.asarray((xyxy[:, 2:] - xyxy[:, :2]).max(axis=1, initial=0.0), np.float32)


def in_picture(image: U8, found: Detections, backend: Backend, sheet: Sheet) -> tuple[int, int]:
    """Faces of at least ``LEAST`` px in a picture, and how many of them are refused."""
    found = found[sides(found.xyxy) >= LEAST]
    crops = crop_faces(image, found.keypoints, backend.spec.side, backend.spec.margin)
    refused = judge(backend, crops, found.confidence)[2] == 0
    sheet.add(crops[refused])
    return len(found), int(refused.sum())


def in_clip(path: Path, backend: Backend, sheet: Sheet) -> tuple[int, int]:
    """The same for all classified faces of all frames of a clip."""
    import av

    options = PipelineOptions(classify_fps=0.0)
    pipeline = build_pipeline(RecognitionConfig(pipeline=options, max_classify_fps=0.0), backend)
    seen = refused = 0
    try:
        with av.open(str(path)) as container:
            for number, picture in enumerate(container.decode(video=0)):
                image = np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)
                pending = pipeline.prepare(Frame(image, number, float(picture.time or 0.0), "clip"))
                faces = pipeline.finish(pending, backend.infer(pending.crops))
                large = faces.classified & (sides(faces.xyxy) >= LEAST)
                seen += int(large.sum())
                lost = faces.track_id[large & (faces.quality == 0)]
                refused += len(lost)
                sheet.add(pending.crops[np.isin(pending.tracks.track_id[pending.rows], lost)])
    finally:
        pipeline.close()
    return seen, refused


def in_archive(
    folder: Path, every: int, detector: ImageFaceDetector, backend: Backend, sheet: Sheet
) -> tuple[int, int]:
    """The same for the largest face of every such photograph in ``images.zip``."""
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(folder / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in PICTURES)
        for name in names[::every]:
            picture = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            image = np.asarray(picture, np.uint8)
            found = find_faces(image, detector)
            if len(found):
                seen, refused = in_picture(image, found[[int(sides(found.xyxy).argmax())]], backend, sheet)
                counts.update(seen=seen, refused=refused)
    return counts["seen"], counts["refused"]


def parts_without_a_face(path: Path, count: int, detector: ImageFaceDetector) -> Iterator[U8]:
    """Random square parts of a picture, or of some frames of a clip; the same in every run."""
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    images = list(pictures_of(path))
    for image in images:
        faces, (height, width) = detector.detect(image).xyxy, image.shape[:2]
        for _ in range(-(-count // len(images))):
            largest = max(SMALLEST_PART + 1, int(LARGEST_PART * min(height, width)))
            edge = int(random.integers(SMALLEST_PART, largest))
            x, y = int(random.integers(0, max(1, width - edge))), int(random.integers(0, max(1, height - edge)))
            part = np.array([x, y, x + edge, y + edge])
            common = np.clip(np.minimum(faces[:, 2:], part[2:]) - np.maximum(faces[:, :2], part[:2]), 0, None)
            if (common.prod(axis=1) <= SHARED * (faces[:, 2:] - faces[:, :2]).prod(axis=1)).all():
                yield np.ascontiguousarray(image[y : y + edge, x : x + edge])


def false_faces(folder: Path, count: int, detector: ImageFaceDetector, backend: Backend, sheet: Sheet) -> Counter[str]:
    """Look for faces where there are none; count what is found and what gets a label."""
    counts = Counter(dict.fromkeys(("parts", "found", "labelled without the score", "labelled", "refused"), 0))
    least = Calibration.of(backend.spec).uncertain_below
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (*PICTURES, *CLIPS):
            continue
        for part in parts_without_a_face(path, count, detector):
            found = find_faces(part, detector)
            crops = crop_faces(part, found.keypoints, backend.spec.side, backend.spec.margin)
            ungated = judge(backend, crops)[0].max(axis=1, initial=0.0) >= least
            _, labels, quality = judge(backend, crops, found.confidence)
            counts.update(parts=1, found=len(found), refused=int((quality == 0).sum()))
            counts.update({"labelled without the score": int(ungated.sum()), "labelled": int((labels >= 0).sum())})
            sheet.add(crops[labels >= 0])
    return counts


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of pictures and clips")
    parser.add_argument("--photographs", type=Path, help="folder with images.zip: photographs that show a face each")
    parser.add_argument("--every", type=int, default=6, help="of the photographs")
    parser.add_argument("--parts", type=int, default=60, help="of each picture or clip, to look for false faces")
    parser.add_argument("--sheet", type=Path, help="PNG of the refused faces, then of the false faces with a label")
    args = parser.parse_args()
    backend, sheet = open_backend(RecognitionConfig().model, "onnxruntime", 1), Sheet()
    total: Counter[str] = Counter()
    with ImageFaceDetector() as detector:
        for path in sorted(args.folder.iterdir()):
            if path.suffix.lower() in CLIPS:
                seen, refused = in_clip(path, backend, sheet)
            elif path.suffix.lower() in PICTURES:
                image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
                seen, refused = in_picture(image, find_faces(image, detector), backend, sheet)
            else:
                continue
            total.update(seen=seen, refused=refused)
            typer.echo(f"{path.name}: {seen} faces of {LEAST} px and more, {refused} refused")
        typer.echo(f"all: {total['seen']} faces, {total['refused']} refused")
        if args.photographs is not None:
            seen, refused = in_archive(args.photographs, args.every, detector, backend, sheet)
            typer.echo(f"photographs: {seen} faces, {refused} refused")
        false = false_faces(args.folder, args.parts, detector, backend, sheet)
        typer.echo("false faces: " + ", ".join(f"{name} {number}" for name, number in false.items()))
    if args.sheet is not None:
        sheet.write(args.sheet)
    backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
