"""A source in words, a line each: what it is, how it stands, what it gets. Knows a run's counters and options."""

from __future__ import annotations

from leaf_rt.recognition.config import PipelineOptions
from leaf_rt.sources.base import SourceInfo
from leaf_rt.stream.stats import SourceStats


def frames(count: int) -> str:
    """So many frames."""
    return f"{count} frame" if count == 1 else f"{count} frames"


def status(source: SourceStats, now: float) -> str:
    """How a source stands, in one line; a file's rate alone.

    Args:
        source: Its counters.
        now: s, on the run's clock.
    """
    dropped = [f"{source.dropped} dropped"] if source.dropped else []
    if not source.info.is_live:
        return ", ".join([f"{source.fps:.0f} frames/s", *dropped])
    if source.state != "open":
        return f"{source.state} for {max(now - source.since, 0):.0f} s"
    parts = [f"open, {source.capture_fps:.0f} frames/s in, {source.fps:.0f} out", *dropped]
    if source.level:
        parts.append(f"load level {source.level}")
    parts.append("1 face" if source.faces == 1 else f"{source.faces} faces")
    return ", ".join([*parts, f"{source.latency.p95 * 1e3:.0f} ms"])


def describe(info: SourceInfo) -> str:
    """A source in one line: what, how large, how fast, how long."""
    parts = [f"{info.name}: {info.width}x{info.height}"]
    if info.fps is not None:
        parts.append(f"{info.fps:.5g} frames/s")
    if info.frame_count is not None:
        parts.append(frames(info.frame_count))
    if info.duration is not None:
        parts.append(f"{info.duration:.1f} s")
    parts.append("live" if info.is_live else "with sound" if info.has_audio else "no sound")
    return ", ".join(parts)


def answers(options: PipelineOptions) -> str:
    """How often faces are classified."""
    if options.classify_fps == 0:
        return "every face in every frame"
    together = (
        f"{options.max_classify_fps:g} per second of all faces"
        if options.max_classify_fps > 0
        else "no limit for all together"
    )
    return f"{options.classify_fps:g} per second and face, {together}"
