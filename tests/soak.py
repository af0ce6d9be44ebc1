"""Two cameras for as long as one likes, one of them dropped and restored again and again, through all real parts.

    python tests/soak.py --minutes 30 [--every 60]

Prints one line of JSON: counters, slope of the memory after warm-up, threads and descriptors at both ends.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from clips import demo_frames
from rtsp_server import RtspServer, encode

from leaf_rt.artifact import DEFAULT_MODEL
from leaf_rt.backends.base import open_backend
from leaf_rt.detect import FaceDetector
from leaf_rt.pipeline import Pipeline
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources import SourceOptions, Target
from leaf_rt.stream import Hooks, RunOptions, RunStats, run
from leaf_rt.track import FaceTracker


@dataclass
class Samples:
    """What the process held, once per second."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def take(self, now: float) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.seconds.append(now)
        self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.threads.append(threading.active_count())
        self.descriptors.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))

    def slope(self, warm_up: float) -> float:
        """MB per 10 minutes, least squares, after so many seconds: allocators fill their pools for minutes."""
        t, m = np.array(self.seconds), np.array(self.megabytes)
        kept = t >= warm_up
        return float(np.polyfit(t[kept], m[kept], 1)[0] * 600) if kept.sum() > 2 else 0.0


def soak(folder: Path, seconds: float, every: float, away: float = 3.0) -> dict[str, Any]:
    """Run for ``seconds``; the second camera goes away every ``every`` s, for ``away`` s."""
    units, samples = encode(demo_frames(120)), Samples()
    backend = open_backend(DEFAULT_MODEL)
    begin = time.monotonic()
    over = threading.Event()

    def disturb(server: RtspServer) -> None:
        while not over.wait(every):
            server.refusing = True
            server.drop()
            over.wait(away)
            server.refusing = False

    def progress(stats: RunStats) -> None:
        now = time.monotonic() - begin
        if not samples.seconds or now - samples.seconds[-1] >= 1.0:
            samples.take(now)

    with RtspServer(units) as steady, RtspServer(units) as shaky:
        disturber = threading.Thread(target=disturb, args=(shaky,), daemon=True)
        disturber.start()
        stats = run(
            [Target(steady.url(), SourceOptions(name="steady")), Target(shaky.url(), SourceOptions(name="shaky"))],
            lambda info: Pipeline(FaceDetector(), FaceTracker(), backend),
            backend,
            lambda info: [VideoSink(folder / f"{info.name}.mp4", backend.spec.labels, lambda image, e, labels: image)],
            [JsonlSink(folder / "records.jsonl", backend.spec.labels)],
            Hooks(progress=progress),
            RunOptions(duration=seconds, handle_signals=False),
        )
        over.set()
        disturber.join(away + 5)
    backend.close()
    keys = ("captured", "processed", "dropped", "failed", "reconnects", "stalls")
    held = samples.megabytes
    middle = len(samples.seconds) // 2
    return {
        "seconds": round(stats.seconds, 1),
        "sources": {s.info.name: {key: getattr(s, key) for key in keys} for s in stats.sources},
        "balanced": all(s.captured == s.processed + s.dropped + s.failed for s in stats.sources),
        "latency_p95_ms": {s.info.name: round(s.latency.p95 * 1e3, 1) for s in stats.sources},
        "megabytes": [round(value, 1) for value in (held[0], held[middle], held[-1], max(held))],
        "megabytes_per_10_minutes": round(samples.slope(seconds / 3), 3),
        "threads": [samples.threads[middle], max(samples.threads[-5:])],
        "descriptors": [samples.descriptors[middle], max(samples.descriptors[-5:])],
        "failures": [str(e) for e in stats.failures],
        "records": sum(bool(json.loads(line)) for line in (folder / "records.jsonl").read_bytes().splitlines()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(soak(Path(place), given.minutes * 60, given.every)))  # noqa: T201
