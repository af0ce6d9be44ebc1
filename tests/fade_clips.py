"""Gradual changes between the scenes of ``fresh_cuts.py``, and the command that measures how many are found.

    PYTHONPATH=tests:. python tests/fade_clips.py ../shared B 0-29

Each clip has two scenes of two seconds and one change: a dissolve, or a fade through black or white, with or without a
plain picture between, of 0.3 to 1.6 s. What is no gradual change is in ``fresh_cuts.py``.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from fresh_cuts import CODECS, FPS, SIZES, Scene
from shot_clips import _decoded

from leaf_rt.recognition.shots import Change, ShotDetector

KINDS = ("dissolve", "white", "dissolve", "black", "dissolve", "long white", "dissolve", "long black")
SECONDS = (0.3, 0.5, 0.8, 1.2, 1.6)
SCENE = 50  # frames
LATE = 40  # frames after its end in which a change must be found


@dataclass(frozen=True)
class Fade:
    """A clip; the change is in the frames from ``start`` to before ``end``."""

    kind: str
    seconds: float
    start: int
    end: int
    frames: list[np.ndarray]


def blend(kind: str, old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    """A picture of a change; ``share`` of it is over."""
    if kind == "dissolve":
        return cv2.addWeighted(old, 1 - share, new, share, 0)
    hold = 0.25 if "long" in kind else 0.0  # share of the change that is plain
    light = max(abs(1 - 2 * share) - hold, 0.0) / (1 - hold)
    plain = 255.0 if "white" in kind else 0.0
    return cv2.convertScaleAbs(old if share < 0.5 else new, alpha=light, beta=plain * (1 - light))


def make(shared: Path, name: str, seed: int) -> Fade:
    """Make one clip; ``seed`` chooses everything."""
    rng = np.random.default_rng([seed, ord(name), 77])
    size = SIZES[seed % len(SIZES)]
    first = second = Scene(shared, name, None, size, rng)
    while second.source == first.source:
        second = Scene(shared, name, None, size, rng)
    kind, seconds = KINDS[seed % len(KINDS)], float(rng.choice(SECONDS))
    length, noise = round(seconds * FPS), float(rng.choice([0, 3, 7]))
    frames = []
    for k in range(SCENE + length + SCENE):
        share = min(max((k - SCENE) / length, 0.0), 1.0)
        image = blend(kind, first.frame(k), second.frame(k), share)
        grain = rng.normal(0, noise, (*image.shape[:2], 1)) if noise else 0.0
        frames.append(np.clip(image + grain, 0, 255).astype(np.uint8))
    return Fade(kind, seconds, SCENE, SCENE + length, _decoded(frames, *CODECS[seed % len(CODECS)]))


def found(clip: Fade, stride: int) -> list[int]:
    """The frames with which a new shot begins."""
    shots = ShotDetector()
    changes = [(k, shots.compare(clip.frames[k], k / FPS)) for k in range(0, len(clip.frames), stride)]
    return [k for k, change in changes if change in (Change.CUT, Change.FADE)]


def main() -> None:
    """Print how many changes are one new shot, none, or more than one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("set", choices=["A", "B"])
    parser.add_argument("seeds", help="first and last, for example 0-29")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split("-"))
    totals: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    late: dict[int, list[float]] = defaultdict(list)
    for seed in range(first, last + 1):
        clip = make(given.shared, given.set, seed)
        for stride in (1, 3):
            shots = found(clip, stride)
            right = len(shots) == 1 and clip.start - 1 <= shots[0] <= clip.end + LATE
            answer = "one" if right else "none" if not shots else "other"
            totals[clip.kind, stride].update([answer])
            late[stride] += [(shots[0] - clip.end) / FPS] if right else []
    for (kind, stride), answers in sorted(totals.items()):
        print(f"{kind}, stride {stride}: {dict(answers)}")  # noqa: T201
    for stride, seconds in late.items():
        print(f"stride {stride}: found {np.median(seconds):+.2f} s after the end (median, most {max(seconds):.2f})")  # noqa: T201


if __name__ == "__main__":
    main()
