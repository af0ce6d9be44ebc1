"""Degraded training images and pictures: comparison with OpenCV, independence of the batch, the share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from leaf_rt.backends.parity import golden_faces
from train.augment.degrade import DEGRADE_NUMBERS, _resampling, cover, degrade, jpeg
from train.augment.transforms import draw_numbers
from train.reports.degraded import degradations

FACES = golden_faces(64)[:24, :, :, 0]  # (24, 64, 64)
IMAGES = torch.from_numpy(FACES.copy())[:, None].float() / 255
NUMBERS = draw_numbers(len(IMAGES), DEGRADE_NUMBERS, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quality", [5, 20, 50, 90])
def test_jpeg_equals_that_of_opencv(quality: int) -> None:
    ours = jpeg(IMAGES, torch.full((len(IMAGES),), float(quality)))[:, 0].numpy() * 255
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    theirs = [cv2.imdecode(cv2.imencode(".jpg", face, options)[1], cv2.IMREAD_GRAYSCALE) for face in FACES]
    difference = np.abs(ours - np.stack(theirs))
    # A coefficient half-way between two steps is rounded either way, which changes its block.
    assert np.mean(difference) < 0.7
    assert np.mean(difference > 3) < 0.03
    assert np.mean(np.abs(FACES - np.stack(theirs))) > 2 * np.mean(difference)


@pytest.mark.parametrize("side", [13, 21, 64])
def test_shrinking_and_enlarging_equal_those_of_opencv(side: int) -> None:
    down, up = (matrices[side - 1] for matrices in _resampling(64))
    image = FACES[0].astype(np.float32)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose((down @ torch.from_numpy(image) @ down.T)[:side, :side], small, atol=0.01)
    large = cv2.resize(small, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose((down @ torch.from_numpy(image) @ down.T).numpy()[side:, :side], small[-1:].repeat(
        64 - side, 0), atol=0.01)  # fmt: skip
    padded = np.zeros((64, 64), np.float32)
    padded[:side, :side] = small
    np.testing.assert_allclose(up @ torch.from_numpy(padded) @ up.T, large, atol=0.01)


def test_each_image_depends_on_its_own_numbers_only() -> None:
    together = degrade(IMAGES, NUMBERS, 1.0)
    for row in (0, 7, 23):
        alone = degrade(IMAGES[row : row + 1], NUMBERS[row : row + 1], 1.0)
        torch.testing.assert_close(alone, together[row : row + 1])


def test_a_share_of_the_images_is_degraded() -> None:
    many, numbers = IMAGES.repeat(20, 1, 1, 1), draw_numbers(480, DEGRADE_NUMBERS, torch.Generator().manual_seed(1))
    out = degrade(many, numbers, 0.25)
    changed = (out != many).flatten(1).any(1).float().mean().item()
    assert 0.18 < changed < 0.32
    assert out.min() >= 0
    assert out.max() <= 1
    assert degrade(many, numbers, 0.0) is many


def test_every_kind_of_damage_occurs() -> None:
    many, numbers = (
        IMAGES[:1].repeat(600, 1, 1, 1),
        draw_numbers(600, DEGRADE_NUMBERS, torch.Generator().manual_seed(2)),
    )
    out = degrade(many, numbers, 1.0)
    kinds = (numbers[:, 1] * 6).floor()
    mean = many.mean()

    def detail(x: torch.Tensor) -> float:
        return (x[:, :, 1:] - x[:, :, :-1]).abs().mean().item()

    assert out[kinds == 0].mean() < 0.6 * mean  # dark
    assert detail(out[kinds == 1]) < 0.8 * detail(many)  # blurred
    assert detail(out[kinds == 2]) < 0.8 * detail(many)  # small
    assert detail(out[kinds == 3]) > 1.2 * detail(many)  # noisy


def test_a_bar_a_rectangle_or_an_ellipse_covers_a_part_in_one_grey() -> None:
    u = torch.rand(60, 7, generator=torch.Generator().manual_seed(3))
    u[:, 6] = 1.0
    black = torch.zeros(60, 1, 64, 64)
    share = cover(black, u).mean((1, 2, 3))
    assert (share > 0.01).all()
    assert (share < 0.8).all()


def test_the_pictures_of_the_measurement_have_the_stated_damage() -> None:
    image = np.repeat(cv2.resize(FACES[3], (48, 48), interpolation=cv2.INTER_AREA)[..., None], 3, 2)
    keypoints = np.array([[16, 18], [32, 20], [24, 26], [24, 37], [6, 20], [42, 20]], np.float32)
    versions = dict(degradations(image, keypoints, np.random.default_rng(0)))
    assert list(versions) == [
        "clean", "blur 1 px", "blur 2 px", "24 px", "16 px", "JPEG 20", "noise 10", "noise 25", "light x0.25",
        "light x0.1", "mouth covered", "eyes covered",
    ]  # fmt: skip
    np.testing.assert_array_equal(versions["clean"], image)
    np.testing.assert_array_equal(versions["light x0.25"], np.rint(image * 0.25))
    noise = versions["noise 10"].astype(float) - image
    assert 8 < noise.std() < 11
    assert (np.ptp(noise, axis=2) == 0).all()
    height = 0.6 * np.hypot(16, 2)
    for name, y in (("mouth covered", 37), ("eyes covered", 19)):
        rows = np.flatnonzero((versions[name] == 128).all((1, 2)))
        assert abs(len(rows) - height) <= 1
        assert abs(rows.mean() + 0.5 - y) <= 1
    covered = dict(degradations(image, None, np.random.default_rng(0)))["mouth covered"]
    assert (covered == 128).all((1, 2)).any()
