"""Splits: exact numbers, disjoint parts, and errors for changed data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leaf_rt.errors import DataError
from leaf_rt.labels import RAFDB7
from train.data.splits import (
    Partition,
    apportion,
    check_options,
    data_hash,
    label_counts,
    open_partition,
    partition,
    save_partition,
)
from train.recipes.schema import Split

LABEL = np.repeat(np.arange(7), [400, 281, 700, 1300, 1900, 705, 2500])
IDS = [f"{i:05d}.png" for i in range(len(LABEL))]
AVAILABLE = np.bincount(LABEL)


def split(options: Split, holdout: float = 0.0) -> Partition:
    return partition(IDS, LABEL, RAFDB7, options, holdout, "hash")


@pytest.mark.parametrize("kind", ["balanced", "uneven", "longtail", "share"])
@pytest.mark.parametrize("n", [1, 6, 7, 100, 101, 400, 1999, 4000, 7786])
def test_exactly_n(kind: str, n: int) -> None:
    counts = label_counts(Split(kind, n), AVAILABLE, RAFDB7)
    assert counts.sum() == n
    assert (counts <= AVAILABLE).all()
    assert (counts >= (1 if n >= 7 else 0)).all()


def test_balanced_is_as_equal_as_possible() -> None:
    assert sorted(label_counts(Split("balanced", 100), AVAILABLE, RAFDB7).tolist()) == [14] * 5 + [15] * 2
    counts = label_counts(Split("balanced", 2800), AVAILABLE, RAFDB7)
    assert counts[1] == 281  # all there are; the others share the rest
    assert set(np.delete(counts, 1).tolist()) <= {419, 420, 400, 423, 424}
    assert label_counts(Split("floor", 100), AVAILABLE, RAFDB7).tolist() == [14] * 7


@pytest.mark.parametrize(("n", "fear", "other"), [(100, 10, 15), (400, 40, 60), (1000, 100, 150), (2000, 200, 300)])
def test_uneven_gives_the_numbers_of_adacm(n: int, fear: int, other: int) -> None:
    counts = label_counts(Split("uneven", n), AVAILABLE, RAFDB7)
    assert counts.tolist() == [fear if name == "fear" else other for name in RAFDB7]


def test_uneven_with_given_counts() -> None:
    options = Split("uneven", 2000, counts=("fear=200", "disgust=100"))
    counts = label_counts(options, AVAILABLE, RAFDB7)
    assert (counts[1], counts[2], counts.sum()) == (200, 100, 2000)
    with pytest.raises(DataError, match="300 of fear wanted, but there are 281"):
        label_counts(Split("uneven", 2000, counts=("fear=300",)), AVAILABLE, RAFDB7)


@pytest.mark.parametrize(
    ("available", "n", "counts", "words"),
    [
        ([400, 400, 400], 10, ("fear=12",), "12 labels are given by class and the other classes have 800 images"),
        ([20, 20, 20], 60, ("fear=2",), "2 labels are given .* have 40 images, which cannot make 60 labels"),
        ([20, 20, 20], 10, ("joy=2", "fear=2", "anger=2"), "6 labels are given .* have 0 images"),
        ([20, 20, 20], 10, ("fear=\u00b2",), "wanted class=number"),
    ],
)
def test_given_counts_that_are_impossible(available: list[int], n: int, counts: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        label_counts(Split("uneven", n, counts=counts), np.array(available), ("anger", "fear", "joy"))


def test_given_counts_may_be_complete() -> None:
    counts = label_counts(Split("uneven", 10, counts=("fear=8", "joy=2")), np.array([20, 20, 20]), ("a", "fear", "joy"))
    assert counts.tolist() == [0, 8, 2]


def test_apportion_of_too_many_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 5, got 6"):
        apportion(np.ones(2), np.array([2, 3]), 6)


def test_longtail_decreases_by_the_imbalance() -> None:
    counts = np.sort(label_counts(Split("longtail", 1000, imbalance=20.0), AVAILABLE, RAFDB7))
    assert counts[-1] / counts[0] == pytest.approx(20, rel=0.15)


@pytest.mark.parametrize("seed", range(20))
def test_apportion_never_exceeds_the_available_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    available = rng.integers(0, 50, 9)
    n = int(rng.integers(0, available.sum() + 1))
    counts = apportion(rng.random(9) * (rng.random(9) < 0.8), available, n)
    assert counts.sum() == n
    assert (counts <= available).all()


@pytest.mark.parametrize("options", [Split(), Split("balanced", 100), Split("share", share=0.05)])
def test_parts_are_disjoint_and_complete(options: Split) -> None:
    parts = split(options, holdout=0.1)
    every = [*parts.labelled, *parts.unlabelled, *parts.validation]
    assert sorted(every) == IDS
    assert len(parts.validation) == pytest.approx(0.1 * len(IDS), rel=0.01)


def test_seed_and_folds() -> None:
    assert split(Split("balanced", 100)).hash == split(Split("balanced", 100)).hash
    assert split(Split("balanced", 100)).hash != split(Split("balanced", 100, seed=1)).hash
    held = [set(split(Split(folds=5, fold=f)).validation) for f in range(5)]
    assert sorted(set().union(*held)) == IDS
    assert sum(map(len, held)) == len(IDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Split("balanced", 0), "give --labels N"),
        (Split("balanced", 99999), "99999 labels wanted, but the data has 7786 labelled training images"),
        (Split("floor", 2100), "300 labels per class wanted, but fear has 281"),
        (Split("uneven", 100, rare="joy"), "'joy' is not one of the classes"),
    ],
)
def test_impossible_options_are_an_error(options: Split, words: str) -> None:
    with pytest.raises(DataError, match=words):
        split(options)


def test_a_saved_split_is_checked_against_the_data(tmp_path: Path) -> None:
    pixels = [f"p{i}" for i in range(len(IDS))]
    hash_ = data_hash(IDS, LABEL, pixels)
    order = np.random.default_rng(0).permutation(len(IDS))
    assert hash_ == data_hash([IDS[i] for i in order], LABEL[order], [pixels[i] for i in order])
    parts = partition(IDS, LABEL, RAFDB7, Split("balanced", 100), 0.1, hash_)
    path = tmp_path / "split.json"
    save_partition(path, parts)
    assert open_partition(path, IDS, hash_).hash == parts.hash
    pixels[3] = "changed"
    with pytest.raises(DataError, match="the data changed since it was made"):
        open_partition(path, IDS, data_hash(IDS, LABEL, pixels))
    with pytest.raises(DataError, match="1 images are missing, 0 are new"):
        open_partition(path, IDS[1:], data_hash(IDS[1:], LABEL[1:], pixels[1:]))
    raw = json.loads(path.read_text())
    raw["labelled"] = raw["labelled"][1:]
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="changed after it was saved"):
        open_partition(path, IDS, hash_)
    path.write_text("[]")
    with pytest.raises(DataError, match="is not a saved split"):
        open_partition(path, IDS, hash_)


@pytest.mark.parametrize(
    ("options", "holdout", "refused"),
    [
        (Split("balanced", 100), 0.2, True),
        (Split("balanced", 100), 0.1, False),  # the default says nothing
        (Split("balanced", 100), 0.3, False),  # as it was made
        (Split("balanced", 100), None, False),  # the data brings its own
    ],
)
def test_another_validation_share_is_an_error(options: Split, holdout: float | None, refused: bool) -> None:
    saved = split(options, holdout=0.3)
    if refused:
        with pytest.raises(DataError, match=r"data\.validation is 0\.3 there, not 0\.2"):
            check_options(Path("split.json"), saved, options, holdout)
    else:
        check_options(Path("split.json"), saved, options, holdout)
