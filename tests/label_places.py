"""Where labels go, frame by frame: one list for the videos (Python) and for the live page (JavaScript).

    PYTHONPATH=tests:. python tests/label_places.py    # writes data/label_places.json again, by the Python code

The faces are those of ``data/crowds.json``, and faces that wander, meet, hide and come back. A letter is 8 px wide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from leaf_rt.render.placement import Face, Layout, Sizes

DATA = Path(__file__).with_name("data")
PLACES = DATA / "label_places.json"
TEXTS = ["{n}  happiness 80%", "{n}  happiness", "{n}  hap.", "{n}"]
LETTER, HEIGHT = 8, 18  # px


def crowd(name: str, stored: dict[str, Any]) -> dict[str, Any]:
    numbers = list(range(1, len(stored["boxes"]) + 1))
    frame = {"time": 0.0, "numbers": numbers, "boxes": stored["boxes"]}
    return {"name": name, "width": stored["width"], "height": stored["height"], "line": 2, "stripe": 4,
            "frames": [frame]}  # fmt: skip


def wandering(seed: int, people: int, frames: int = 24) -> dict[str, Any]:
    """Faces on straight ways through a small picture. Each is out of sight for some frames."""
    rng = np.random.default_rng(seed)
    width, height = 640, 360
    start, speed = rng.uniform(0.1, 0.8, (people, 2)) * (width, height), rng.uniform(-16, 16, (people, 2))
    side, hidden = rng.integers(24, 90, people), rng.integers(0, frames, people)
    made = []
    for k in range(frames):
        visible = [n for n in rng.permutation(people).tolist() if not hidden[n] <= k < hidden[n] + 4]
        corners = [(start[n] + speed[n] * k).astype(int).clip(0, (width - 25, height - 25)).tolist() for n in visible]
        boxes = [
            [x, y, min(x + int(side[n]), width - 1), min(y + int(side[n]), height - 1)]
            for n, (x, y) in zip(visible, corners, strict=True)
        ]
        made.append({"time": k / 10, "numbers": [n + 1 for n in visible], "boxes": boxes})
    return {"name": f"wandering {seed}", "width": width, "height": height, "line": 1 + seed, "stripe": 0,
            "frames": made}  # fmt: skip


def labels(clip: dict[str, Any]) -> list[list[list[Any]]]:
    """Text and box of every label of every frame of a clip, by the Python code."""
    sizes = Sizes(clip["width"], clip["height"], clip["line"], clip["stripe"], (150, 120), 10)
    layout, out = Layout(), []
    for frame in clip["frames"]:
        faces = [
            Face(n, tuple(box), tuple(t.replace("{n}", str(n)) for t in TEXTS), lambda text: LETTER * len(text), HEIGHT)
            for n, box in zip(frame["numbers"], frame["boxes"], strict=True)
        ]
        out.append([[place.text, *place.tag] for place in layout.arrange(faces, sizes, frame["time"])])
    return out


def main() -> None:
    crowds = json.loads((DATA / "crowds.json").read_text())
    clips = [crowd(name, stored) for name, stored in crowds.items()]
    clips += [wandering(1, 5), wandering(2, 9)]
    for clip in clips:
        for frame, found in zip(clip["frames"], labels(clip), strict=True):
            frame["labels"] = found
    lines = (json.dumps(clip, separators=(",", ":")).replace('{"time"', '\n{"time"') for clip in clips)
    constants = {"texts": TEXTS, "letter": LETTER, "height": HEIGHT}
    PLACES.write_text(json.dumps(constants)[:-1] + ',\n"clips": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
