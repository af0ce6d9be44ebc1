"""Every data layout, made of a few files, and the errors for wrong data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from train_fakes import CLASSES, write_folder

from leaf_rt.errors import DataError, NotFound
from leaf_rt.labels import AFFECTNET8, FER2013_7, FERPLUS8, RAFDB7
from train.data.crop_cache import decode
from train.data.formats import TEST, TRAIN, VALIDATION, guess_layout, read_index

DOT = np.full((8, 8, 3), 120, np.uint8)


def png(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), DOT)
    return path


def test_folder_with_splits(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", per_class=3, unlabelled=4, valid=2)
    (root / "train" / "fear" / "notes.txt").write_text("x")
    index = read_index("folder", root)
    assert index.labels == CLASSES
    assert np.bincount(index.split).tolist() == [15 + 4, 10, 10]
    assert (index.label < 0).sum() == 4
    assert index.targets.sum() == 35
    assert "ignored 1 files whose suffix is not that of an image" in index.notes[0]
    assert decode(index.source.read(index.ids[0])) is not None


def test_folder_without_splits(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.JPG", "unlabelled/deep/3.png"):
        png(tmp_path / name)
    index = read_index("folder", tmp_path)
    assert index.labels == ("a", "b")
    assert dict(zip(index.ids, index.label.tolist(), strict=True)) == {
        "a/2.JPG": 0, "b/1.png": 1, "unlabelled/deep/3.png": -1,
    }  # fmt: skip


def test_folder_problems(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or folder"):
        read_index("folder", tmp_path / "none")
    png(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="at least two classes"):
        read_index("folder", tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no training image of class b"):
        read_index("folder", tmp_path)
    png(tmp_path / "b" / "1.png")
    png(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: is not in a class folder"):
        read_index("folder", tmp_path)


def test_lists(tmp_path: Path) -> None:
    rows = [("1.png", "sad", "train"), ("2.png", "glad", ""), ("3.png", "", "train"), ("4.png", "sad", "test")]
    text = "path,label,split\n" + "".join(f"{p},{c},{s}\n" for p, c, s in rows)
    (tmp_path / "faces.csv").write_text(text)
    lines = [json.dumps({"path": p, "label": c or None, "split": s or "train"}) for p, c, s in rows]
    (tmp_path / "faces.jsonl").write_text("\n".join(lines))
    for name in ("faces.csv", "faces.jsonl"):
        index = read_index("list", tmp_path / name)
        assert index.labels == ("glad", "sad")
        assert index.label.tolist() == [1, 0, -1, 1]
        assert index.split.tolist() == [TRAIN, TRAIN, TRAIN, TEST]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,split\n1.png,a,train\n2.png,b,later\n", r"faces.csv:3: wanted a path .*train.*'later'"),
        ("path,label,split\n1.png,a,train\n2.png,b,test\n", r"faces.csv:3: no training row has the label 'b'"),
    ],
)
def test_list_problems(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "faces.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_index("list", tmp_path)


def test_a_layout_is_recognised(tmp_path: Path) -> None:
    signs = {"fer2013new.csv": "ferplus", "fer2013.csv": "fer2013", "basic/EmoLabel/x": "rafdb", "EmoLabel/x": "rafdb",
             "train_set/annotations/x": "affectnet8", "a/x": "folder"}  # fmt: skip
    for number, (sign, layout) in enumerate(signs.items()):
        (tmp_path / str(number) / sign).parent.mkdir(parents=True)
        (tmp_path / str(number) / sign).write_text("emotion,pixels,Usage\n")
        assert guess_layout(tmp_path / str(number)) == layout
    assert guess_layout(tmp_path / "1" / "fer2013.csv") == "fer2013"
    (tmp_path / "list.csv").write_text("path,label\n")
    assert guess_layout(tmp_path / "list.csv") == "list"
    for header, layout in {"subDirectory_filePath,expression": "affectnet8", "path,label": "folder"}.items():
        (tmp_path / "training.csv").write_text(f"{header}\n")
        assert guess_layout(tmp_path) == layout


def test_ferplus(tmp_path: Path) -> None:
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    for c in range(8):
        votes = [0] * 10
        votes[c], votes[(c + 1) % 8] = 8, 1
        lines.append(f"Training,fer{c}.png,{','.join(map(str, votes))}")
    lines += ["PublicTest,fer8.png,4,3,3,0,0,0,0,0,0,0", "PrivateTest,fer9.png,0,0,0,0,0,0,0,0,0,10"]
    lines.append("Training,,0,0,0,0,0,0,0,0,0,10")
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as z:
        z.write(png(tmp_path / "dot.png"), "FER2013Train/fer0.png")
    index = read_index("ferplus", tmp_path)
    assert index.labels == FERPLUS8
    assert index.label.tolist() == [*range(8), 0]
    assert index.split.tolist() == [TRAIN] * 8 + [VALIDATION]
    assert index.targets[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]  # the single vote is dropped
    np.testing.assert_allclose(index.targets[8][:3], [0.4, 0.3, 0.3])
    assert index.agreement.tolist() == [2] * 8 + [0]
    assert index.notes[0].startswith("left out 1 images")
    assert decode(index.source.read("FER2013Train/fer0.png")) is not None
    assert index.source.stamp("FER2013Train/fer0.png") != index.source.stamp("FER2013Train/fer1.png") == ""


@pytest.mark.parametrize(
    ("votes", "agreement"),
    [
        ((6, 4, 0, 0, 0, 0, 0, 0, 0, 0), 2),  # more than half of all votes
        ((5, 4, 1, 0, 0, 0, 0, 0, 0, 0), 1),  # 5 of 9 without the single vote
        ((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), 0),
        ((5, 2, 0, 0, 0, 0, 0, 0, 3, 0), 0),  # unknown counts among the others
    ],
)
def test_ferplus_agreement(tmp_path: Path, votes: tuple[int, ...], agreement: int) -> None:
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    rows = [f"Training,{c}.png,{'0,' * c}10{',0' * (9 - c)}" for c in range(8)]
    rows.append(f"PublicTest,a.png,{','.join(map(str, votes))}")
    (tmp_path / "fer2013new.csv").write_text("\n".join([header, *rows]))
    assert read_index("ferplus", tmp_path).agreement.tolist() == [2] * 8 + [agreement]


def test_rafdb(tmp_path: Path) -> None:
    folder = tmp_path / "basic" / "EmoLabel"
    folder.mkdir(parents=True)
    lines = [f"train_{i:05d}.jpg {i}" for i in range(1, 8)] + ["test_0001.jpg 4"]
    (folder / "list_patition_label.txt").write_text("\n".join(lines))
    index = read_index("rafdb", tmp_path)
    assert index.labels == RAFDB7
    assert index.ids[0] == "Image/aligned/train_00001_aligned.jpg"
    assert (index.label[-1], index.split[-1]) == (RAFDB7.index("happiness"), TEST)
    (folder / "list_patition_label.txt").write_text("train_1.jpg 9")
    with pytest.raises(DataError, match=r"list_patition_label.txt:1: wanted a name .* 1 to 7"):
        read_index("rafdb", tmp_path)


def test_rafdb_in_numbered_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for c in range(1, 8):
            png(tmp_path / "DATASET" / split / str(c) / "x.jpg")
    index = read_index("rafdb", tmp_path)
    assert index.label[index.split == TRAIN].tolist() == list(range(7))


def test_affectnet_annotations(tmp_path: Path) -> None:
    for folder, labels in (("train_set", range(9)), ("val_set", (3, 7))):
        (tmp_path / folder / "annotations").mkdir(parents=True)
        for i, c in enumerate(labels):
            np.save(tmp_path / folder / "annotations" / f"{i}_exp.npy", np.array(str(c)))
    eight = read_index("affectnet8", tmp_path)
    assert eight.labels == AFFECTNET8
    assert np.bincount(eight.split).tolist() == [8, 0, 2]  # the published validation set is the test split
    assert eight.ids[0] == "train_set/images/0.jpg"
    seven = read_index("affectnet7", tmp_path)
    assert np.bincount(seven.split).tolist() == [7, 0, 1]
    assert "left out 3 images whose label is none of the 7 classes" in seven.notes


def test_affectnet_lists_and_folders(tmp_path: Path) -> None:
    head = "subDirectory_filePath,face_x,expression\n"
    (tmp_path / "training.csv").write_text(head + "".join(f"a/{c}.jpg,1,{c}\n" for c in range(11)))
    (tmp_path / "validation.csv").write_text(head + "b/1.jpg,1,7\n")
    index = read_index("affectnet8", tmp_path)
    assert np.bincount(index.split).tolist() == [8, 0, 1]
    folders = tmp_path / "folders"
    for split in ("train", "val"):
        for c in range(8):
            png(folders / split / str(c) / "x.jpg")
    index = read_index("affectnet7", folders)
    assert np.bincount(index.split).tolist() == [7, 0, 7]


def test_fer2013(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    rows = [f"{c},{pixels},Training" for c in range(7)] + [f"3,{pixels},PublicTest", f"3,{pixels},PrivateTest"]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    index = read_index("fer2013", tmp_path)
    assert index.labels == FER2013_7
    assert np.bincount(index.split).tolist() == [7, 1, 1]
    image = decode(index.source.read(index.ids[0]))
    assert image is not None
    assert image.shape == (48, 48, 3)
    assert (image == 7).all()
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n3,1 2 3,Training\n")
    with pytest.raises(DataError, match=r"fer2013.csv:2: wanted emotion 0 to 6, 2304 pixels"):
        read_index("fer2013", tmp_path)
