"""Views: comparison of the operations with Pillow, ranges of values, independence of the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from train.augment import randaugment as ra
from train.augment.transforms import (
    SUPERVISED_NUMBERS,
    WEAK_NUMBERS,
    cutout,
    draw_numbers,
    mixup,
    supervised_view,
    to_float,
    weak_view,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(20, 230, (24, 24, 3), dtype=np.uint8)
IMAGE[4:12, 4:12] //= 3


def tensor(image: Any) -> Tensor:
    array = np.atleast_3d(np.asarray(image))
    return to_float(torch.from_numpy(np.moveaxis(array, 2, 0).copy())[None])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: ra.autocontrast(x, torch.zeros(1)), ImageOps.autocontrast),
        (lambda x: ra.equalize(x, torch.zeros(1)), ImageOps.equalize),
        (lambda x: ra.posterize(x, torch.tensor([0.0])), lambda p: ImageOps.posterize(p, 4)),
        (lambda x: ra.solarize(x, torch.tensor([0.5])), lambda p: ImageOps.solarize(p, 128)),
        (lambda x: ra.brightness(x, torch.tensor([0.5])), lambda p: ImageEnhance.Brightness(p).enhance(0.5)),
        (lambda x: ra.contrast(x, torch.tensor([0.5])), lambda p: ImageEnhance.Contrast(p).enhance(0.5)),
        (lambda x: ra.color(x, torch.tensor([0.5])), lambda p: ImageEnhance.Color(p).enhance(0.5)),
        (lambda x: ra.sharpness(x, torch.tensor([0.5])), lambda p: ImageEnhance.Sharpness(p).enhance(0.5)),
    ],
    ids=["autocontrast", "equalize", "posterize", "solarize", "brightness", "contrast", "color", "sharpness"],
)
def test_operations_match_pillow(ours: Callable[[Tensor], Tensor], theirs: Callable[[Any], Any], grey: bool) -> None:
    image = Image.fromarray(IMAGE).convert("L" if grey else "RGB")
    actual = ours(tensor(image)) * 255
    torch.testing.assert_close(actual, tensor(theirs(image)) * 255, atol=2.0, rtol=0)


@pytest.mark.parametrize(("operation", "shift"), [(ra.translate_x, (0, 6)), (ra.translate_y, (6, 0))])
def test_translate_by_whole_pixels(operation: Callable[[Tensor, Tensor], Tensor], shift: tuple[int, int]) -> None:
    x = tensor(IMAGE[:20, :20])
    actual = operation(x, torch.tensor([1.0]))  # 0.3 of 20 px
    expected = torch.zeros_like(x)
    expected[:, :, : 20 - shift[0], : 20 - shift[1]] = x[:, :, shift[0] :, shift[1] :]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_rotation_keeps_the_centre_and_the_angle() -> None:
    x = torch.zeros(1, 1, 21, 21)
    x[:, :, 10, 18] = 1
    actual = ra.rotate(x, torch.tensor([1.0]))[0, 0]
    row, column = divmod(int(actual.argmax()), 21)
    assert np.hypot(row - 10, column - 10) == pytest.approx(8, abs=0.8)
    assert abs(np.degrees(np.arctan2(row - 10, column - 10))) == pytest.approx(30, abs=4)


def test_fourteen_operations() -> None:
    assert len(ra.OPERATIONS) == len(set(ra.OPERATIONS)) == 14


VIEWS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "weak": (WEAK_NUMBERS, lambda x, u: weak_view(x, u, 28)),
    "strong": (ra.strong_numbers(3), lambda x, u: ra.strong_view(x, ra.arrange(u), 28)),
    "supervised": (SUPERVISED_NUMBERS, lambda x, u: supervised_view(x, u, 28)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_do_not_depend_on_the_batch(name: str, channels: int) -> None:
    numbers, view = VIEWS[name]
    x = torch.rand(40, channels, 24, 24, generator=torch.Generator().manual_seed(0))
    u = draw_numbers(40, numbers, torch.Generator().manual_seed(1))
    whole = view(x, u)
    assert whole.shape == (40, channels, 28, 28)
    assert whole.min() >= 0
    assert whole.max() <= 1
    torch.testing.assert_close(view(x[10:20], u[10:20]), whole[10:20], atol=1e-6, rtol=0)
    assert not torch.equal(view(x, draw_numbers(40, numbers, torch.Generator().manual_seed(2))), whole)


def test_weak_view_flips_and_shifts() -> None:
    x = tensor(IMAGE)
    still = torch.tensor([[0.5, 0.5, 0.9, 0.9]])
    torch.testing.assert_close(weak_view(x, still, 24), x, atol=1e-5, rtol=0)
    flipped = torch.tensor([[0.5, 0.5, 0.9, 0.1]])
    torch.testing.assert_close(weak_view(x, flipped, 24), x.flip(3), atol=1e-5, rtol=0)
    shifted = weak_view(x, torch.tensor([[0.999, 0.5, 0.1, 0.9]]), 24, crop_padding=0.125)  # 3 px
    torch.testing.assert_close(shifted[..., :-3], x[..., 3:], atol=1e-5, rtol=0)
    assert (shifted[..., -3:] == 0).all()


def test_cutout_and_mixup() -> None:
    x = torch.ones(2, 1, 8, 8)
    covered = cutout(x, torch.tensor([[0.5, 0.25], [0.0, 0.0]]), torch.full((2, 2), 0.5), torch.zeros(2))
    assert (covered == 0).sum((1, 2, 3)).tolist() == [8, 0]
    images, targets = mixup(torch.tensor([0.0, 1.0]), torch.eye(2), 0.75, torch.tensor([1, 0]))
    assert images.tolist() == [0.25, 0.75]
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]
