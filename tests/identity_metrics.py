"""Measures who is who: HOTA, IDF1 and id switches (TrackEval) of ``track_id`` and of ``person_id``.

    pip install --no-deps trackeval
    PYTHONPATH=tests:. python tests/identity_metrics.py ../shared/media --seeds 0-5 [--reid-model PATH]

``shared`` counts the numbers that were given to two people, which must be 0. Only faces that were detected in the frame
count there: the box of somebody who is hidden stays for up to 0.2 s, and then lies over whoever hides him. ``late``
counts the tracks whose person was recognized after their first frame; ``settled`` takes the newest person of a track
for the whole track.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tracking_clips import FPS, Truth, moving, street_truth, video

from leaf_rt.geometry import iou
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.factory import build_pipeline
from leaf_rt.types import Frame

Row = tuple[int, int, tuple[float, ...], bool]  # track, person, box, whether it was detected in this frame


def follow(frames: Iterable[tuple[Frame, Truth]], config: RecognitionConfig) -> list[tuple[Truth, list[Row]]]:
    """Run the pipeline; return what was true and what was found in each frame."""
    backend = config.open_backend()
    pipeline = build_pipeline(config, backend)
    results = []
    try:
        for frame, truth in frames:
            pending = pipeline.prepare(frame)
            found = pipeline.finish(pending, backend.infer(pending.crops))
            detected = set(pending.tracks.track_id[pending.tracks.detection_index >= 0].tolist())
            rows = zip(found.track_id.tolist(), found.person_id.tolist(), found.xyxy.tolist(), strict=True)
            results.append((truth, [(t, p, tuple(box), t in detected) for t, p, box in rows]))
    finally:
        pipeline.close()
        backend.close()
    return results


def owners(results: list[tuple[Truth, list[Row]]], column: int) -> dict[int, Counter[int]]:
    """For every number of a column (0: track, 1: person): the true people that had it, and in how many frames."""
    found: dict[int, Counter[int]] = defaultdict(Counter)
    for truth, rows in results:
        if not truth or not rows:
            continue
        overlap = iou(np.array([r[2] for r in rows], np.float32), np.array([b for _, b in truth], np.float32))
        for row, line in zip(rows, overlap, strict=True):
            if row[3] and line.max() >= 0.5:
                found[row[column]][truth[int(line.argmax())][0]] += 1
    return found


def shared(results: list[tuple[Truth, list[Row]]], column: int, at_least: int = 3) -> int:
    """Count the numbers that two or more people had for several frames each."""
    return sum(sum(n >= at_least for n in people.values()) > 1 for people in owners(results, column).values())


def numbers(results: list[tuple[Truth, list[Row]]], column: int, at_least: int = 3) -> int:
    """Count the different pairs of person and number: as many as people if everybody keeps one number."""
    return sum(n >= at_least for people in owners(results, column).values() for n in people.values())


def changes(results: list[tuple[Truth, list[Row]]]) -> list[tuple[int, int, float]]:
    """All changes of the person of a track: the track, the number before, and the age of the track, s."""
    first: dict[int, float] = {}
    last: dict[int, int] = {}
    found = []
    for k, (_, rows) in enumerate(results):
        for track, person, *_ in rows:
            age = k / FPS - first.setdefault(track, k / FPS)
            if last.setdefault(track, person) != person:
                found.append((track, last[track], age))
            last[track] = person
    return found


def scores(results: list[tuple[Truth, list[Row]]], column: int) -> dict[str, float]:
    """HOTA, IDF1 and id switches by TrackEval."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    true_ids = sorted({p for truth, _ in results for p, _ in truth})
    found_ids = sorted({row[column] for _, rows in results for row in rows})
    data = {
        "num_timesteps": len(results),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(found_ids),
        "num_gt_dets": sum(len(truth) for truth, _ in results),
        "num_tracker_dets": sum(len(rows) for _, rows in results),
        "gt_ids": [np.array([true_ids.index(p) for p, _ in truth], int) for truth, _ in results],
        "tracker_ids": [np.array([found_ids.index(r[column]) for r in rows], int) for _, rows in results],
        "similarity_scores": [
            iou(
                np.array([b for _, b in truth], np.float32).reshape(-1, 4),
                np.array([r[2] for r in rows], np.float32).reshape(-1, 4),
            ).astype(float)
            for truth, rows in results
        ],
    }
    quiet = {"PRINT_CONFIG": False}
    return {
        "HOTA": float(HOTA().eval_sequence(data)["HOTA"].mean()),
        "IDF1": float(Identity(quiet).eval_sequence(data)["IDF1"]),
        "switches": float(CLEAR(quiet).eval_sequence(data)["IDSW"]),
    }


def settled(results: list[tuple[Truth, list[Row]]]) -> list[tuple[Truth, list[Row]]]:
    """The same with the newest person of each track in all its rows."""
    newest = {row[0]: row[1] for _, rows in results for row in rows}
    return [(truth, [(track, newest[track], *rest) for track, _, *rest in rows]) for truth, rows in results]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path)
    parser.add_argument("--reid-model", type=Path)
    parser.add_argument("--seeds", default="0-5", help="of the moving clips: first and last")
    parser.add_argument("--people", type=int, default=4)
    given = parser.parse_args()
    config = RecognitionConfig(backend="onnxruntime", reid_model=given.reid_model)
    truth = street_truth()
    clips = {"street": ((frame, truth.get(frame.index, [])) for frame in video(given.media / "street_1080p.mp4"))}
    first, last = map(int, given.seeds.split("-"))
    clips |= {f"moving {seed}": moving(given.media, seed, given.people) for seed in range(first, last + 1)}
    for name, frames in clips.items():
        results = follow(frames, config)
        people = len({p for truth, _ in results for p, _ in truth})
        late = len(changes(results))
        for field, rows, column in (
            ("track_id", results, 0), ("person_id", results, 1), ("settled", settled(results), 1)
        ):  # fmt: skip
            values = "  ".join(f"{key} {value:.3f}" for key, value in scores(rows, column).items())
            print(f"{name:10} {field:9}  {values}  people {people}  numbers {numbers(rows, column)}  "  # noqa: T201
                  f"shared {shared(rows, column)}  late {late}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
