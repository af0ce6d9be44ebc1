"""Measures the cost of sources and faces: the tables "More sources" and "More faces" of docs/speed.md.

    python tests/load.py [--seconds 20] [--crowd ../shared/media/solvay_1927.jpg] [--only sources|crowd]

Sources: 1, 4 and 16 replays of the demo clip in real time, with one face each, with records and without video.
Crowd: a picture of many people as a clip at 25 frames/s, with only some of the faces visible. Its CPU time includes
all threads and hardly depends on other load.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from clips import DEMO

from leaf_rt.backends.base import Backend
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.types import Frame, SourceInfo


def sources(count: int, seconds: float, backend: Backend) -> str:
    """One row: ``count`` replays at the same time."""

    def pipeline(info: SourceInfo) -> Pipeline:
        return Pipeline(VideoFaceDetector(), FaceTracker(), backend)

    warm = min(5.0, seconds / 4)
    marks: list[tuple[float, ...]] = []
    each: list[list[int]] = []

    def progress(stats: RunStats) -> None:
        if not marks and stats.seconds < warm:
            return
        done = [sum(getattr(s, key) for s in stats.sources) for key in ("captured", "processed", "dropped", "skipped")]
        marks.append((stats.seconds, time.process_time(), *done))
        each.append([s.processed for s in stats.sources])

    targets = [Target(str(DEMO), SourceOptions(realtime=True, loop=True)) for _ in range(count)]
    with tempfile.TemporaryDirectory() as place:
        sink = JsonlSink(Path(place) / "r.jsonl", backend.spec.labels)
        options = RunOptions(duration=seconds)
        stats = run(targets, pipeline, backend, shared=[sink], hooks=Hooks(progress=progress), options=options)
    seconds, spent, captured, processed, dropped, skipped = np.subtract(marks[-1], marks[0]).tolist()
    rate, fewest = processed / seconds, min(np.subtract(each[-1], each[0])) / seconds
    p50 = float(np.median([s.latency.p50 for s in stats.sources])) * 1e3
    p95 = float(np.median([s.latency.p95 for s in stats.sources])) * 1e3
    cpu = spent / seconds
    level = max(s.level for s in stats.sources)
    return (
        f"| {count} | {rate / count:.1f} | {fewest:.1f} | {rate:.0f} | {p50:.0f} / {p95:.0f} |"
        f" {100 * dropped / max(captured, 1):.0f} % | {100 * skipped / max(captured, 1):.0f} % |"
        f" {100 * cpu:.0f} % | {1e3 * cpu / rate:.1f} | {level} |"
    )


def crowd(picture: np.ndarray, count: int, backend: Backend, frames: int = 225) -> str:
    """One row: a picture with ``count`` visible faces."""
    with ImageFaceDetector() as detector:
        boxes = detector.detect(picture).xyxy
    image = picture.copy()
    size = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for x0, y0, x1, y1 in boxes[np.argsort(-size)[count:]]:
        pad = 0.3 * (x1 - x0)
        cv2.rectangle(image, (int(x0 - pad), int(y0 - pad)), (int(x1 + pad), int(y1 + pad)), (90, 90, 90), -1)
    pipeline = Pipeline(VideoFaceDetector(), FaceTracker(), backend)
    costs, cpu, seen, classified = [], [], [], []
    for index in range(frames):
        begin = time.perf_counter(), time.process_time()
        estimates = pipeline.step(Frame(image, index, index / 25, "crowd"))
        costs.append(1e3 * (time.perf_counter() - begin[0]))
        cpu.append(1e3 * (time.process_time() - begin[1]))
        seen.append(len(estimates))
        classified.append(int(estimates.classified.sum()))
    pipeline.close()
    late = slice(frames // 3, None)
    rate = 25 * np.mean(classified[late]) / count
    return (
        f"| {count} | {int(np.median(seen[late]))} | {rate:.1f} | {np.mean(cpu[late]):.1f} |"
        f" {np.median(costs[late]):.1f} | {np.percentile(costs[late], 95):.1f} |"
    )


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--crowd", type=Path, default=Path("../shared/media/solvay_1927.jpg"))
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--only", choices=("sources", "crowd"))
    given = parser.parse_args()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    backend = open_backend(DEFAULT_MODEL)
    lines = [f"{os.cpu_count()} cores, load before: {load}; {backend.reason}"]
    if given.only != "crowd":
        lines += [
            "",
            "| sources | frames/s each | the least | frames/s | latency p50 / p95, ms | dropped | not decoded | CPU |"
            " ms CPU per frame | level |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [sources(count, given.seconds, backend) for count in given.counts]
    picture = cv2.imread(str(given.crowd)) if given.only != "sources" else None
    if picture is not None:
        lines += [
            "",
            "| faces in the picture | faces reported | answers/s per face | CPU ms per frame | wall ms p50 | p95 |",
            "|---|---|---|---|---|---|",
        ]
        lines += [crowd(picture, count, backend) for count in (1, 4, 16, 29)]
    backend.close()
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
