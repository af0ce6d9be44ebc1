"""Runs every peer over every clip in turn, several times, and puts the medians into a report."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import Environment, PeerError, prepare
from benchmarks.jobs import run_job
from benchmarks.peers import Peer
from benchmarks.report import Bars, Report, Table, number
from benchmarks.speed.boxes import Boxes, ClipFacts, clip_boxes

_SPARE = 900.0  # s that the last frame of a clip and the boxes may take
_HEADER = (
    "", "frames/s", "faces/frame", "recognizer alone, ms/face", "CPU, s per minute of video", "first result, s",
    "peak memory, MB", "installed, MB", "licence", "frames measured",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure.

    Attributes:
        rounds: Runs of each peer over each clip.
        seconds: After this time a run stops, s of wall time without loading.
        alone: Number of frames on which the recognizer alone is measured.
        work: Folder of the environments.
        constraint: Constraints file for pip, or None.
    """

    rounds: int
    seconds: float
    alone: int
    work: Path
    constraint: Path | None


def compare(
    peers: Sequence[Peer], clips: Sequence[Path], setting: Setting, command: str, notify: Callable[[str], None]
) -> Iterator[Report]:
    """Measure the peers, and yield a report of all rounds so far after each of them.

    Args:
        peers: What is compared.
        clips: Video files.
        setting: How to measure.
        command: Shown in the report.
        notify: Called with a line about each step.
    """
    facts = {clip: clip_boxes(clip, setting.alone) for clip in clips}
    ready, missing = _ready(peers, facts[clips[0]], clips[0], setting, notify)
    results: dict[tuple[str, Path], list[dict[str, Any]]] = {}
    for number_of_round in range(1, setting.rounds + 1):  # in turn, so that a change of the machine hits all
        for clip in clips:
            for peer, environment in list(ready.items()):
                notify(f"round {number_of_round} of {setting.rounds}, {clip.name}: {peer.name}")
                try:
                    result = run_job(peer, environment, _job(clip, setting.seconds, facts[clip].boxes), _limit(setting))
                except PeerError as e:
                    missing[peer.name] = str(e)
                    del ready[peer]
                    continue
                results.setdefault((peer.key, clip), []).append(result)
        yield _report(ready, facts, results, missing, setting, command)


def _report(
    ready: Mapping[Peer, Environment],
    facts: Mapping[Path, ClipFacts],
    results: Mapping[tuple[str, Path], Sequence[Mapping[str, Any]]],
    missing: Mapping[str, str],
    setting: Setting,
    command: str,
) -> Report:
    rows = [
        {"clip": clip.name, "peer": peer.key, "name": peer.name}
        | medians(results[peer.key, clip], facts[clip])
        | {"installed_mb": environment.size_mb, "licence": environment.licence}
        for clip in facts
        for peer, environment in ready.items()
    ]
    notes = [f"{peer.name}: {peer.remark}." for peer in ready if peer.remark]
    tables = [_table(clip, facts[clip], rows, setting, notes) for clip in facts]
    bars = [_bars(clip, rows, key, title) for clip in facts for key, title in _PANELS]
    data = {"rounds": setting.rounds, "seconds": setting.seconds, "rows": rows}
    return Report("speed", "Speed beside other packages", command, tables, bars, data, dict(missing))


_PANELS = (("frames_per_s", "frames/s, end to end"), ("alone_ms_per_face", "recognizer alone, ms per face"))


def _ready(
    peers: Sequence[Peer], facts: ClipFacts, clip: Path, setting: Setting, notify: Callable[[str], None]
) -> tuple[dict[Peer, Environment], dict[str, str]]:
    """The peers that answer on one frame, and the reasons of the others."""
    ready: dict[Peer, Environment] = {}
    missing: dict[str, str] = {}
    first = dict(list(facts.boxes.items())[:1])
    for peer in peers:
        notify(f"preparing {peer.name}")
        try:
            environment = prepare(peer, setting.work, setting.constraint)
            run_job(peer, environment, _job(clip, 0.0, first), _limit(setting))
        except PeerError as e:
            missing[peer.name] = str(e)
            notify(f"  cannot be compared: {e}")
        else:
            ready[peer] = environment
    return ready, missing


def _job(clip: Path, seconds: float, boxes: Boxes) -> dict[str, Any]:
    return {"task": "clip", "clip": str(clip.resolve()), "seconds": seconds, "boxes": boxes}


def _limit(setting: Setting) -> float:
    return setting.seconds + _SPARE


def medians(results: Sequence[Mapping[str, Any]], facts: ClipFacts) -> dict[str, Any]:
    """The medians of the runs of a peer over one clip, in the units of the table."""

    def median(of: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        values = [value for value in map(of, results) if value is not None]
        return round(statistics.median(values), 3) if values else None

    return {
        "frames_per_s": median(_rate),
        "faces_per_frame": median(lambda r: r["faces"] / r["frames"]),
        "alone_ms_per_face": median(lambda r: 1e3 * r["alone_s"] / r["alone_faces"] if r["alone_faces"] else None),
        "cpu_s_per_minute": median(lambda r: 60.0 * facts.fps * r["cpu_s"] / (r["frames"] - 1) if _rate(r) else None),
        "first_result_s": median(lambda r: r["first_s"]),
        "peak_mb": median(lambda r: r["peak_mb"]),
        "frames": min(r["frames"] for r in results),
        "runs_frames_per_s": [_rate(r) for r in results],
    }


def _rate(result: Mapping[str, Any]) -> float | None:
    """Frames per second of a run, without the first frame, which may still load things; None for a single frame."""
    return round((result["frames"] - 1) / result["wall_s"], 2) if result["frames"] > 1 else None


def _table(
    clip: Path, facts: ClipFacts, rows: Sequence[Mapping[str, Any]], setting: Setting, notes: Sequence[str]
) -> Table:
    """The table of one clip, the quickest first."""
    own = sorted((row for row in rows if row["clip"] == clip.name), key=lambda row: -(row["frames_per_s"] or 0.0))
    cells = [
        (
            row["name"], number(row["frames_per_s"]), number(row["faces_per_frame"], 2),
            number(row["alone_ms_per_face"], 2), number(row["cpu_s_per_minute"]), number(row["first_result_s"]),
            number(row["peak_mb"], 0), number(row["installed_mb"], 0), row["licence"] or "-", str(row["frames"]),
        )
        for row in own
    ]  # fmt: skip
    title = f"{clip.name}, {facts.width}x{facts.height}, {facts.frames} frames, {facts.fps:.3g} frames/s"
    runs = max((len(row["runs_frames_per_s"]) for row in own), default=0)
    how = (
        f"Medians of {runs} runs, each at most {setting.seconds:g} s. "
        "frames/s counts decoding; not loading, not the first frame."
    )
    return Table(title, _HEADER, cells, (how, *notes))


def _bars(clip: Path, rows: Sequence[Mapping[str, Any]], key: str, title: str) -> Bars:
    values = {row["name"]: row[key] for row in rows if row["clip"] == clip.name and row[key] is not None}
    return Bars(f"{clip.name}: {title}", values, log=True)
