"""TensorRT lets PyTorch cut crops where it has shown that it does so correctly; else the CPU cuts them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from engines_fakes import GPU, FakeCuda, FakePlan, FakeTensorRt, network, tiny_onnx
from test_crops import faces_at, largest_difference

from leaf_rt.backends.base import BackendConfig
from leaf_rt.backends.parity import golden_faces
from leaf_rt.backends.pytorch import crops
from leaf_rt.backends.pytorch.crops import checked_cropper
from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.tensorrt import engine
from leaf_rt.backends.tensorrt.crops import find_cropper
from leaf_rt.errors import BackendError
from leaf_rt.faces.alignment import crop_faces
from leaf_rt.faces.crops import cut_crops
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import Prediction

no_gpu = pytest.mark.skipif(find_backend("torch").gpu_problem() is None, reason="there is a GPU")


def reference(model: Path, spec: ModelSpec) -> Prediction:
    probs, features = network(golden_faces(spec.side))
    return Prediction(probs.astype(np.float32), features.astype(np.float32))


@pytest.mark.parametrize("found", [True, False])
def test_an_engine_has_the_cropper_of_its_machine_and_says_so(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cuda = tmp_path / "m.onnx", FakeCuda()
    spec = tiny_onnx(model)
    monkeypatch.setattr(engine, "plan_bytes", lambda *_: (b"plan", "from the cache"))
    env = engine.Environment(
        FakeTensorRt(), GPU, lambda: cuda, lambda *_: FakePlan(cuda, network), reference, tmp_path,
        lambda _: checked_cropper("cpu") if found else None,
    )  # fmt: skip
    opened = engine.open_engine(env, model, spec, BackendConfig(reason="the GPU is the fastest"))
    assert ("PyTorch cuts many or large faces on the GPU" in opened.reason) == found
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    keypoints = faces_at([[900, 500], [400, 300]], [300, 250], np.array([0.1, -0.3]))
    used: list[int] = []
    sample = crops.sample
    monkeypatch.setattr(crops, "sample", lambda *given: used.append(len(given[1])) or sample(*given))
    got = cut_crops(frame, keypoints, spec.side, spec.margin, opened.cropper)
    assert used == ([2] if found else [])
    assert largest_difference(got, crop_faces(frame, keypoints, spec.side, spec.margin)) <= 1
    opened.close()


@no_gpu
def test_without_a_gpu_there_is_no_cropper_and_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert find_cropper(said.append) is None  # a build for the CPU
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cu130")
    assert find_cropper(said.append) is None  # PyTorch finds no GPU
    monkeypatch.undo()
    monkeypatch.setattr(metadata, "version", _missing)
    assert find_cropper(said.append) is None
    assert said == []


@no_gpu
def test_a_pytorch_that_fails_on_the_card_leaves_the_crops_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there is a GPU, and fails at the first call, as a build without code for this card does."""
    said: list[str] = []
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_cropper(said.append) is None
    [text] = said
    assert text.startswith("all faces are cut on the CPU: PyTorch failed on the crops of 2 faces (")


def test_a_cropper_that_cuts_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_cropper("cpu") is not None
    with pytest.raises(BackendError, match="PyTorch failed on the crops of 2 faces"):
        checked_cropper("meta")
    sample, calls = crops.sample, []

    def wrong_at_first(image: torch.Tensor, plans: torch.Tensor, side: int) -> torch.Tensor:
        calls.append(side)
        return sample(image.flip(0) if len(calls) == 1 else image, plans, side)

    monkeypatch.setattr(crops, "sample", wrong_at_first)
    with pytest.raises(BackendError, match="cuts other crops on this GPU"):
        checked_cropper("cpu")


def _missing(name: str) -> str:
    raise metadata.PackageNotFoundError(name)
