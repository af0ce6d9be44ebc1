"""Data layouts: which pictures there are, in which split, with which label. One function per layout.

Knows folders, list files and annotations; must not decode a picture or know a model.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError, NotFound
from leaf_rt.labels import AFFECTNET7, AFFECTNET8, FER2013_7, FERPLUS8, RAFDB7
from leaf_rt.types import F32, I64
from train.source import Files, Memory, Source, Zip

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "train_set": TRAIN, "val": VALIDATION, "valid": VALIDATION,
                  "validation": VALIDATION, "test": TEST, "testing": TEST}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The pictures of a data set.

    Attributes:
        name: Of the layout and folder, for people.
        labels: C class names.
        ids: N names that ``source`` reads.
        split: (N,) int64 of TRAIN, VALIDATION, TEST.
        label: (N,) int64, -1 without a label.
        targets: (N, C) float32: the distribution of votes, one-hot where there is a label alone, zeros without.
        source: Reads a picture's bytes by its id.
        notes: What was left out, and why, one sentence each.
    """

    name: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    split: I64
    label: I64
    targets: F32
    source: Source
    notes: tuple[str, ...]


def read_listing(layout: str, path: Path) -> Listing:
    """List a data set.

    Raises:
        NotFound: The path, or a file that the layout needs, is missing.
        DataError: A label, a split or a line makes no sense, a class is empty, or there is no picture.
    """
    if not path.exists():
        raise NotFound(f"--data {path}: no such file or folder")
    layout = guess_layout(path) if layout == "auto" else layout
    listing = _LAYOUTS[layout](path)
    training = listing.label[listing.split == TRAIN]
    if not (training >= 0).any():
        raise DataError(f"--data {path}: the {layout} layout finds no labelled training picture there")
    empty = [name for c, name in enumerate(listing.labels) if not (training == c).any()]
    if empty:
        raise DataError(f"--data {path}: no training picture of class {', '.join(empty)}; add some or remove the class")
    return listing


def guess_layout(path: Path) -> str:
    """The layout that a data set's own files speak of; "folder" where none does."""
    if path.is_file():
        with path.open(encoding="utf-8-sig", errors="replace") as f:
            return "fer2013" if path.suffix == ".csv" and "pixels" in f.readline() else "list"
    signs = {
        "ferplus": "fer2013new.csv",
        "fer2013": "fer2013.csv",
        "rafdb": "basic/EmoLabel",
        "affectnet8": "train_set/annotations",
    }
    return next((layout for layout, sign in signs.items() if (path / sign).exists()), "folder")


def _listing(
    name: str,
    labels: Sequence[str],
    rows: Iterable[tuple[str, int, int]],
    source: Source,
    notes: Iterable[str] = (),
    targets: F32 | None = None,
) -> Listing:
    """From rows of id, split and label."""
    rows = list(rows)
    label = np.array([r[2] for r in rows], np.int64)
    if targets is None:
        targets = np.zeros((len(rows), len(labels)), np.float32)
        known = np.flatnonzero(label >= 0)
        targets[known, label[known]] = 1.0
    split = np.array([r[1] for r in rows], np.int64)
    return Listing(name, tuple(labels), tuple(r[0] for r in rows), split, label, targets, source, tuple(notes))


def _folder(path: Path) -> Listing:
    """A folder per class and ``unlabelled``; or such folders under train, validation (or val) and test.

    Without train, the class folders that lie beside validation and test are the training pictures.
    """
    tops = {d.name.lower(): d for d in path.iterdir() if d.is_dir()} if path.is_dir() else {}
    parts = {d: _SPLIT_FOLDERS[name] for name, d in tops.items() if name in _SPLIT_FOLDERS}
    if TRAIN not in parts.values():
        parts = {path: TRAIN, **parts}
    elif UNLABELLED in tops:
        parts[tops[UNLABELLED]] = -1
    names = sorted({
        d.name for part, split in parts.items() if split >= 0
        for d in part.iterdir() if d.is_dir() and not d.name.startswith(".") and d.name.lower() != UNLABELLED
        and d not in parts
    })  # fmt: skip
    if len(names) < 2:
        raise DataError(f"--data {path}: wanted a folder for each of at least two classes, got {names or 'none'}")
    rows: list[tuple[str, int, int]] = []
    foreign = 0
    for part, split in parts.items():
        for file in sorted(p for p in part.rglob("*") if p.is_file() and not p.name.startswith(".")):
            if part == path and path / file.relative_to(path).parts[0] in parts:
                continue  # of another split
            if file.suffix.lower() not in PICTURES:
                foreign += 1
                continue
            folder = file.relative_to(part).parts[0]
            unlabelled = split < 0 or folder.lower() == UNLABELLED
            if not unlabelled and folder not in names:
                raise DataError(
                    f"{file}: lies in no class folder; move it into one of {', '.join(names)}, {UNLABELLED}"
                )
            label = -1 if unlabelled else names.index(folder)
            rows.append((file.relative_to(path).as_posix(), max(split, TRAIN), label))
    notes = [f"{foreign} files that are no pictures (by their ending) were passed over"] if foreign else []
    return _listing(f"folder {path.resolve().name}", names, rows, Files(path), notes)


def _list(path: Path) -> Listing:
    """A CSV with a header, or JSONL, with path, label (empty: unlabelled) and perhaps split, relative to the file."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (".csv", ".jsonl"))
        if len(found) != 1:
            raise DataError(f"--data {path}: wanted one .csv or .jsonl list in it, got {len(found)}; name the file")
        path = found[0]
    records: list[tuple[int, dict[str, str]]] = []
    with path.open(encoding="utf-8-sig", newline="") as f:
        if path.suffix == ".jsonl":
            for number, line in enumerate(f, 1):
                if line.strip():
                    try:
                        records.append((number, {k: "" if v is None else str(v) for k, v in json.loads(line).items()}))
                    except (ValueError, AttributeError) as e:
                        raise DataError(f"{path}:{number}: no JSON object ({e})") from e
        else:
            reader = csv.DictReader(f)
            records.extend((reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader)
    rows: list[tuple[str, int, str]] = []
    for number, record in records:
        if "path" not in record:
            raise DataError(f"{path}:{number}: has no column path; columns wanted: path, label and perhaps split")
        split = record.get("split", "train").strip().lower() or "train"
        if split not in _SPLIT_FOLDERS:
            raise DataError(f"{path}:{number}: split: wanted train, validation or test, got {split!r}")
        rows.append((record["path"], _SPLIT_FOLDERS[split], record.get("label", "").strip()))
    names = sorted({label for _, split, label in rows if label and split == TRAIN})
    for (number, _), (_, _, label) in zip(records, rows, strict=True):
        if label and label not in names:
            raise DataError(f"{path}:{number}: label {label!r} stands in no training line; known: {', '.join(names)}")
    indexed = [(name, split, names.index(label) if label else -1) for name, split, label in rows]
    return _listing(f"list {path.name}", names, indexed, Files(path.parent))


def _ferplus(path: Path) -> Listing:
    """``fer2013new.csv`` beside ``images.zip`` or the folders FER2013Train, FER2013Valid, FER2013Test.

    The class is the most voted one; pictures whose most-voted class is unknown or no face are left out. Soft targets
    are the votes of the 8 classes, single votes dropped (Barsoum et al., ICMI 2016).
    """
    lists = _file(path / "fer2013new.csv")
    folders = {"Training": ("FER2013Train", TRAIN), "PublicTest": ("FER2013Valid", VALIDATION),
               "PrivateTest": ("FER2013Test", TEST)}  # fmt: skip
    columns = (*FERPLUS8, "unknown", "NF")
    rows: list[tuple[str, int, int]] = []
    votes: list[list[int]] = []
    left_out = 0
    with lists.open(encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            if not row["Image name"]:
                continue  # the label file has lines without a picture
            counts = [int(row[c]) for c in columns]
            label = int(np.argmax(counts))
            if label >= len(FERPLUS8):
                left_out += 1
                continue
            folder, split = folders[row["Usage"]]
            rows.append((f"{folder}/{row['Image name']}", split, label))
            votes.append(counts[: len(FERPLUS8)])
    targets = np.array(votes, np.float32).reshape(-1, len(FERPLUS8))
    targets[targets <= 1] = 0.0
    targets /= np.maximum(targets.sum(1, keepdims=True), 1.0)
    zipped = path / "images.zip"
    source: Source = Zip(zipped) if zipped.is_file() else Files(path)
    note = f"{left_out} pictures were left out: most annotators saw no face or no known expression"
    return _listing("FERPlus", FERPLUS8, rows, source, [note], targets)


def _rafdb(path: Path) -> Listing:
    """RAF-DB basic: ``EmoLabel/list_patition_label.txt`` and ``Image/aligned``; or train and test folders of 1 to 7."""
    base = path / "basic" if (path / "basic").is_dir() else path
    listed = base / "EmoLabel" / "list_patition_label.txt"
    if not listed.is_file():
        top = path / "DATASET" if (path / "DATASET").is_dir() else path
        return _numbered(top, RAFDB7, first=1, name="RAF-DB")
    rows = []
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 2 or parts[1] not in "1234567" or not parts[0].startswith(("train_", "test_")):
            raise DataError(f"{listed}:{number}: wanted a name train_* or test_* and a label 1 to 7, got {line!r}")
        stem, _, ending = parts[0].rpartition(".")
        split = TRAIN if stem.startswith("train_") else TEST
        rows.append((f"Image/aligned/{stem}_aligned.{ending}", split, int(parts[1]) - 1))
    return _listing("RAF-DB", RAFDB7, rows, Files(base))


def _affectnet(labels: tuple[str, ...]) -> Callable[[Path], Listing]:
    """AffectNet: ``train_set`` and ``val_set`` with ``annotations/N_exp.npy``, list files, or folders 0 to 7.

    Its published validation set is what everybody tests on: it is the test split here.
    """

    def read(path: Path) -> Listing:
        sets = {"train_set": TRAIN, "val_set": TEST}
        rows: list[tuple[str, int, int]] = []
        if all((path / s / "annotations").is_dir() for s in sets):
            for folder, split in sets.items():
                for file in sorted((path / folder / "annotations").glob("*_exp.npy")):
                    label = int(np.load(file, allow_pickle=False))
                    rows.append((f"{folder}/images/{file.name.removesuffix('_exp.npy')}.jpg", split, label))
        elif (path / "training.csv").is_file():
            for name, split in (("training.csv", TRAIN), ("validation.csv", TEST)):
                with _file(path / name).open(encoding="utf-8", newline="") as f:
                    rows.extend(
                        (f"Manually_Annotated_Images/{r['subDirectory_filePath']}", split, int(r["expression"]))
                        for r in csv.DictReader(f)
                    )
        else:
            return _numbered(path, labels, first=0, name=f"AffectNet-{len(labels)}", validation_is_test=True)
        kept = [r for r in rows if 0 <= r[2] < len(labels)]
        notes = [f"{len(rows) - len(kept)} pictures were left out: their label is none of the {len(labels)}"]
        return _listing(f"AffectNet-{len(labels)}", labels, kept, Files(path), notes if len(kept) < len(rows) else ())

    return read


def _fer2013(path: Path) -> Listing:
    """``fer2013.csv`` with emotion, pixels and Usage; or train and test folders named by class."""
    lists = path if path.is_file() else path / "fer2013.csv"
    if not lists.is_file():
        return _folder(path)
    usage = {"Training": TRAIN, "PublicTest": VALIDATION, "PrivateTest": TEST}
    rows, pictures = [], {}
    with lists.open(encoding="utf-8", newline="") as f:
        for number, row in enumerate(csv.DictReader(f), 2):
            try:
                pixels = np.array(row["pixels"].split(), dtype=np.uint8)
                label, split = int(row["emotion"]), usage[row["Usage"].strip()]
                if pixels.size != 48 * 48 or not 0 <= label < len(FER2013_7):
                    raise ValueError(f"{pixels.size} pixels, emotion {label}")
            except (KeyError, ValueError, OverflowError, AttributeError) as e:
                raise DataError(f"{lists}:{number}: wanted emotion 0 to 6, 2304 pixels and a Usage ({e})") from e
            name = f"{number:06d}.pgm"
            pictures[name] = b"P5 48 48 255\n" + pixels.tobytes()
            rows.append((name, split, label))
    return _listing("FER2013", FER2013_7, rows, Memory(pictures))


def _numbered(
    path: Path, labels: tuple[str, ...], first: int, name: str, *, validation_is_test: bool = False
) -> Listing:
    """Split folders with one folder per class, named by number from ``first`` or by class."""
    listing = _folder(path)
    wanted = {str(first + i): i for i in range(len(labels))} | {n: i for i, n in enumerate(labels)}
    aliases = {
        "happy": "happiness",
        "sad": "sadness",
        "surprised": "surprise",
        "angry": "anger",
        "neutrality": "neutral",
    }
    numbers = [wanted.get(aliases.get(n.lower(), n.lower()), -1) for n in listing.labels]
    rows = []
    dropped: Counter[str] = Counter()
    for item, split, label in zip(listing.ids, listing.split.tolist(), listing.label.tolist(), strict=True):
        number = numbers[label] if label >= 0 else -1
        if label >= 0 and number < 0:
            dropped[listing.labels[label]] += 1
            continue
        rows.append((item, TEST if validation_is_test and split == VALIDATION else split, number))
    if not any(label >= 0 for _, _, label in rows):
        raise DataError(f"--data {path}: no folder named {first} to {first + len(labels) - 1} or {', '.join(labels)}")
    notes = [
        f"{n} pictures of {folder} were left out: none of the {len(labels)} classes" for folder, n in dropped.items()
    ]
    return _listing(name, labels, rows, listing.source, (*listing.notes, *notes))


def _file(path: Path) -> Path:
    if not path.is_file():
        raise NotFound(f"{path}: no such file; the layout needs it (see docs/training.md)")
    return path


_LAYOUTS: dict[str, Callable[[Path], Listing]] = {
    "folder": _folder,
    "list": _list,
    "ferplus": _ferplus,
    "rafdb": _rafdb,
    "affectnet7": _affectnet(AFFECTNET7),
    "affectnet8": _affectnet(AFFECTNET8),
    "fer2013": _fer2013,
}
