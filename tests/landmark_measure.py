"""Compares ``--landmarks`` with MediaPipe's own Face Landmarker on real faces, and times it.

    PYTHONPATH=tests:. python tests/landmark_measure.py face_landmarker.task ../shared/media

MediaPipe sends usage statistics at this; the option itself does not import it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from clips import demo_frames

from leaf_rt.faces.detectors import choose_detector
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.landmarks import FaceLandmarker
from leaf_rt.labels import BLENDSHAPES
from leaf_rt.system.native_stderr import suppress_native_stderr
from leaf_rt.types import Detections

PICTURES = ("neutral.jpeg", "surprised.jpeg", "angry.jpg", "sad-baby.jpeg", "happy-baby.jpeg")


def pictures(media: Path) -> list[np.ndarray]:
    """Four frames of the demo clip and five pictures with one face each, 360 px high."""
    frames = demo_frames(150)
    images = [cv2.resize(frames[k], (640, 360)) for k in (0, 60, 120, 149)]
    for name in PICTURES:
        picture = cv2.imread(str(media / name))
        images.append(cv2.resize(picture, None, fx=360 / len(picture), fy=360 / len(picture)))
    return images


def mediapipe_finds(task: Path, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Landmarks in px, blendshapes and angles of the first face of each picture, by MediaPipe's own package."""
    import mediapipe
    from mediapipe.tasks.python import vision

    options = vision.FaceLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=task.read_bytes()),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    found = []
    with suppress_native_stderr(), vision.FaceLandmarker.create_from_options(options) as landmarker:
        for image in images:
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            answer = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb))
            height, width = image.shape[:2]
            points = np.array([(p.x * width, p.y * height) for p in answer.face_landmarks[0]])
            shapes = [shape.score for shape in answer.face_blendshapes[0] if shape.category_name != "_neutral"]
            assert tuple(s.category_name for s in answer.face_blendshapes[0][1:]) == BLENDSHAPES
            (x, y, z) = np.asarray(answer.facial_transformation_matrixes[0])[:3, :3]  # y up, z to the camera
            angles = [math.atan2(x[2], z[2]), math.asin(y[2]), math.atan2(-y[0], y[1])]
            found.append((points, np.array(shapes), np.degrees(angles)))
    return found


def first_faces(found: Sequence[Detections]) -> list[Detections]:
    """The most certain face of each picture."""
    return [faces[[int(faces.confidence.argmax())]] for faces in found]


def differences(
    landmarker: FaceLandmarker,
    images: Sequence[np.ndarray],
    faces: Sequence[Detections],
    wanted: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Largest differences from MediaPipe for each picture, (N, 3): landmarks in px, blendshapes, angles in degrees."""
    rows = []
    for image, face, (points, shapes, angles) in zip(images, faces, wanted, strict=True):
        found = landmarker.measure(image, face.xyxy, face.keypoints)
        pairs = (found.points[0, :, :2], points), (found.blendshapes[0], shapes), (found.pose[0], angles)
        rows.append([float(np.abs(ours - theirs).max()) for ours, theirs in pairs])
    return np.array(rows)


def main() -> None:
    """Print the differences with MediaPipe's box of the face and with ours, and the time for a face."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("media", type=Path)
    given = parser.parse_args()
    images = pictures(given.media)
    wanted = mediapipe_finds(given.task, images)
    with ImageFaceDetector() as detector:
        ours = first_faces([detector.detect(image) for image in images])
    theirs = first_faces(choose_detector("onnxruntime").open("short", 0.5).find(images))
    landmarker = FaceLandmarker(given.task)
    for name, faces in (("box of MediaPipe", theirs), ("our box", ours)):
        found = differences(landmarker, images, faces, wanted)
        for k, what in enumerate(("landmarks, px", "blendshapes", "pose, degrees")):
            mean, worst = found[:, k].mean(), found[:, k].max()
            print(f"{name}, {what}: mean of the largest {mean:.3f}, largest {worst:.3f}")  # noqa: T201
    times = []
    for _ in range(20):
        start = time.perf_counter()
        landmarker.measure(images[0], ours[0].xyxy, ours[0].keypoints)
        times.append(time.perf_counter() - start)
    print(f"{1000 * float(np.median(times)):.1f} ms per face", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
