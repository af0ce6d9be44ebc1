"""Measures how fast a clip is processed, from the file to the estimates, and how long each stage takes.

The clip is processed twice, and nothing is written: once with threads, as users run it, to get the frames per second;
once in a single thread, to get the time of each stage.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from leaf_rt.errors import NoFrames, NotAVideo, NotFound
from leaf_rt.faces.tracker import FaceTracker
from leaf_rt.faces.video_detector import VideoFaceDetector
from leaf_rt.media import opencv
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.pipeline import STAGES, Pipeline
from leaf_rt.sources.address import parse
from leaf_rt.sources.base import Target
from leaf_rt.sources.opening import open_source
from leaf_rt.stream.options import RunOptions
from leaf_rt.stream.runner import run
from leaf_rt.system.cpu import cpu_count
from leaf_rt.text import counted
from leaf_rt.types import SourceInfo

DEMO = Path(__file__).parents[2] / "examples" / "demo.mp4"
_ESSENTIAL = ("decode", "detect", "infer")


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """The result of a measurement.

    Attributes:
        clip: Name of the file.
        width: px.
        height: px.
        frames: Number of frames.
        faces: Number of classified faces, all frames together.
        frames_per_s: Frames per second of wall time, with threads.
        stages_ms: Mean time per frame in a single thread, ms, by stage; "rest" is the time outside all stages.
        outside: Share of the time in a single thread that is not spent in decode, detect and infer, 0 to 1.
        of_slowest: ``frames_per_s`` / frames per second of the slowest stage alone, in a single thread.
        cores: CPU cores that this process may use.
        cores_busy: Those that were busy on average while threads processed the clip.
        cpu_ms: CPU time per frame in a single thread, ms; the threads of decoder and back end count too.
        of_limit: ``frames_per_s`` / what these cores allow: no clip is processed faster than its slowest stage alone,
            nor than ``cores`` / ``cpu_ms``.
        peak_mb: Largest memory of this process so far, MB; None where the system does not tell.
        backend: See ``Backend.reason``.
        detector: See ``DetectorChoice.reason``.
    """

    clip: str
    width: int
    height: int
    frames: int
    faces: int
    frames_per_s: float
    stages_ms: dict[str, float]
    outside: float
    of_slowest: float
    cores: int
    cores_busy: float
    cpu_ms: float
    of_limit: float
    peak_mb: float | None
    backend: str
    detector: str

    def json(self) -> str:
        """The result as one line of JSON."""
        return json.dumps({"bench": "end_to_end", **asdict(self)}, ensure_ascii=False)


def end_to_end(clip: str | None, recognition: RecognitionConfig) -> EndToEnd:
    """Measure one clip.

    Args:
        clip: Name of a video file; None means the demo clip of the repository.
        recognition: How faces are found and classified.

    Raises:
        NotAVideo: ``clip`` is a camera or a stream.
        NotFound: ``clip`` is None and this installation has no demo clip.
        LeafError: The clip or the model cannot be opened.
    """
    address = parse(clip or str(DEMO))
    address.check()
    if address.is_live:
        raise NotAVideo(f"{address.shown}: bench measures a file; record some seconds of this live source first")
    if clip is None and not DEMO.is_file():
        raise NotFound("bench: the demo clip is only in the repository; give a clip, as in leaf-rt bench clip.mp4")
    opencv.use_one_thread()
    backend = recognition.open_backend(for_files=True)

    def pipeline(_: SourceInfo) -> Pipeline:
        detector = VideoFaceDetector(range=recognition.range, detector=recognition.detector)
        return Pipeline(detector, FaceTracker(), backend, recognition.smooth, recognition.pipeline_options(backend))

    try:
        busy, begin = time.process_time(), time.perf_counter()
        stats = run([Target(address.target)], pipeline, backend, options=RunOptions(handle_signals=False))
        busy, threaded = time.process_time() - busy, time.perf_counter() - begin
        cpu = time.process_time()
        info, frames, faces, spent, wall = _step_by_step(address.target, pipeline)
        cpu = (time.process_time() - cpu) / frames  # s per frame
    finally:
        backend.close()
    slowest = max(spent.values()) / frames  # s per frame
    cores = cpu_count()
    spent["rest"] = max(0.0, wall - sum(spent.values()))
    return EndToEnd(
        clip=info.name,
        width=info.width,
        height=info.height,
        frames=frames,
        faces=faces,
        frames_per_s=round(stats.fps, 1),
        stages_ms={name: round(seconds / frames * 1e3, 3) for name, seconds in spent.items()},
        outside=round(1.0 - sum(spent[name] for name in _ESSENTIAL) / wall, 4),
        of_slowest=round(stats.fps * slowest, 3),
        cores=cores,
        cores_busy=round(busy / threaded, 2),
        cpu_ms=round(cpu * 1e3, 3),
        of_limit=round(stats.fps * max(slowest, cpu / cores), 3),
        peak_mb=_peak_memory(),
        backend=backend.reason,
        detector=recognition.choose_detector().reason,
    )


def rows(result: EndToEnd) -> dict[str, str]:
    """The result as a table for users: what was measured, and its value."""
    stages = ", ".join(f"{name} {ms:.2f}" for name, ms in result.stages_ms.items())
    return {
        "clip": f"{result.clip}: {result.width}x{result.height}, {result.frames} frames, {result.faces} faces in total",
        "detector": result.detector,
        "back end": result.backend,
        "end to end": f"{result.frames_per_s:.0f} frames/s, including decoding, nothing written",
        "ms per frame": f"{stages} (one thread)",
        "outside decode, detect and infer": f"{result.outside:.1%} of the time",
        "threads": f"{result.of_slowest:.0%} of the speed of the slowest stage alone",
        "cores": (
            f"{result.of_limit:.0%} of the speed that {result.cpu_ms:.1f} ms of CPU per frame and the slowest stage "
            f"allow on {counted(result.cores, 'core')}; {result.cores_busy:.1f} busy"
        ),
        **({} if result.peak_mb is None else {"peak memory": f"{result.peak_mb:.0f} MB"}),
    }


def _step_by_step(
    path: str, pipeline: Callable[[SourceInfo], Pipeline]
) -> tuple[SourceInfo, int, int, dict[str, float], float]:
    """Process a clip in a single thread.

    Returns:
        The source, the number of frames and of faces, the seconds per stage, and the wall time in seconds.
    """
    spent = dict.fromkeys(("decode", *STAGES), 0.0)
    frames = faces = 0
    with open_source(path) as source:
        steps = pipeline(source.info)
        try:
            begin = last = time.perf_counter()
            for frame in source:
                _ = frame.image  # converts it
                spent["decode"] += time.perf_counter() - last
                estimates = steps.step(frame)
                for name, seconds in steps.timings.items():
                    spent[name] = spent.get(name, 0.0) + seconds
                frames += 1
                faces += len(estimates)
                last = time.perf_counter()
            wall = last - begin
        finally:
            steps.close()
        if frames == 0:
            raise NoFrames(f"{path}: the clip has no frames")
        return source.info, frames, faces, spent, wall


def _peak_memory() -> float | None:
    """Largest resident memory of this process so far, MB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return None if found is None else round(int(found[1]) * 1024 / 1e6, 1)
