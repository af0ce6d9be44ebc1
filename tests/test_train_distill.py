"""More unlabelled images, and a teacher that labels them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from train_fakes import CLASSES, tiny, train_command, write_folder

from leaf_rt.errors import DataError, LeafError, NotFound
from train.data.dataset import load_data
from train.data.unlabelled import read_unlabelled
from train.loop.checkpoint import load_model
from train.loop.distillation import ANSWERS, MOST_REPEATS, repeats
from train.loop.distributed import DistributedContext
from train.loop.inference import predict
from train.loop.training import Training
from train.recipes.loading import to_toml

ALONE = DistributedContext(0, 1, torch.device("cpu"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_folder(tmp_path / "data")
    write_folder(tmp_path / "other", per_class=3, valid=2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    torch.set_num_threads(1)
    return tmp_path


def test_images_of_a_folder_or_an_archive_become_unlabelled(root: Path) -> None:
    train = root / "other" / "train"
    shutil.copy(root / "data" / "valid" / "fear" / "000.png", train / "fear" / "copy.png")
    (train / "notes.txt").write_text("no image")
    (train / "broken.png").write_bytes(b"no image")
    with zipfile.ZipFile(root / "other.zip", "w") as archive:
        for file in sorted(train.rglob("*.*")):
            archive.write(file, file.relative_to(train))
    plain = load_data(tiny(root).data, tiny(root).split)
    for path in (train, root / "other.zip"):
        recipe = tiny(root, data__unlabelled=str(path))
        data = load_data(recipe.data, recipe.split)
        more = data.unlabelled.row[len(plain.unlabelled) :]
        assert len(more) == 15, "without the copy of a validation image and the broken one"
        assert (data.unlabelled.label[-15:] == -1).all()
        assert any("15 more unlabelled images" in note and "left out 2" in note for note in data.notes)
        assert len({data.images[row].tobytes() for row in more}) == 15
        assert {data.images[row].shape for row in more} == {(1, 20, 20)}


@pytest.mark.parametrize("name", ["gone", "empty", "text.zip"])
def test_wrong_places_of_unlabelled_images(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(LeafError, match=r"--data\.unlabelled .*" + name):
        read_unlabelled(tmp_path / name)


def test_rare_classes_are_repeated() -> None:
    probs = np.eye(3, dtype=np.float32)[[0] * 16 + [1] * 4 + [2]]
    assert repeats(probs, 0.0).tolist() == [1] * 21
    assert repeats(probs, 0.5).tolist() == [1] * 16 + [2] * 4 + [4]
    assert repeats(probs, 1.0).tolist() == [1] * 16 + [4] * 4 + [MOST_REPEATS]


@pytest.mark.slow
def test_a_student_learns_from_a_teacher(root: Path) -> None:
    (root / "teacher.toml").write_text(to_toml(tiny(root, method__name="supervised", run__epochs=4)))
    assert train_command(["--recipe", str(root / "teacher.toml"), "--out", str(root / "teacher")]) == 0
    recipe = tiny(
        root, method__name="supervised", data__unlabelled=str(root / "other" / "train"),
        distill__teacher=str(root / "teacher"), distill__weight=0.25, distill__balance=0.0,
    )  # fmt: skip
    before = load_data(recipe.data, recipe.split)
    training = Training(recipe, before, ALONE, root / "student")
    data, n = training.data, len(before.labelled)
    assert len(data.unlabelled) == 0
    assert len(data.labelled) == n + len(before.unlabelled)

    teacher, _ = load_model(root / "teacher")
    probs = predict(teacher, training.images, data.labelled.row, 16, training.views, "off", flip=True)
    expected = 0.75 * before.labelled.targets + 0.25 * probs[:n]
    np.testing.assert_allclose(data.labelled.targets[:n], expected, atol=1e-6)
    np.testing.assert_allclose(data.labelled.targets[n:], probs[n:], atol=1e-6)
    assert training.train_step(16)[0]["loss"].isfinite()

    shutil.rmtree(root / "teacher")
    again = Training(recipe, before, ALONE, root / "student", resumed=True)
    np.testing.assert_array_equal(again.data.labelled.targets, data.labelled.targets)
    kept = root / "student" / ANSWERS
    with np.load(kept) as content:
        rows, probs = content["rows"], content["probs"]
    for damage in (b"damaged", b"", {"probs": probs[:, :2]}, {"probs": probs * np.nan}, {"probs": probs.astype("U9")}):
        if isinstance(damage, bytes):
            kept.write_bytes(damage)
        else:
            np.savez(kept, rows=rows, **damage)
        with pytest.raises(NotFound, match="teacher"):
            Training(recipe, before, ALONE, root / "student", resumed=True)


@pytest.mark.slow
def test_a_teacher_must_know_the_classes(root: Path) -> None:
    recipe = tiny(root, method__name="supervised", distill__teacher="bundled")
    with pytest.raises(DataError, match=r"distill\.teacher bundled: knows neutral.*the data has " + CLASSES[0]):
        Training(recipe, load_data(recipe.data, recipe.split), ALONE, root / "student")
