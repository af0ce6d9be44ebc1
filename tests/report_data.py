"""Records for tests of reports, and their numbers counted once more in another way."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from leaf_rt.labels import FERPLUS8
from leaf_rt.results.records import frame_records
from leaf_rt.types import Estimates, Frame, SourceInfo

CLIP = SourceInfo("clip.mp4", "clip.mp4", "file", 640, 360, fps=25.0)


def scene(seconds: float, people: int = 2, *, fps: float = 25.0, seed: int = 0) -> Iterator[tuple[Frame, Estimates]]:
    """Frames in which people change their expression and are away at times; some frames show nobody."""
    random = np.random.default_rng(seed)
    shares = np.full((people, 8), 1 / 8)
    target = random.integers(0, 8, people)
    shown = np.zeros(people, np.int64)
    for index in range(round(seconds * fps)):
        time = index / fps
        change = random.random(people) < 0.02
        target = np.where(change, random.integers(0, 8, people), target)
        wanted = np.full((people, 8), 0.04)
        wanted[np.arange(people), target] = 0.72
        shares = shares + 0.1 * (wanted * random.uniform(0.8, 1.2, wanted.shape) - shares)
        probs = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
        if index % 10 == 0:
            shown = np.where(probs.max(axis=1) >= 0.4, probs.argmax(axis=1), -1)
        here = [p for p in range(people) if (time + 3 * p) % 11 < 9.5 and not 4.0 <= time < 4.4]
        n = len(here)
        yield Frame(np.zeros((0, 0, 3), np.uint8), index, time, CLIP.name), Estimates(
            time, np.array(here, np.int64) + 1, np.tile(np.array([[9, 9, 99, 99]], np.float32), (n, 1)),
            np.full(n, 0.9, np.float32), probs[here], probs[here], shown[here], np.ones(n, np.bool_),
            np.zeros(n, np.bool_), np.zeros((0, 4), np.float32),
        )  # fmt: skip


def write_jsonl(path: Path, frames: Iterable[tuple[Frame, Estimates]], source: SourceInfo = CLIP) -> Path:
    with path.open("w", encoding="utf-8") as f:
        for frame, estimates in frames:
            f.writelines(json.dumps(r) + "\n" for r in frame_records(source, frame, estimates, FERPLUS8, 0.0))
    return path


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def recounted(records: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Numbers per person of a file's records, straight from the definitions in docs/report.md."""
    times = sorted({r["pts_s"] for r in records})
    usual = median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else 0.0
    by_person: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for r in records:
        by_person[r["track_id"]].append(r)
    found = {}
    for person, rows in by_person.items():
        shown: dict[str, float] = defaultdict(float)
        weighted: dict[str, float] = defaultdict(float)
        events: list[list[Any]] = []  # label, start, end, peak
        transitions: dict[tuple[str, str], int] = defaultdict(int)
        for n, r in enumerate(rows):
            gap = rows[n + 1]["pts_s"] - r["pts_s"] if n + 1 < len(rows) else 2.0
            seconds = gap if gap <= 1.0 else usual
            label = r["emotion"]
            shown[label] += seconds
            peak = r["smoothed"].get(label, max(r["smoothed"].values()))
            weighted[label] += seconds * r["smoothed"].get(label, 0.0)
            if n and r["pts_s"] - rows[n - 1]["pts_s"] <= 1.0:
                if label != rows[n - 1]["emotion"]:
                    transitions[rows[n - 1]["emotion"], label] += 1
                    events[-1][2] = r["pts_s"]
                    events.append([label, r["pts_s"], r["pts_s"], peak])
                else:
                    events[-1][2:] = [r["pts_s"], max(peak, events[-1][3])]
            else:
                events.append([label, r["pts_s"], r["pts_s"], peak])
        total = sum(shown.values())
        found[person] = {
            "seconds": total,
            "shares": {name: value / total for name, value in shown.items()},
            "mean_share": {k: weighted[k] / v for k, v in shown.items() if k != "uncertain"},
            "changes": sum(transitions.values()),
            "transitions": dict(transitions),
            "longest": max(end - start for _, start, end, _ in events),
            "events": events,
        }
    return found
