"""The crops that PyTorch cuts at once show the same as ``crop_faces``, within one step of 255, alone and in a run."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import demo_frames

from leaf_rt.backends.onnxruntime import OnnxRuntimeBackend
from leaf_rt.backends.pytorch.crops import TorchCropper
from leaf_rt.backends.registry import find_backend
from leaf_rt.errors import BackendError
from leaf_rt.faces import crops
from leaf_rt.faces.alignment import LEFT_EYE, MOUTH, RIGHT_EYE, crop_faces
from leaf_rt.faces.crops import cut_crops

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(find_backend("torch").gpu_problem() is not None, reason="needs PyTorch and an NVIDIA GPU"),
    ]),
]  # fmt: skip


@pytest.fixture(params=DEVICES)
def cropper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TorchCropper:
    """One that is used for every frame."""
    monkeypatch.setattr(crops, "WORTHWHILE", 0)
    return TorchCropper(request.param)


def faces_at(centers: Any, eyes: Any, turns: Any) -> np.ndarray:
    """Keypoints (N, 6, 2) of faces with this distance between the eyes, px, and this turn in the plane, rad."""
    centers, eyes = np.asarray(centers, np.float32), np.asarray(eyes, np.float32)
    keypoints = np.zeros((len(centers), 6, 2), np.float32)
    for point, (x, y) in ((RIGHT_EYE, (-0.5, -0.4)), (LEFT_EYE, (0.5, -0.4)), (MOUTH, (0.0, 0.7))):
        cos, sin = np.cos(turns), np.sin(turns)
        keypoints[:, point] = centers + eyes[:, None] * np.stack([cos * x - sin * y, sin * x + cos * y], 1)
    return keypoints


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_crops_of_every_size_and_place_are_the_same(margin: float, cropper: TorchCropper) -> None:
    [frame] = demo_frames(1)
    height, width = frame.shape[:2]
    rng = np.random.default_rng(0)
    # From a face of 8 px between the eyes to one that is larger than the frame; also half outside of it.
    eyes = np.array([8, 12, 20, 22.6, 30, 45, 46, 60, 90, 120, 180, 300, 25, 25, 70, 70], np.float32)
    centers = rng.uniform((0, 0), (width, height), (len(eyes), 2)).astype(np.float32)
    centers[-4:] = ((0, 0), (width, height), (0, height), (width, 0))
    keypoints = faces_at(centers, eyes, rng.uniform(-0.8, 0.8, len(eyes)))
    wanted = crop_faces(frame, keypoints, 64, margin)
    got = cut_crops(frame, keypoints, 64, margin, cropper)
    assert wanted.std(axis=(1, 2, 3)).max() > 20  # real picture content
    assert largest_difference(got, wanted) == 1  # 0 would mean that ``crop_faces`` was used
    far = faces_at([[-5000, 9000]], [60], np.zeros(1))
    assert largest_difference(cut_crops(frame, far, 64, margin, cropper), crop_faces(frame, far, 64, margin)) <= 1


def test_points_that_coincide_give_zeros(cropper: TorchCropper) -> None:
    frame = np.full((60, 80, 3), 200, np.uint8)
    keypoints = faces_at([[40, 30], [40, 30]], [20, 0], np.zeros(2))
    found = cut_crops(frame, keypoints, 64, 0.05, cropper)
    assert (found[0] == 200).all()
    assert (found[1] == 0).all()
    assert cut_crops(frame, keypoints[:0], 64, 0.05, cropper).shape == (0, 64, 64, 3)
    assert not cut_crops(frame, keypoints[1:], 64, 0.05, cropper).any()


def test_frames_of_other_sizes_and_threads_do_not_mix(cropper: TorchCropper) -> None:
    """Large, then small, then mirrored and read-only; each in two threads at once."""
    [frame] = demo_frames(1)
    mirrored = frame[:, ::-1]
    mirrored.flags.writeable = False
    keypoints = faces_at([[100, 90], [160, 100]], [30, 80], np.array([0.1, 0.4]))
    problems: list[str] = []

    def work(shift: int) -> None:
        try:
            for image in (np.roll(frame, shift, 1), frame[: 200 + shift], frame[:, shift:300], mirrored, frame):
                got = cut_crops(image, keypoints, 64, 0.05, cropper)
                if largest_difference(got, crop_faces(image, keypoints, 64, 0.05)) > 1:
                    problems.append(f"{image.shape} differs")
        except Exception as e:  # noqa: BLE001 - of another thread
            problems.append(repr(e))

    threads = [threading.Thread(target=work, args=(shift,)) for shift in (0, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_few_small_faces_stay_on_the_cpu() -> None:
    calls: list[int] = []

    def cropper(image: np.ndarray, plans: np.ndarray, side: int) -> np.ndarray:
        calls.append(len(plans))
        return np.zeros((len(plans), side, side, 3), np.uint8)

    frame = np.zeros((1080, 1920, 3), np.uint8)
    for count, eyes in ((1, 60), (4, 60), (8, 60), (1, 600)):
        cut_crops(frame, faces_at([[900, 500]] * count, [eyes] * count, np.zeros(count)), 64, 0.05, cropper)
    assert calls == [8, 1]


def test_an_error_of_the_device_is_one_of_the_back_end() -> None:
    with pytest.raises(BackendError, match="PyTorch failed on the crops of 2 faces"):
        TorchCropper("meta")(np.zeros((2, 3, 3), np.uint8), np.ones((2, 11), np.float32), 8)


@pytest.mark.slow
def test_a_run_with_these_crops_gives_the_same_records(
    leaf: Any, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`leaf-rt video` on the CPU, with a back end that says that it cuts crops itself."""
    used: list[int] = []

    class Counting(TorchCropper):
        def __call__(self, image: np.ndarray, plans: np.ndarray, side: int) -> np.ndarray:
            used.append(len(plans))
            return super().__call__(image, plans, side)

    def records(name: str) -> list[dict[str, Any]]:
        options = ("--backend", "onnxruntime", "--precision", "fp32", "--no-save-video", "--no-plot", "--no-report")
        assert leaf("video", clip, "--out", tmp_path, "--jsonl", tmp_path / name, *options).code == 0
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    usual = records("usual")
    monkeypatch.setattr(OnnxRuntimeBackend, "cropper", Counting("cpu"))
    monkeypatch.setattr(crops, "WORTHWHILE", 0)
    other = records("other")
    assert len(used) > 5
    assert len(usual) == len(other) > 20
    for a, b in zip(usual, other, strict=True):
        assert a.keys() == b.keys()
        for field in a.keys() - {"latency_ms"}:
            assert a[field] == pytest.approx(b[field], abs=0.02), field
