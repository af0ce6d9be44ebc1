import cv2
import numpy as np
import pytest

from leaf_rt.faces.alignment import ALIGN_POINTS, crop_faces, crop_plain, is_low_quality, similarity, template


def keypoints(side: int, margin: float, angle: float = 0.0, scale: float = 1.0, at: tuple[float, float] = (0, 0)):
    """Return six keypoints whose eyes and mouth match the template, rotated, scaled and shifted."""
    points = np.zeros((6, 2), np.float32)
    points[list(ALIGN_POINTS)] = template(side, margin)
    points[2] = points[[0, 1, 3]].mean(0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points @ turn.T) * scale + at).astype(np.float32)[None]


def random_image(size: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (size // 25, size // 25, 3), np.uint8), (size, size))


def test_similarity_inverts_rotation_scale_and_shift():
    points = keypoints(64, 0.05, angle=0.4, scale=2.5, at=(30, -7))[:, ALIGN_POINTS]
    matrix = similarity(points, template(64, 0.05))[0]
    assert points[0] @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(template(64, 0.05), abs=1e-3)


def test_similarity_equals_least_squares():
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(5, 3, 2)).astype(np.float32), template(64)
    for face, matrix in zip(source, similarity(source, target), strict=True):
        rows = [[x, -y, 1, 0] for x, y in face] + [[y, x, 0, 1] for x, y in face]
        a, b, tx, ty = np.linalg.lstsq(np.array(rows), target.T.ravel(), rcond=None)[0]
        assert matrix == pytest.approx(np.array([[a, -b, tx], [b, a, ty]]), abs=2e-3)


def test_a_face_that_matches_the_template_is_copied():
    image = random_image(64)
    crop = crop_faces(image, keypoints(64, 0.0), 64, 0.0)[0]
    assert np.abs(crop.astype(int) - image).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 1.9, 3.3, 5.0])
def test_crops_do_not_depend_on_the_size_of_the_face(scale: float):
    base = random_image(100)
    large = cv2.resize(base, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    small = crop_faces(base, keypoints(64, 0.05, at=(18, 18)), 64, 0.05)[0]
    points = keypoints(64, 0.05, at=(18, 18)) * (large.shape[0] / 100)
    crop = crop_faces(large, points.astype(np.float32), 64, 0.05)[0]
    assert np.abs(crop.astype(int) - small).mean() < 4


def test_fine_stripes_do_not_alias_in_a_small_crop():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_faces(stripes, keypoints(64, 0.0, scale=12.0), 64, 0.0)[0]
    assert crop.std() < 12


def test_no_face_a_face_outside_and_a_degenerate_face():
    image = random_image(100)
    assert crop_faces(image, np.zeros((0, 6, 2), np.float32), 64, 0.05).shape == (0, 64, 64, 3)
    outside = crop_faces(image, keypoints(64, 0.05, at=(-500, -500)), 64, 0.05)
    assert (outside == image[0, 0]).all()  # the border is repeated
    assert not crop_faces(image, np.full((1, 6, 2), 5, np.float32), 64, 0.05).any()
    assert crop_faces(np.zeros((1, 1, 3), np.uint8), keypoints(64, 0.05), 64, 0.05).shape == (1, 64, 64, 3)


def test_gray_images_give_gray_crops():
    gray = random_image(100)[..., 0]
    assert crop_faces(np.ascontiguousarray(gray), keypoints(64, 0.05), 64, 0.05).shape == (1, 64, 64)
    assert crop_plain(np.ascontiguousarray(gray), 64, 0.05).shape == (64, 64)


def test_plain_crops_are_centered():
    image = np.zeros((48, 48, 3), np.uint8)
    image[12:36, 12:36] = 255
    crop = crop_plain(image, 64, 0.0)
    assert crop[:, :, 0].mean(0) == pytest.approx(crop[:, ::-1, 0].mean(0), abs=1.5)


def test_faces_of_low_quality_are_marked():
    rng = np.random.default_rng(1)
    sharp = cv2.resize(rng.integers(0, 255, (24, 24, 3), np.uint8), (64, 64))[None]
    frontal = keypoints(64, 0.05)
    assert not is_low_quality(frontal, sharp)[0]
    assert is_low_quality(frontal * np.float32(0.2), sharp)[0]  # small
    turned = frontal.copy()
    turned[0, 2, 0] += 20
    assert is_low_quality(turned, sharp)[0]
    blurred = cv2.GaussianBlur(sharp[0], (0, 0), 4)[None]
    assert is_low_quality(frontal, blurred)[0]
