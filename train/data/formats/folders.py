"""Layouts with one folder per class. Knows files and folders; must not know the content of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from leaf_rt.errors import DataError
from train.data.formats.index import SPLIT_NAMES, TEST, TRAIN, VALIDATION, DatasetIndex, Row, build_index, is_valid_name
from train.data.image_store import FolderStore
from train.recipes.schema import RECIPE

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
UNLABELLED_NAMES = ("unlabelled", "unlabeled")
_OUTPUT_FILES = (RECIPE, "meta.json", "cache.json")  # files that mark the folders of runs, models and crop caches
_RUN_FOLDERS = ("tensorboard", "before")  # folders beside the recipe of a run
_NO_SPLIT = -1  # a folder of unlabelled images beside the split folders

# Names that copies of the published data sets use for our class names.
_CLASS_ALIASES = {
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "angry": "anger",
    "neutrality": "neutral",
}


class _Scan(NamedTuple):
    """What a folder contains."""

    files: list[Path]  # all files, sorted, without those of runs
    output_folders: set[Path]  # top folders of runs, models and crop caches
    empty_folders: set[Path]  # other top folders with files but without an image


def read_folders(path: Path) -> DatasetIndex:
    """Read a folder per class and ``unlabelled``, at the top or under train, validation (or val) and test.

    Without a train folder, the class folders beside validation and test are the training images.

    Raises:
        DataError: There are fewer than two classes, or an image lies outside of the class folders.
    """
    splits = _split_folders(path)
    scans = {part: _scan(part) for part in splits}
    output_folders = {folder for scan in scans.values() for folder in scan.output_folders}
    empty_folders = {folder for scan in scans.values() for folder in scan.empty_folders}

    class_folders = [
        folder
        for part, split in splits.items()
        if split != _NO_SPLIT
        for folder in part.iterdir()
        if _can_be_class(folder) and folder not in splits and folder not in scans[part].output_folders
    ]
    ignored = empty_folders & set(class_folders)
    classes = sorted({folder.name for folder in class_folders if folder not in ignored})
    notes = [f"ignored folders without images: {_relative(ignored, path)}"] if ignored else []
    if len(classes) < 2:
        found = "; ".join([f"got {classes or 'none'}", *notes])
        raise DataError(f"--data {path}: wanted a folder for each of at least two classes, {found}")

    rows: list[Row] = []
    others = 0
    for part, split in splits.items():
        for file in scans[part].files:
            if part == path and path / file.relative_to(path).parts[0] in splits:
                continue  # belongs to another split
            if file.suffix.lower() in IMAGE_SUFFIXES:
                rows.append((file.relative_to(path).as_posix(), max(split, TRAIN), _label(file, part, split, classes)))
            else:
                others += 1
    if others:
        notes.append(f"ignored {others} files whose suffix is not that of an image")
    if output_folders:
        notes.append(f"ignored folders of runs, models and crop caches: {_relative(output_folders, path)}")
    return build_index(f"folder {path.resolve().name}", classes, rows, FolderStore(path), notes)


def read_numbered_folders(
    path: Path, labels: tuple[str, ...], first: int, name: str, *, validation_is_test: bool = False
) -> DatasetIndex:
    """Read split folders with one folder per class, named by a number or by the class.

    Args:
        path: Folder of the data.
        labels: C class names.
        first: Number of the first class.
        name: Of the data set, for messages.
        validation_is_test: Whether the validation folder holds the test split.

    Raises:
        DataError: See ``read_folders``; also if no folder has a known name.
    """
    index = read_folders(path)
    numbers = {str(first + i): i for i in range(len(labels))} | {label: i for i, label in enumerate(labels)}
    label_of = [numbers.get(_CLASS_ALIASES.get(n.lower(), n.lower()), -1) for n in index.labels]
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for image, split, folder in zip(index.ids, index.split.tolist(), index.label.tolist(), strict=True):
        label = label_of[folder] if folder >= 0 else -1
        if folder >= 0 and label < 0:
            left_out[index.labels[folder]] += 1
            continue
        rows.append((image, TEST if validation_is_test and split == VALIDATION else split, label))
    if not any(label >= 0 for _, _, label in rows):
        raise DataError(f"--data {path}: no folder named {first} to {first + len(labels) - 1} or {', '.join(labels)}")
    notes = [f"left out {n} images of {name}, which is none of the {len(labels)} classes"
             for name, n in left_out.items()]  # fmt: skip
    return build_index(name, labels, rows, index.source, (*index.notes, *notes))


def _split_folders(path: Path) -> dict[Path, int]:
    """The folders that hold images, with their splits."""
    tops = {d.name.lower(): d for d in path.iterdir() if d.is_dir()}
    splits = {folder: SPLIT_NAMES[name] for name, folder in tops.items() if name in SPLIT_NAMES}
    if TRAIN not in splits.values():
        return {path: TRAIN, **splits}
    return splits | {tops[name]: _NO_SPLIT for name in UNLABELLED_NAMES if name in tops}


def _scan(part: Path) -> _Scan:
    """List a folder with everything below it, without the files of runs and hidden files."""
    files = sorted(p for p in part.rglob("*") if p.is_file() and not p.name.startswith("."))
    output_files = [p for p in files if p.name in _OUTPUT_FILES]
    runs = {p.parent for p in output_files if p.name == RECIPE}
    beside = {part / name for name in _RUN_FOLDERS if part in runs and (part / name).is_dir()}
    if runs:
        below = runs - {part} | beside
        files = [p for p in files if p.parent not in runs and below.isdisjoint(p.parents)]
    depth = len(part.parts)

    def top(file: Path) -> Path:
        return part / file.parts[depth]

    with_images = {top(p) for p in files if p.suffix.lower() in IMAGE_SUFFIXES}
    outputs = {top(p) for p in output_files if p.parent != part} - with_images | beside
    return _Scan(files, outputs, {top(p) for p in files if p.parent != part} - with_images - outputs)


def _can_be_class(folder: Path) -> bool:
    name = folder.name
    return folder.is_dir() and not name.startswith(".") and name.lower() not in UNLABELLED_NAMES and is_valid_name(name)


def _label(file: Path, part: Path, split: int, classes: list[str]) -> int:
    """The class of an image by its top folder, -1 if it is unlabelled.

    Raises:
        DataError: The image lies outside of the class folders.
    """
    folder = file.relative_to(part).parts[0]
    # Names that are not valid are left out later, with a note.
    if split == _NO_SPLIT or folder.lower() in UNLABELLED_NAMES or not is_valid_name(folder):
        return -1
    if folder not in classes:
        raise DataError(
            f"{file}: is not in a class folder; move it into one of {', '.join(classes)}, {UNLABELLED_NAMES[0]}"
        )
    return classes.index(folder)


def _relative(folders: Iterable[Path], path: Path) -> str:
    return ", ".join(sorted(folder.relative_to(path).as_posix() for folder in folders))
