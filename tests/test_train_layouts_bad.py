"""Data sets with run outputs in them, other spellings, other encodings and damaged files."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from train_fakes import CLASSES, tiny, write_folder

from leaf_rt.errors import DataError, NoPermission
from train.data.dataset import load_data
from train.data.formats import TEST, TRAIN, read_index

PIXELS = " ".join(["7"] * 2304)
VOTES = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
FERPLUS = f"Usage,Image name,{VOTES}\n"
AFFECTNET = "subDirectory_filePath,face_x,expression\n"


def write(path: Path, content: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabeled"])
@pytest.mark.parametrize("top", ["", "train/"])
def test_both_spellings_of_unlabelled(tmp_path: Path, name: str, top: str) -> None:
    for picture in (f"{top}a/1.png", f"{top}b/2.png", f"{top}{name}/3.png", f"{name}/4.png"):
        write(tmp_path / picture)
    index = read_index("folder", tmp_path)
    assert index.labels == ("a", "b")
    assert sorted(index.label.tolist()) == [-1, -1, 0, 1]
    assert (index.split == TRAIN).all()


@pytest.mark.parametrize("top", ["", "train/"])
@pytest.mark.parametrize("out", ["runs/last", "out", "deep/er/out", ""])
def test_runs_inside_the_data_are_ignored(tmp_path: Path, top: str, out: str) -> None:
    for picture in (f"{top}a/1.png", f"{top}b/2.png", f"{top}c/3.png", "test/a/4.png"):
        write(tmp_path / picture)
    before = read_index("folder", tmp_path)
    for file in ("recipe.toml", "curves.png", "confusion.png", "before/recipe.toml", "before/curves.png"):
        write(tmp_path / top / out / file)
    index = read_index("folder", tmp_path)
    assert index.labels == before.labels
    assert index.ids == before.ids
    own = (Path(top) / (Path(out).parts or ("before",))[0]).as_posix()
    assert any(n == f"ignored folders of runs, models and crop caches: {own}" for n in index.notes)


def test_a_second_run_sees_the_same_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    recipe = tiny(tmp_path, data__cache=str(tmp_path / "data" / "train" / "cache"))
    first = load_data(recipe.data, recipe.split)
    write(tmp_path / "data" / "train" / "runs" / "recipe.toml")
    write(tmp_path / "data" / "train" / "runs" / "curves.png", (tmp_path / "data/train/fear/000.png").read_bytes())
    second = load_data(recipe.data, recipe.split)
    assert second.labels == CLASSES
    assert second.split == first.split


@pytest.mark.parametrize("top", ["", "train/"])
@pytest.mark.parametrize(
    "files",
    [("models/f.onnx", "models/f.json"), ("study/results.jsonl",), ("cache/images.npy",), ("logs/deep/er/events.0",)],
)
def test_folders_without_images_are_not_classes(tmp_path: Path, top: str, files: tuple[str, ...]) -> None:
    for file in ("a/1.png", "b/2.png", "b/notes.txt", *files):
        write(tmp_path / top / file)
    index = read_index("folder", tmp_path)
    assert index.labels == ("a", "b")
    assert index.ids == (f"{top}a/1.png", f"{top}b/2.png")
    folder = top + files[0].split("/")[0]
    assert index.notes == (
        f"ignored folders without images: {folder}",
        f"ignored {len(files) + 1} files whose suffix is not that of an image",
    )


def test_classes_without_known_images_are_named_and_empty_ones_are_an_error(tmp_path: Path) -> None:
    for file in ("a/1.png", "b/2.heic"):
        write(tmp_path / file)
    with pytest.raises(DataError, match=r"at least two classes, got \['a'\]; ignored folders without images: b$"):
        read_index("folder", tmp_path)
    write(tmp_path / "c" / "3.png")
    write(tmp_path / "d" / ".hidden")
    with pytest.raises(DataError, match="no training image of class d"):
        read_index("folder", tmp_path)


def test_a_run_in_the_data_folder_itself(tmp_path: Path) -> None:
    for file in ("a/1.png", "b/2.png", "before/curves.png", "tensorboard/events.0"):
        write(tmp_path / file)
    assert read_index("folder", tmp_path).labels == ("a", "b", "before")
    write(tmp_path / "recipe.toml")
    index = read_index("folder", tmp_path)
    assert index.labels == ("a", "b")
    assert index.ids == ("a/1.png", "b/2.png")
    assert index.notes == ("ignored folders of runs, models and crop caches: before, tensorboard",)


def test_names_that_are_not_utf8_are_left_out(tmp_path: Path) -> None:
    for picture in (b"a/1.png", b"b/2.png", b"a/caf\xe9.png", b"caf\xe9/3.png"):
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + picture)))
    index = read_index("folder", tmp_path)
    assert index.ids == ("a/1.png", "b/2.png")
    assert index.labels == ("a", "b")
    assert index.targets.tolist() == [[1, 0], [0, 1]]
    assert index.notes == ("left out 2 images whose names are not valid UTF-8: 'a/caf\\udce9.png', 'caf\\udce9/3.png'",)


def test_invalid_names_in_a_list_are_left_out(tmp_path: Path) -> None:
    rows = [("1.png", "a"), ("2\0.png", "a"), ("\ud800.png", "b"), ("3.png", "b")]
    write(tmp_path / "x.jsonl", "\n".join(json.dumps({"Path": p, "Label": c}) for p, c in rows))
    index = read_index("auto", tmp_path / "x.jsonl")
    assert index.ids == ("1.png", "3.png")
    assert index.label.tolist() == [0, 1]
    assert "left out 2 images" in index.notes[0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_of_every_separator(tmp_path: Path, separator: str, mark: str) -> None:
    lines = [("Path", " Label", "SPLIT"), ("a,b.png", "glad", "train"), ("2.png", "sad", ""), ("3.png", "sad", "Test")]
    if separator == ",":
        lines[1] = ('"a,b.png"', "glad", "train")
    list_file = write(tmp_path / "faces.tsv", mark + "\n".join(separator.join(line) for line in lines))
    for path in (list_file, tmp_path):
        index = read_index("list", path)
        assert index.ids == ("a,b.png", "2.png", "3.png")
        assert index.label.tolist() == [0, 1, 1]
        assert index.split.tolist() == [TRAIN, TRAIN, TEST]


BAD = [
    ("list", {"x.csv": b"path,label\ncaf\xe9.png,a\n"}, r"x\.csv: is not UTF-8 text"),
    ("list", {"x.csv": "path,label\n1.png,a\n".encode("utf-16")}, r"x\.csv: is not UTF-8 text"),
    ("list", {"x.csv": 'path,label\n"' + "1" * 140_000 + "\n"},
     r"x\.csv:\d: not valid CSV \(field .*is a quote not closed"),
    ("list", {"x.csv": 'path,label\n"a.png,happy\nb.png,sad\n'}, r"x\.csv:2: not valid CSV .*is a quote not closed"),
    ("list", {"x.csv": ""}, r"x\.csv: has no column path, label; .* but is ''"),
    ("list", {"x.csv": "file,class\n1.png,a\n"}, r"no column path, label; .*commas, semicolons or tabs .*'file,class'"),
    ("list", {"x.jsonl": "[1]\n"}, r"x\.jsonl:1: not a JSON object"),
    ("list", {"x.jsonl": '\n{"label": "a"}\n'}, r"x\.jsonl:2: wanted a path .*'path'"),
    ("list", {"x.jsonl": b"\xff{}"}, r"x\.jsonl: is not UTF-8 text"),
    ("ferplus", {"fer2013new.csv": f"{FERPLUS}Training,1.png,x,0,0,0,0,0,0,0,0,0\n"}, r"csv:2: wanted a Usage .*'x'"),
    ("ferplus", {"fer2013new.csv": f"{FERPLUS}Training,1.png,9\n"}, r"csv:2: wanted a Usage .* numbers of votes"),
    ("ferplus", {"fer2013new.csv": f"{FERPLUS}Later,1.png,9,0,0,0,0,0,0,0,0,0\n"}, r"csv:2: wanted a Usage .*'Later'"),
    ("ferplus", {"fer2013new.csv": "Usage,Image name\n"}, r"fer2013new\.csv: has no column neutral, happiness"),
    ("ferplus", {"fer2013new.csv": b"\xff"}, r"fer2013new\.csv: is not UTF-8 text"),
    ("ferplus", {"fer2013new.csv": f"{FERPLUS}Training,1.png,9,0,0,0,0,0,0,0,0,0\n", "images.zip": b"PK"},
     r"images\.zip: is not a complete zip archive"),
    ("rafdb", {"EmoLabel/list_patition_label.txt": "train_1.jpg 12"}, r"txt:1: wanted a name .*'train_1.jpg 12'"),
    ("rafdb", {"EmoLabel/list_patition_label.txt": "\ntrain_1 5"}, r"label\.txt:2: wanted a name .*'train_1 5'"),
    ("rafdb", {"EmoLabel/list_patition_label.txt": b"train_\xe9.jpg 1"}, r"label\.txt: is not UTF-8 text"),
    ("affectnet8", {"train_set/annotations/0_exp.npy": b"junk", "val_set/annotations/x": ""}, "an array of one"),
    ("affectnet8", {"train_set/annotations/0_exp.npy": b"", "val_set/annotations/x": ""}, "an array of one"),
    ("affectnet8", {"train_set/annotations/0_exp.npy": b"PK\3\4", "val_set/annotations/x": ""}, "an array of one"),
    ("affectnet8", {"training.csv": f"{AFFECTNET}a.jpg,1,joy\n", "validation.csv": AFFECTNET},
     r"training\.csv:2: wanted .* expression .*'joy'"),
    ("affectnet8", {"training.csv": "subDirectory_filePath\na.jpg\n"}, r"training\.csv: has no column expression"),
    ("fer2013", {"fer2013.csv": b"emotion,pixels,Usage\n\xff"}, r"fer2013\.csv: is not UTF-8 text"),
    ("fer2013", {"fer2013.csv": "emotion,pixels\n"}, r"fer2013\.csv: has no column Usage"),
    ("fer2013", {"fer2013.csv": f"emotion,pixels,Usage\n3,{PIXELS},Later\n"}, r"csv:2: wanted emotion .*'Later'"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "files", "words"), BAD)
def test_bad_files(tmp_path: Path, layout: str, files: dict[str, bytes | str], words: str) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(DataError, match=words):
        read_index(layout, tmp_path)


@pytest.mark.parametrize("value", [["3", "4"], "joy", "inf"])
def test_bad_annotations(tmp_path: Path, value: list[str] | str) -> None:
    for folder in ("train_set", "val_set"):
        (tmp_path / folder / "annotations").mkdir(parents=True)
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", np.array(float(value) if value == "inf" else value))
    with pytest.raises(DataError, match=r"0_exp\.npy: wanted an array of one number"):
        read_index("affectnet8", tmp_path)


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("x.json", "auto", r"wanted a \.csv list, or a \.jsonl list"),
        ("x.zip", "auto", r"is not UTF-8 text; lists of images are \.csv"),
        ("x.csv", "rafdb", "is a file; the rafdb layout needs the folder"),
    ],
)
def test_a_file_of_the_wrong_kind(tmp_path: Path, name: str, layout: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_index(layout, write(tmp_path / name, b"PK\xff\xfe"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may read everything")
def test_no_permission_to_read(tmp_path: Path) -> None:
    write(tmp_path / "x.csv").chmod(0)
    with pytest.raises(NoPermission, match=r"no permission to read .*x\.csv"):
        read_index("list", tmp_path / "x.csv")


@pytest.mark.parametrize("how", ["checksum", "deflate", "header", "name", "encrypted", "packing"])
def test_a_damaged_member_of_an_archive_is_left_out(tmp_path: Path, how: str) -> None:
    lines = [f"Training,{i}.png,{','.join('9' if i % 8 == c else '0' for c in range(10))}" for i in range(9)]
    write(tmp_path / "data" / "fer2013new.csv", FERPLUS + "\n".join(lines))
    zipped = tmp_path / "data" / "images.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(9):
            picture = cv2.imencode(".png", np.full((8, 8), 20 * i, np.uint8))[1].tobytes()
            archive.writestr(f"FER2013Train/{i}.png", picture)
        member = archive.infolist()[0]
    raw = bytearray(zipped.read_bytes())
    start = member.header_offset
    central = raw.rindex(b"PK\x01\x02", 0, raw.index(b"FER2013Train/0.png", start + 60))
    if how == "checksum":
        raw[central + 16] ^= 255
    elif how == "deflate":
        raw[start + 30 + len(member.filename)] ^= 255
    elif how == "header":
        raw[start] ^= 255
    elif how == "name":
        raw[start + 7] |= 8  # UTF-8, says the member's own header
        raw[start + 30] = 255
    elif how == "encrypted":
        raw[central + 8] |= 1
    else:
        raw[central + 10] = 93
    zipped.write_bytes(raw)
    recipe = tiny(tmp_path, split__kind="all")
    notes = load_data(recipe.data, recipe.split).notes
    assert "left out 1 images that cannot be read: FER2013Train/0.png" in notes


@pytest.mark.parametrize("how", ["name", "version"])
def test_an_archive_with_a_damaged_table(tmp_path: Path, how: str) -> None:
    write(tmp_path / "fer2013new.csv", f"{FERPLUS}Training,1.png,9,0,0,0,0,0,0,0,0,0\n")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("FER2013Train/1.png", b"x")
    raw = bytearray((tmp_path / "images.zip").read_bytes())
    central = raw.index(b"PK\x01\x02")
    if how == "name":
        raw[central + 9] |= 8  # UTF-8
        raw[central + 46] = 255
    else:
        raw[central + 6] = 255
    (tmp_path / "images.zip").write_bytes(raw)
    with pytest.raises(DataError, match=r"images\.zip: is not a complete zip archive"):
        read_index("ferplus", tmp_path)
