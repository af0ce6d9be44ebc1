"""The crop cache and the data of a run, with damaged, unusual and duplicate images."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from train_fakes import CLASSES, tiny, write_folder

from leaf_rt.errors import DataError, NotFound
from train.data.crop_cache import CropSpec, decode, prepare
from train.data.cropper import FaceCropper
from train.data.dataset import Images, Stream, load_data, load_split, open_crops
from train.data.image_store import FolderStore

PLAIN = CropSpec(16, 0.0, "grey", align=False)
PHOTO = Path(__file__).parents[2] / "shared" / "media" / "happy-baby.jpeg"


class Counting(FolderStore):
    """Counts the reads of each image."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, name: str) -> bytes:
        self.reads[name] += 1
        return super().read(name)


def save(path: Path, image: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)  # type: ignore[call-overload]


def test_images_of_every_kind_are_cropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    color = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    save(tmp_path / "color.png", color)
    save(tmp_path / "copy.bmp", color)
    save(tmp_path / "grey.png", color[..., 0])
    save(tmp_path / "deep.png", color.astype(np.uint16) * 256)
    save(tmp_path / "alpha.png", np.dstack([color, np.zeros((24, 24), np.uint8)]))
    save(tmp_path / "dot.png", color[:1, :1])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    ids = ["color.png", "copy.bmp", "grey.png", "deep.png", "alpha.png", "dot.png", "text.png", "empty.png", "gone.png"]
    crops = prepare(ids, FolderStore(tmp_path), tmp_path / "cache", PLAIN)
    assert crops.images.shape == (6, 1, 16, 16)
    assert crops.unreadable == ("text.png", "empty.png", "gone.png")
    assert crops.row.tolist()[6:] == [-1, -1, -1]
    assert crops.pixels[0] == crops.pixels[1], "the same pixels in another file"
    assert (crops.images[crops.row[4]] == 255).all(), "transparent pixels become white"
    assert not crops.found.any()


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", np.full((20, 20), 40 * i, np.uint8))
    source = Counting(tmp_path)
    ids = ["0.png", "1.png", "2.png"]
    first = prepare(ids[:2], source, tmp_path / "cache", PLAIN)
    again = prepare(ids, source, tmp_path / "cache", PLAIN)
    assert source.reads == {"0.png": 1, "1.png": 1, "2.png": 1}
    assert (again.images[:2] == first.images).all()
    save(tmp_path / "0.png", np.full((20, 20), 200, np.uint8))
    changed = prepare(ids, source, tmp_path / "cache", PLAIN)
    assert source.reads["0.png"] == 2
    assert changed.images[changed.row[0], 0, 0, 0] == 200


def test_a_cache_of_other_crops_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.zeros((20, 20), np.uint8))
    prepare(["0.png"], FolderStore(tmp_path), tmp_path / "cache", PLAIN)
    with pytest.raises(DataError, match="holds other crops"):
        prepare(["0.png"], FolderStore(tmp_path), tmp_path / "cache", CropSpec(32, 0.0, "grey", align=False))


def test_rgb_crops_are_rgb(tmp_path: Path) -> None:
    save(tmp_path / "red.png", np.full((20, 20, 3), (0, 0, 255), np.uint8))  # BGR
    crops = prepare(["red.png"], FolderStore(tmp_path), tmp_path / "cache", CropSpec(16, 0.0, "rgb", align=False))
    assert crops.images[0, :, 8, 8].tolist() == [255, 0, 0]


@pytest.mark.skipif(not PHOTO.is_file(), reason=f"{PHOTO} (a photograph) is not here")
def test_a_face_is_found_and_aligned() -> None:
    image = decode(PHOTO.read_bytes())
    assert image is not None
    with FaceCropper(64, 0.05, "grey") as cropper:
        crop, found = cropper.crop(image)
        blank, found_in_blank = cropper.crop(np.full((48, 48, 3), 128, np.uint8))
    assert found
    assert crop.shape == (64, 64)
    assert crop.std() > 20
    assert not found_in_blank
    assert (blank == 128).all()


def test_copies_across_splits_are_reported_and_dropped_on_request(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", per_class=12)
    for i in range(2):
        (root / "train" / "fear" / f"{i:03d}.png").write_bytes((root / "test" / "fear" / f"{i:03d}.png").read_bytes())
    recipe = tiny(tmp_path)
    kept = load_data(recipe.data, recipe.split)
    assert any("2 training images are copies" in n and "kept" in n for n in kept.notes)
    recipe = tiny(tmp_path, data__duplicates="drop")
    dropped = load_data(recipe.data, recipe.split)
    assert any("2 training images are copies" in n and "dropped" in n for n in dropped.notes)
    assert len(kept.unlabelled) - len(dropped.unlabelled) == 2


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "train" / "fear" / "broken.png").write_bytes(b"\x89PNG broken")
    recipe = tiny(tmp_path)
    data = load_data(recipe.data, recipe.split)
    assert any("1 images that cannot be read" in n and "train/fear/broken.png" in n for n in data.notes)


def test_targets_are_hard_labels_or_votes(tmp_path: Path) -> None:
    soft = 0.6 * np.eye(8) + 0.4 * np.roll(np.eye(8), 1, axis=1)
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "images.zip", "w") as archive:
        for number, row in enumerate(soft):
            name = f"fer{number}.png"
            lines.append(f"Training,{name},{','.join(f'{10 * share:.0f}' for share in row)},0,0")
            save(tmp_path / name, np.full((8, 8), 20 * number, np.uint8))
            archive.write(tmp_path / name, f"FER2013Train/{name}")
    (tmp_path / "data" / "fer2013new.csv").write_text("\n".join(lines))
    for targets, wanted in {"hard": np.eye(8), "soft": soft}.items():
        recipe = tiny(tmp_path, data__layout="ferplus", data__targets=targets, split__kind="all")
        data = load_data(recipe.data, recipe.split)
        np.testing.assert_allclose(data.labelled.targets[np.argsort(data.labelled.label)], wanted, rtol=1e-6)


def test_training_never_sees_the_test_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    recipe = tiny(tmp_path)
    data = load_data(recipe.data, recipe.split)
    listing, crops = open_crops(recipe.data)
    test_rows = set(crops.row[listing.split == 2].tolist())
    seen = [*data.labelled.row, *data.unlabelled.row, *data.validation.row]
    assert test_rows.isdisjoint(seen)
    labels, _, samples = load_split(recipe.data, "test")
    assert labels == CLASSES
    assert set(samples.row.tolist()) == test_rows


def test_a_saved_split_is_reused_and_checked(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    recipe = tiny(tmp_path, split__path=str(tmp_path / "split.json"))
    first = load_data(recipe.data, recipe.split)
    assert load_data(recipe.data, recipe.split).split == first.split
    assert json.loads((tmp_path / "split.json").read_text())["hash"] == first.split.hash
    other = tiny(tmp_path, split__path=str(tmp_path / "split.json"), split__labels=30)
    with pytest.raises(DataError, match=r"split\.labels is 20 there, not 30"):
        load_data(other.data, other.split)
    (root / "train" / "fear" / "000.png").unlink()
    with pytest.raises(DataError, match="1 images are missing"):
        load_data(recipe.data, recipe.split)


def test_a_saved_split_keeps_its_validation_share(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", valid=0)
    recipe = tiny(tmp_path, split__path=str(tmp_path / "split.json"), data__validation=0.25)
    made = load_data(recipe.data, recipe.split)
    assert len(made.validation) == 15
    assert load_data(recipe.data, recipe.split).split == made.split
    usual = tiny(tmp_path, split__path=str(tmp_path / "split.json"))
    assert load_data(usual.data, usual.split).split == made.split, "a default says nothing"
    other = tiny(tmp_path, split__path=str(tmp_path / "split.json"), data__validation=0.5)
    with pytest.raises(DataError, match=r"data\.validation is 0\.25 there, not 0\.5"):
        load_data(other.data, other.split)


def test_the_current_folder_can_be_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    listing, _ = open_crops(tiny(tmp_path, data__path=".").data)
    assert listing.name == "folder data"
    with pytest.raises(NotFound, match=r"data\.path is not set"):
        open_crops(tiny(tmp_path, data__path="").data)


def test_stream_depends_on_seed_and_position_only() -> None:
    stream = Stream(7, seed=3)
    whole = stream.take(0, 100)
    assert sorted(whole[:7].tolist()) == list(range(7))
    assert sorted(whole[7:14].tolist()) == list(range(7))
    assert Stream(7, seed=3).take(40, 30).tolist() == whole[40:70].tolist()
    assert Stream(7, seed=4).take(0, 100).tolist() != whole.tolist()
    with pytest.raises(ValueError, match="at least one"):
        Stream(0, seed=0)


def test_images_above_the_budget_stay_on_disk() -> None:
    import torch

    array = np.arange(4 * 16 * 16, dtype=np.uint8).reshape(4, 1, 16, 16)
    small = Images(array, torch.device("cpu"), budget=0)
    large = Images(array, torch.device("cpu"))
    rows = np.array([2, 0])
    assert torch.equal(small[rows], large[rows])
