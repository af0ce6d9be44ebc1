"""Data layouts: which pictures there are, in which split, with which label. One function per layout.

Knows folders, list files and annotations; must not decode a picture or know a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leaf_rt.errors import DataError, NoPermission, NotFound
from leaf_rt.labels import AFFECTNET7, AFFECTNET8, FER2013_7, FERPLUS8, RAFDB7
from leaf_rt.types import F32, I64
from train.data.image_store import Files, Memory, Source, Zip
from train.data.tables import Row, csv_rows, json_rows, opened, parsed, text_rows
from train.recipes.schema import RECIPE

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")
UNLABELLED = ("unlabelled", "unlabeled")
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "train_set": TRAIN, "val": VALIDATION, "valid": VALIDATION,
                  "validation": VALIDATION, "test": TEST, "testing": TEST}  # fmt: skip
_OWN = (RECIPE, "meta.json", "cache.json")  # what runs, models and crop caches leave in their folders
_OF_RUNS = ("tensorboard", "before")  # folders beside a run's recipe


@dataclass(frozen=True, slots=True, eq=False)
class DatasetIndex:
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


def read_listing(layout: str, path: Path) -> DatasetIndex:
    """List a data set.

    Raises:
        NotFound: The path, or a file that the layout needs, is missing.
        NoPermission: It may not be read.
        DataError: A label, a split or a line makes no sense, a class is empty, or there is no picture.
    """
    if not path.exists():
        raise NotFound(f"--data {path}: no such file or folder")
    try:
        layout = guess_layout(path) if layout == "auto" else layout
        if path.is_file() and layout not in ("list", "fer2013"):
            raise DataError(f"--data {path}: is a file; the {layout} layout wants the folder of the data")
        listing = _LAYOUTS[layout](path)
    except PermissionError as e:
        raise NoPermission(f"--data {path}: {e.filename} may not be read") from e
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
        return "fer2013" if path.suffix.lower() == ".csv" and "pixels" in _first_line(path) else "list"
    signs = {
        "fer2013new.csv": "ferplus",
        "fer2013.csv": "fer2013",
        "basic/EmoLabel": "rafdb",
        "EmoLabel": "rafdb",
        "train_set/annotations": "affectnet8",
    }
    training = path / "training.csv"
    if training.is_file() and "subDirectory_filePath" in _first_line(training):
        return "affectnet8"
    return next((layout for sign, layout in signs.items() if (path / sign).exists()), "folder")


def _first_line(path: Path) -> str:
    with opened(path) as f:
        return f.readline()


def _listing(
    name: str,
    labels: Sequence[str],
    rows: Iterable[tuple[str, int, int]],
    source: Source,
    notes: Iterable[str] = (),
    targets: F32 | None = None,
) -> DatasetIndex:
    """From rows of id, split and label; ids that no file can have, or that JSON cannot hold, are left out."""
    rows, notes = list(rows), list(notes)
    label = np.array([r[2] for r in rows], np.int64)
    if targets is None:
        targets = np.zeros((len(rows), len(labels)), np.float32)
        known = np.flatnonzero(label >= 0)
        targets[known, label[known]] = 1.0
    split = np.array([r[1] for r in rows], np.int64)
    kept = [i for i, r in enumerate(rows) if _is_text(r[0])]
    if len(kept) < len(rows):
        some = ", ".join(ascii(r[0]) for r in rows if not _is_text(r[0]))
        notes.append(f"{len(rows) - len(kept)} pictures were left out: their names are no UTF-8 text: {some[:200]}")
    ids = tuple(rows[i][0] for i in kept)
    return DatasetIndex(name, tuple(labels), ids, split[kept], label[kept], targets[kept], source, tuple(notes))


def _is_text(name: str) -> bool:
    """Whether a file's name can be written as UTF-8."""
    return "\0" not in name and name == name.encode(errors="ignore").decode()


def _folder(path: Path) -> DatasetIndex:
    """A folder per class and ``unlabelled``; or such folders under train, validation (or val) and test.

    Without train, the class folders that lie beside validation and test are the training pictures.
    """
    tops = {d.name.lower(): d for d in path.iterdir() if d.is_dir()}
    parts = {d: _SPLIT_FOLDERS[name] for name, d in tops.items() if name in _SPLIT_FOLDERS}
    if TRAIN not in parts.values():
        parts = {path: TRAIN, **parts}
    else:
        parts.update({tops[name]: -1 for name in UNLABELLED if name in tops})
    found = {part: _files(part) for part in parts}
    classes = [
        d for part, split in parts.items() if split >= 0
        for d in part.iterdir() if d.is_dir() and not d.name.startswith(".") and d.name.lower() not in UNLABELLED
        and d not in parts and d not in found[part][1] and _is_text(d.name)
    ]  # fmt: skip
    bare = {d for d in classes if any(d in without for _, _, without in found.values())}
    names = sorted({d.name for d in classes if d not in bare})
    notes = [f"folders that hold files but no picture were passed over: {_names(bare, path)}"] if bare else []
    if len(names) < 2:
        got = "; ".join([f"got {names or 'none'}", *notes])
        raise DataError(f"--data {path}: wanted a folder for each of at least two classes, {got}")
    rows: list[tuple[str, int, int]] = []
    foreign = 0
    for part, split in parts.items():
        for file in found[part][0]:
            if part == path and path / file.relative_to(path).parts[0] in parts:
                continue  # of another split
            if file.suffix.lower() not in PICTURES:
                foreign += 1
                continue
            folder = file.relative_to(part).parts[0]
            unlabelled = split < 0 or folder.lower() in UNLABELLED or not _is_text(folder)  # the last is left out
            if not unlabelled and folder not in names:
                raise DataError(
                    f"{file}: lies in no class folder; move it into one of {', '.join(names)}, {UNLABELLED[0]}"
                )
            label = -1 if unlabelled else names.index(folder)
            rows.append((file.relative_to(path).as_posix(), max(split, TRAIN), label))
    notes += [f"{foreign} files that are no pictures (by their ending) were passed over"] if foreign else []
    own = {d for _, folders, _ in found.values() for d in folders}
    notes += [f"folders of runs, models and crop caches were passed over: {_names(own, path)}"] if own else []
    return _listing(f"folder {path.resolve().name}", names, rows, Files(path), notes)


def _names(folders: Iterable[Path], path: Path) -> str:
    return ", ".join(sorted(folder.relative_to(path).as_posix() for folder in folders))


def _files(part: Path) -> tuple[list[Path], set[Path], set[Path]]:
    """What lies under a folder, in order, without what runs wrote.

    And which folders in it hold outputs and no picture, and which hold other files and no picture.
    """
    files = sorted(p for p in part.rglob("*") if p.is_file() and not p.name.startswith("."))
    own = [p for p in files if p.name in _OWN]
    runs = {p.parent for p in own if p.name == RECIPE}
    beside = {part / name for name in _OF_RUNS if part in runs and (part / name).is_dir()}
    below = runs - {part} | beside
    if runs:
        files = [p for p in files if p.parent not in runs and below.isdisjoint(p.parents)]
    top = len(part.parts)
    pictured = {part / p.parts[top] for p in files if p.suffix.lower() in PICTURES}
    outputs = {part / p.parts[top] for p in own if p.parent != part} - pictured | beside
    return files, outputs, {part / p.parts[top] for p in files if p.parent != part} - pictured - outputs


def _list(path: Path) -> DatasetIndex:
    """A CSV with a header, or JSONL, with path, label (empty: unlabelled) and perhaps split, relative to the file."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".jsonl"))
        if len(found) != 1:
            raise DataError(
                f"--data {path}: wanted one .csv, .tsv or .jsonl list in it, got {len(found)}; name the file"
            )
        path = found[0]
    if path.suffix.lower() == ".json":
        raise DataError(f"--data {path}: wanted a .csv list, or a .jsonl one with an object per line, got .json")

    def meaning(row: Row) -> tuple[str, int, str]:
        split = row.get("split", "").strip().lower() or "train"
        return row["path"], _SPLIT_FOLDERS[split], row.get("label", "").strip()

    records = json_rows(path) if path.suffix.lower() == ".jsonl" else csv_rows(path, ("path", "label"))
    rows = list(parsed(records, meaning, "a path and a split of train, validation or test"))
    names = sorted({label for _, (_, split, label) in rows if label and split == TRAIN})
    indexed: list[tuple[str, int, int]] = []
    for where, (name, split, label) in rows:
        if label and label not in names:
            raise DataError(f"{where}: label {label!r} stands in no training line; known: {', '.join(names) or 'none'}")
        indexed.append((name, split, names.index(label) if label else -1))
    return _listing(f"list {path.name}", names, indexed, Files(path.parent))


def _ferplus(path: Path) -> DatasetIndex:
    """``fer2013new.csv`` beside ``images.zip`` or the folders FER2013Train, FER2013Valid, FER2013Test.

    The class is the most voted one; pictures whose most-voted class is unknown or no face are left out. Soft targets
    are the votes of the 8 classes, single votes dropped (Barsoum et al., ICMI 2016).
    """
    folders = {"Training": ("FER2013Train", TRAIN), "PublicTest": ("FER2013Valid", VALIDATION),
               "PrivateTest": ("FER2013Test", TEST)}  # fmt: skip
    columns = (*FERPLUS8, "unknown", "NF")

    def meaning(row: Row) -> tuple[str, str, int, list[int]]:
        if not row["image name"]:
            return "", "", TRAIN, []
        return row["image name"], *folders[row["usage"]], [int(row[c.lower()]) for c in columns]

    rows: list[tuple[str, int, int]] = []
    votes: list[list[int]] = []
    left_out = 0
    records = csv_rows(path / "fer2013new.csv", ("Usage", "Image name", *columns))
    wanted = f"a Usage of {', '.join(folders)} and numbers of votes"
    for _, (name, folder, split, counts) in parsed(records, meaning, wanted):
        if not name:
            continue  # the label file has lines without a picture
        label = int(np.argmax(counts))
        if label >= len(FERPLUS8):
            left_out += 1
            continue
        rows.append((f"{folder}/{name}", split, label))
        votes.append(counts[: len(FERPLUS8)])
    targets = np.array(votes, np.float32).reshape(-1, len(FERPLUS8))
    targets[targets <= 1] = 0.0
    targets /= np.maximum(targets.sum(1, keepdims=True), 1.0)
    zipped = path / "images.zip"
    source: Source = Zip(zipped) if zipped.is_file() else Files(path)
    note = f"{left_out} pictures were left out: most annotators saw no face or no known expression"
    return _listing("FERPlus", FERPLUS8, rows, source, [note], targets)


def _rafdb(path: Path) -> DatasetIndex:
    """RAF-DB basic: ``EmoLabel/list_patition_label.txt`` and ``Image/aligned``; or train and test folders of 1 to 7."""
    base = path / "basic" if (path / "basic").is_dir() else path
    listed = base / "EmoLabel" / "list_patition_label.txt"
    if not listed.is_file():
        top = path / "DATASET" if (path / "DATASET").is_dir() else path
        return _numbered(top, RAFDB7, first=1, name="RAF-DB")

    def meaning(line: str) -> tuple[str, int, int]:
        match = re.fullmatch(r"((train|test)_\S*)\.(\S+)\s+([1-7])", line)
        if match is None:
            raise ValueError(f"got {line!r}")
        stem, part, ending, number = match.groups()
        return f"Image/aligned/{stem}_aligned.{ending}", TRAIN if part == "train" else TEST, int(number) - 1

    rows = [row for _, row in parsed(text_rows(listed), meaning, "a name train_* or test_* and a label 1 to 7")]
    return _listing("RAF-DB", RAFDB7, rows, Files(base))


def _affectnet(labels: tuple[str, ...]) -> Callable[[Path], DatasetIndex]:
    """AffectNet: ``train_set`` and ``val_set`` with ``annotations/N_exp.npy``, list files, or folders 0 to 7.

    Its published validation set is what everybody tests on: it is the test split here.
    """

    def read(path: Path) -> DatasetIndex:
        sets = {"train_set": TRAIN, "val_set": TEST}
        rows: list[tuple[str, int, int]] = []
        if all((path / s / "annotations").is_dir() for s in sets):
            for folder, split in sets.items():
                for file in sorted((path / folder / "annotations").glob("*_exp.npy")):
                    picture = f"{folder}/images/{file.name.removesuffix('_exp.npy')}.jpg"
                    rows.append((picture, split, _annotation(file)))
        elif (path / "training.csv").is_file():
            for name, split in (("training.csv", TRAIN), ("validation.csv", TEST)):
                records = csv_rows(path / name, ("subDirectory_filePath", "expression"))
                meanings = parsed(
                    records, lambda r: (r["subdirectory_filepath"], int(r["expression"])), "an expression 0 to 10"
                )
                rows.extend((f"Manually_Annotated_Images/{p}", split, label) for _, (p, label) in meanings)
        else:
            return _numbered(path, labels, first=0, name=f"AffectNet-{len(labels)}", validation_is_test=True)
        kept = [r for r in rows if 0 <= r[2] < len(labels)]
        notes = [f"{len(rows) - len(kept)} pictures were left out: their label is none of the {len(labels)}"]
        return _listing(f"AffectNet-{len(labels)}", labels, kept, Files(path), notes if len(kept) < len(rows) else ())

    return read


def _annotation(file: Path) -> int:
    """The number in an AffectNet annotation."""
    try:
        with file.open("rb") as f:
            return int(np.lib.format.read_array(f, allow_pickle=False))
    except (ValueError, TypeError, OverflowError) as e:
        raise DataError(f"{file}: wanted an array of one number ({e}); download it again") from e


def _fer2013(path: Path) -> DatasetIndex:
    """``fer2013.csv`` with emotion, pixels and Usage; or train and test folders named by class."""
    lists = path if path.is_file() else path / "fer2013.csv"
    if not lists.is_file():
        return _folder(path)
    usage = {"Training": TRAIN, "PublicTest": VALIDATION, "PrivateTest": TEST}

    def meaning(row: Row) -> tuple[int, int, bytes]:
        pixels = np.array(row["pixels"].split(), dtype=np.uint8)
        label, split = int(row["emotion"]), usage[row["usage"].strip()]
        if pixels.size != 48 * 48 or not 0 <= label < len(FER2013_7):
            raise ValueError(f"{pixels.size} pixels, emotion {label}")
        return label, split, pixels.tobytes()

    rows, pictures = [], {}
    records = parsed(
        csv_rows(lists, ("emotion", "pixels", "Usage")), meaning, "emotion 0 to 6, 2304 pixels and a Usage"
    )
    for number, (_, (label, split, pixels)) in enumerate(records, 2):
        name = f"{number:06d}.pgm"
        pictures[name] = b"P5 48 48 255\n" + pixels
        rows.append((name, split, label))
    return _listing("FER2013", FER2013_7, rows, Memory(pictures))


def _numbered(
    path: Path, labels: tuple[str, ...], first: int, name: str, *, validation_is_test: bool = False
) -> DatasetIndex:
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


_LAYOUTS: dict[str, Callable[[Path], DatasetIndex]] = {
    "folder": _folder,
    "list": _list,
    "ferplus": _ferplus,
    "rafdb": _rafdb,
    "affectnet7": _affectnet(AFFECTNET7),
    "affectnet8": _affectnet(AFFECTNET8),
    "fer2013": _fer2013,
}
