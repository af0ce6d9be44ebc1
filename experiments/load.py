"""Measures what one more source and one more face cost, and whether memory stays flat over an hour of video.

    python -m experiments.load sources [--counts 1,2,4,8,16,24,32] [--seconds 20] [--plot docs/images/load-sources.svg]
    python -m experiments.load faces PICTURE [--counts 1,2,4,8,16,32,64] [--plot docs/images/load-faces.svg]
    python -m experiments.load memory [--minutes 60] [--plot docs/images/load-memory.svg]

``sources`` plays the demo clip side by side, each copy at its own speed, with records and without video, and ends each
run with SIGINT. ``faces`` makes a clip of a picture of many people, repeated until it has enough of them, in which only
some are visible. ``memory`` reads the demo clip over and over, as a file; Ctrl-C ends it early. Each prints a table
and a line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leaf_rt.backends.base import Backend
from leaf_rt.diagnostics.bench import DEMO
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import RunStats
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import U8, Estimates, Frame, SourceInfo

FPS = 25
Row = dict[str, float]


def busy() -> float:
    """CPU time that all processes of this machine have used, s: other work spoils a measurement, so it is stated."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    return float((user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK"))


def sources(count: int, seconds: float, backend: Backend) -> Row:
    """Play ``count`` copies of the demo clip at the same time, and end the run as a user does."""
    config = RecognitionConfig()
    marks: list[tuple[float, ...]] = []
    each: list[list[int]] = []
    stopped: list[float] = []

    def progress(stats: RunStats) -> None:
        if stopped or (not marks and stats.seconds < seconds / 4):  # the first seconds load and adapt
            return
        done = [sum(getattr(s, key) for s in stats.sources) for key in ("captured", "processed", "dropped", "skipped")]
        marks.append((stats.seconds, time.process_time(), busy(), *done))
        each.append([s.processed for s in stats.sources])

    def interrupt() -> None:
        stopped.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    targets = [Target(str(DEMO), SourceOptions(realtime=True, loop=True)) for _ in range(count)]
    timer = threading.Timer(seconds, interrupt)
    with tempfile.TemporaryDirectory() as place:
        sink = JsonlSink(Path(place) / "r.jsonl", backend.spec.labels)
        timer.start()
        try:
            stats = run(
                targets,
                lambda info: build_pipeline(config, backend),
                backend,
                shared=[sink],
                hooks=Hooks(progress=progress),
            )
        finally:
            timer.cancel()
        ended = time.monotonic()
    wall, cpu, used, captured, processed, dropped, skipped = np.subtract(marks[-1], marks[0]).tolist()
    rates = np.subtract(each[-1], each[0]) / wall
    return {
        "sources": count,
        "records/s": round(processed / wall, 1),
        "of one source, least": round(float(rates.min()), 1),
        "most": round(float(rates.max()), 1),
        "latency p50, ms": round(float(np.median([s.latency.p50 for s in stats.sources])) * 1e3),
        "p95, ms": round(float(max(s.latency.p95 for s in stats.sources)) * 1e3),
        "dropped, %": round(100 * dropped / max(captured, 1)),
        "not decoded, %": round(100 * skipped / max(captured, 1)),
        "CPU, %": round(100 * cpu / wall),
        "CPU of others, %": round(100 * max(used - cpu, 0.0) / wall),
        "CPU ms per record": round(1e3 * cpu / max(processed, 1), 1),
        "load level": max(s.level for s in stats.sources),
        "end after SIGINT, s": round(ended - stopped[0], 2),
    }


def crowd(picture: U8, count: int) -> tuple[U8, Any]:
    """Repeat a picture until it shows ``count`` faces; returns it with the boxes of its faces."""
    with ImageFaceDetector() as detector:
        boxes = detector.detect(picture).xyxy
        if not len(boxes):
            raise SystemExit("faces: the picture shows no face; give one that shows many")
        picture = np.vstack([picture] * -(-count // len(boxes)))
        return picture, detector.detect(picture).xyxy


def faces(picture: U8, boxes: Any, count: int, backend: Backend, frames: int = 225) -> Row:
    """Play a picture of which ``count`` faces are visible."""
    image = picture.copy()
    size = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for x0, y0, x1, y1 in boxes[np.argsort(-size)[count:]]:
        pad = 0.3 * (x1 - x0)
        cv2.rectangle(image, (int(x0 - pad), int(y0 - pad)), (int(x1 + pad), int(y1 + pad)), (90, 90, 90), -1)
    steps = build_pipeline(RecognitionConfig(), backend)
    costs, cpu, seen, classified = [], [], [], []
    for index in range(frames):
        begin = time.perf_counter(), time.process_time()
        estimates = steps.step(Frame(image, index, index / FPS, "crowd"))
        costs.append(1e3 * (time.perf_counter() - begin[0]))
        cpu.append(1e3 * (time.process_time() - begin[1]))
        seen.append(len(estimates))
        classified.append(int(estimates.classified.sum()))
    steps.close()
    late = slice(frames // 3, None)
    return {
        "faces": count,
        "reported": int(np.median(seen[late])),
        "classifications/s per face": round(FPS * float(np.mean(classified[late])) / count, 1),
        "CPU ms per frame": round(float(np.mean(cpu[late])), 1),
        "time p50, ms": round(float(np.median(costs[late])), 1),
        "p95, ms": round(float(np.percentile(costs[late], 95)), 1),
    }


def memory(minutes: float, backend: Backend, points: int = 30) -> list[Row]:
    """Read the demo clip over and over, and note the memory of this process at equal steps of media time."""
    rows: list[Row] = []
    stop = StopSignal()

    def look(info: SourceInfo, frame: Frame, estimates: Estimates) -> None:
        if frame.timestamp >= len(rows) * 60 * minutes / points:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            megabytes = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
            rows.append({"minutes of video": round(frame.timestamp / 60, 2), "memory, MB": megabytes})
        if frame.timestamp >= 60 * minutes:
            stop.set()

    with tempfile.TemporaryDirectory() as place, contextlib.suppress(KeyboardInterrupt):
        sink = JsonlSink(Path(place) / "r.jsonl", backend.spec.labels)
        config = RecognitionConfig()
        run(
            [Target(str(DEMO), SourceOptions(loop=True))],
            lambda info: build_pipeline(config, backend),
            backend,
            shared=[sink],
            hooks=Hooks(frame=look),
            options=RunOptions(handle_signals=False),
            stop=stop,
        )
    return rows


def growth(rows: Sequence[Row]) -> float:
    """Growth of memory in MB per hour of video, without the first quarter, in which caches fill."""
    late = rows[len(rows) // 4 :]
    slope, _ = np.polyfit([row["minutes of video"] for row in late], [row["memory, MB"] for row in late], 1)
    return 60 * float(slope)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [" | ".join(rows[0]), "|".join(["---"] * len(rows[0]))]
    lines += [" | ".join(f"{value:g}" for value in row.values()) for row in rows]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def plot(path: Path, rows: Sequence[Row], panels: Sequence[str]) -> None:
    """Draw columns of a table over its first one, a panel for each, as SVG or PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    first = next(iter(rows[0]))
    with mpl.rc_context({"svg.hashsalt": "leaf-rt", "font.size": 9}):
        figure = Figure(figsize=(3.4 * len(panels), 2.8), layout="constrained")
        for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            axes.plot([row[first] for row in rows], [row[name] for row in rows], marker="o", color="#20638f")
            axes.set(xlabel=first, ylabel=name, ylim=(0, None))
            axes.grid(alpha=0.3)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m experiments.load")
    parser.add_argument("what", choices=("sources", "faces", "memory"))
    parser.add_argument("picture", type=Path, nargs="?", help="for faces: a picture of many people")
    parser.add_argument("--counts", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--seconds", type=float, default=20.0, help="for sources: s per count")
    parser.add_argument("--minutes", type=float, default=60.0, help="for memory: minutes of video")
    parser.add_argument("--plot", type=Path, help="an .svg or .png file")
    given = parser.parse_args(arguments)
    image = None
    if given.what == "faces":
        image = cv2.imread(str(given.picture)) if given.picture is not None else None
        if image is None:
            parser.error("faces: give a picture that can be read")
    backend = RecognitionConfig().open_backend()
    load = os.getloadavg()
    try:
        if given.what == "sources":
            rows = [sources(count, given.seconds, backend) for count in given.counts or (1, 2, 4, 8, 16, 24, 32)]
            panels = ["records/s", "CPU ms per record", "p95, ms"]
        elif image is not None:
            counts = given.counts or (1, 2, 4, 8, 16, 32, 64)
            picture, boxes = crowd(np.asarray(image, np.uint8), max(counts))
            rows = [faces(picture, boxes, count, backend) for count in counts]
            panels = ["CPU ms per frame", "time p50, ms"]
        else:
            rows = memory(given.minutes, backend)
            panels = ["memory, MB"]
    finally:
        backend.close()
    print(table(rows))  # noqa: T201
    facts: dict[str, Any] = {"bench": f"load {given.what}", "cores": os.cpu_count(), "load_before": load, "rows": rows}
    if given.what == "memory":
        facts["growth_mb_per_hour"] = round(growth(rows), 2)
    if given.what == "sources":
        most = max(rows, key=lambda row: row["sources"])
        facts["last_of_best"] = round(most["records/s"] / max(row["records/s"] for row in rows), 3)
    print(json.dumps({**facts, "backend": backend.reason}))  # noqa: T201
    if given.plot is not None:
        plot(given.plot, rows, panels)


if __name__ == "__main__":
    main()
