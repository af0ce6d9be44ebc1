"""Runs two cameras for a long time, one of which is lost and restored again and again. Uses all real parts.

    python tests/soak.py --minutes 30 [--every 60] [--gstreamer]

With ``--gstreamer`` the second camera is GStreamer's RTSP server, which is killed and started again.

The cameras run in their own process, so that memory and threads of this process belong to the runtime. Prints one line
of JSON with counters, losses, memory, threads and descriptors, then one line per problem. The exit code is 0 without
problems, else 1. Each loss is printed on stderr when it happens, with its cause.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from clips import demo_frames, frames_in
from gst_camera import GstCamera, long_clip
from rtsp_server import RtspServer, encode

from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.models.spec import DEFAULT_MODEL
from leaf_rt.recognition.pipeline import Pipeline
from leaf_rt.sinks.jsonl import JsonlSink
from leaf_rt.sinks.video import VideoSink
from leaf_rt.sources.base import SourceOptions, Target
from leaf_rt.stream.options import Hooks, RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.stream.stats import Event, RunStats

SLOPE = 1.0  # MB per 10 minutes, after warm-up
LONG_ENOUGH = 600.0  # s; in a shorter run the slope means nothing
SEVERAL_LOSSES = 60.0  # s; in a shorter run there may be no quiet moment to compare with
_MORE = 30.0  # s that the clip of GStreamer's server goes on, so that it never ends before its server is killed
WARM_UP = 1 / 3  # of the run: allocators fill their pools for minutes


def held() -> tuple[float, int, int]:
    """Memory (MB), threads and descriptors of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # without the one of the listing
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threading.active_count(), descriptors


@dataclass
class Samples:
    """Memory, threads and descriptors over time: once per second, more often in short runs."""

    rows: list[tuple[float, float, int, int]] = field(default_factory=list)  # s, MB, threads, descriptors

    def take(self, now: float) -> None:
        self.rows.append((now, *held()))

    def warm(self) -> np.ndarray:
        """The rows after warm-up (N, 4)."""
        rows = np.array(self.rows)
        return rows[rows[:, 0] >= WARM_UP * rows[-1, 0]]

    def slope(self) -> float:
        """MB per 10 minutes, least squares, after warm-up."""
        warm = self.warm()
        return float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0] * 600) if len(warm) > 2 else 0.0

    def floor(self, column: int) -> tuple[int, int]:
        """Minimum in the first and in the last third after warm-up. A leak raises it, a reconnect does not."""
        warm = self.warm()[:, column]
        part = max(len(warm) // 3, 1)
        return int(warm[:part].min()), int(warm[-part:].min())


@dataclass
class Losses:
    """When and why each camera was lost. A failed attempt to reconnect is another row."""

    begin: float  # s, monotonic
    rows: dict[str, list[tuple[float, str]]] = field(default_factory=dict)  # s since the start, reason

    def note(self, event: Event) -> None:
        if event.kind == "lost":
            at = round(time.monotonic() - self.begin, 2)
            self.rows.setdefault(event.source, []).append((at, event.text))
            print(f"{at:8.2f} s  {event.source}: {event.text}", file=sys.stderr, flush=True)  # noqa: T201


def serve(pipe: Connection, every: float, away: float, clip: Path | None) -> None:
    """Serve two cameras until the pipe has a message. The second one stops for ``away`` s every ``every`` s.

    Args:
        pipe: Gets their URLs.
        every: s.
        away: s.
        clip: What GStreamer shows as the second camera; None: that one is ours as well.
    """
    units = encode(demo_frames(120))
    with (
        RtspServer(units) as steady,
        RefusingCamera(units) if clip is None else GstCamera(clip, login="soak:secret", method="digest") as shaky,
    ):
        pipe.send((steady.url(), shaky.url))
        while not pipe.poll(every):
            shaky.kill()
            over = pipe.poll(away)
            shaky.start()
            if over:
                return


class RefusingCamera(contextlib.ExitStack):
    """Our own server with the methods of ``GstCamera``."""

    def __init__(self, units: list[list[bytes]]) -> None:
        super().__init__()
        self._server = self.enter_context(RtspServer(units))
        self.url = self._server.url()

    def start(self) -> None:
        """Take connections again."""
        self._server.refusing = False

    def kill(self) -> None:
        """Close the connections, and take no new ones."""
        self._server.refusing = True
        self._server.drop()


@contextlib.contextmanager
def cameras(every: float, away: float, clip: Path | None) -> Iterator[tuple[str, str]]:
    """Run the cameras in their own process; yields their two URLs. See ``serve``."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, every, away, clip), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise TimeoutError("the cameras did not start within 60 s")
        yield ours.recv()
        ours.send("over")
    finally:
        process.join(away + 10)
        process.kill()
        process.join()
        process.close()
        ours.close()
        theirs.close()


def soak(folder: Path, seconds: float, every: float, away: float = 3.0, *, gstreamer: bool = False) -> dict[str, Any]:
    """Run for ``seconds``. The second camera stops for ``away`` s every ``every`` s; it may be GStreamer's."""
    clip = long_clip(folder, "h264", every + _MORE) if gstreamer else None
    samples = Samples()
    backend = open_backend(DEFAULT_MODEL)
    begin = time.monotonic()
    losses = Losses(begin)

    def progress(stats: RunStats) -> None:
        if all(source.state == "ended" for source in stats.sources):  # closed sinks would hide a leak
            return
        now = time.monotonic() - begin
        if not samples.rows or now - samples.rows[-1][0] >= min(1.0, seconds / 60):
            samples.take(now)

    with cameras(every, away, clip) as (steady, shaky):
        before = held()
        stats = run(
            [Target(steady, SourceOptions(name="steady")), Target(shaky, SourceOptions(name="shaky"))],
            lambda info: Pipeline(VideoFaceDetector(), FaceTracker(), backend),
            backend,
            lambda info: [VideoSink(folder / f"{info.name}.mp4", backend.spec.labels, lambda image, e, labels: image)],
            [JsonlSink(folder / "records.jsonl", backend.spec.labels)],
            Hooks(progress=progress, event=losses.note),
            RunOptions(duration=seconds, handle_signals=False),
        )
        gc.collect()
        after = held()
    backend.close()
    keys = ("captured", "processed", "dropped", "failed", "reconnects", "stalls")
    memory = [row[1] for row in samples.rows]
    result = {
        "seconds": round(stats.seconds, 1),
        "sources": {s.info.name: {key: getattr(s, key) for key in keys} for s in stats.sources},
        "lost": {s.info.name: losses.rows.get(s.info.name, []) for s in stats.sources},
        "sinks": {s.name: {key: getattr(s, key) for key in ("written", "dropped", "failed")} for s in stats.sinks},
        "latency_p95_ms": {s.info.name: round(s.latency.p95 * 1e3, 1) for s in stats.sources},
        "megabytes": [round(value, 1) for value in (memory[0], memory[len(memory) // 2], memory[-1], max(memory))],
        "megabytes_per_10_minutes": round(samples.slope(), 3),
        "threads": {"floor": samples.floor(2), "before": before[1], "after": after[1]},
        "descriptors": {"floor": samples.floor(3), "before": before[2], "after": after[2]},
        "failures": [str(e) for e in stats.failures],
        "records": sum(bool(json.loads(line)) for line in (folder / "records.jsonl").read_bytes().splitlines()),
        "video": {s.info.name: frames_in(folder / f"{s.info.name}.mp4") for s in stats.sources},
    }
    result["wrong"] = verdict(result)
    return result


def verdict(result: dict[str, Any]) -> list[str]:
    """The problems, one line each."""
    wrong = [f"failed: {text}" for text in result["failures"]]
    for name, s in result["sources"].items():
        if s["captured"] != s["processed"] + s["dropped"] + s["failed"]:
            wrong.append(f"{name}: captured {s['captured']} != processed + dropped + failed")
        if s["processed"] == 0:
            wrong.append(f"{name}: gave nothing")
    wrong += [f"steady: lost after {at} s: {why}" for at, why in result["lost"]["steady"]]
    if result["sources"]["shaky"]["reconnects"] == 0:
        wrong.append("shaky: never came back")
    for kind in ("threads", "descriptors"):
        early, late = result[kind]["floor"]
        if result["seconds"] >= SEVERAL_LOSSES and late > early:
            wrong.append(f"{kind}: never under {late} at the end, {early} at the beginning")
        if result[kind]["after"] > result[kind]["before"]:
            wrong.append(f"{kind}: {result[kind]['after']} after the run, {result[kind]['before']} before")
    if result["seconds"] >= LONG_ENOUGH and result["megabytes_per_10_minutes"] >= SLOPE:
        wrong.append(f"memory: grows by {result['megabytes_per_10_minutes']} MB per 10 minutes")
    return wrong


def main() -> int:
    """Run, print the result and the problems."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=60.0, help="s between losses of the second camera")
    parser.add_argument("--gstreamer", action="store_true", help="the second camera is GStreamer's RTSP server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = soak(Path(place), given.minutes * 60, given.every, gstreamer=given.gstreamer)
    print(json.dumps(result))  # noqa: T201
    print("\n".join(result["wrong"]) or "all holds")  # noqa: T201
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
