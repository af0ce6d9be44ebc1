"""The batched crops of the GPU experiment show the same as ``crop_faces``, within one step of 255."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clips import demo_frames

from experiments.gpu_crops import crop_faces_at_once
from leaf_rt.faces.alignment import LEFT_EYE, MOUTH, RIGHT_EYE, crop_faces


def faces_at(centers: np.ndarray, eyes: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Keypoints (N, 6, 2) of faces with this distance between the eyes, px, and this turn in the plane, rad."""
    keypoints = np.zeros((len(centers), 6, 2), np.float32)
    for point, (x, y) in ((RIGHT_EYE, (-0.5, -0.4)), (LEFT_EYE, (0.5, -0.4)), (MOUTH, (0.0, 0.7))):
        cos, sin = np.cos(turns), np.sin(turns)
        keypoints[:, point] = centers + eyes[:, None] * np.stack([cos * x - sin * y, sin * x + cos * y], 1)
    return keypoints


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_crops_of_every_size_and_place_are_the_same(margin: float) -> None:
    [frame] = demo_frames(1)
    height, width = frame.shape[:2]
    rng = np.random.default_rng(0)
    # From a face of 8 px between the eyes to one that is larger than the frame; also half outside of it.
    eyes = np.array([8, 12, 20, 22.6, 30, 45, 46, 60, 90, 120, 180, 300, 25, 25, 70, 70], np.float32)
    centers = rng.uniform((0, 0), (width, height), (len(eyes), 2)).astype(np.float32)
    centers[-4:] = ((0, 0), (width, height), (0, height), (width, 0))
    keypoints = faces_at(centers, eyes, rng.uniform(-0.8, 0.8, len(eyes)))
    wanted = crop_faces(frame, keypoints, 64, margin)
    got = crop_faces_at_once(torch.from_numpy(frame.copy()), keypoints, 64, margin).numpy()
    difference = np.abs(got.astype(int) - wanted.astype(int)).max((1, 2, 3))
    assert wanted.std(axis=(1, 2, 3)).max() > 20  # real picture content
    assert difference.max() <= 1, difference


def test_points_that_coincide_give_zeros() -> None:
    frame = np.full((60, 80, 3), 200, np.uint8)
    keypoints = faces_at(np.array([[40, 30], [40, 30]], np.float32), np.array([20, 0], np.float32), np.zeros(2))
    crops = crop_faces_at_once(torch.from_numpy(frame), keypoints, 64, 0.05).numpy()
    assert (crops[0] == 200).all()
    assert (crops[1] == 0).all()
    assert crop_faces_at_once(torch.from_numpy(frame), keypoints[:0], 64, 0.05).shape == (0, 64, 64, 3)
