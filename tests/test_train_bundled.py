"""The network of the bundled model as the start of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from train_fakes import train_command, write_folder

from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import golden_faces
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.augment.transforms import MEAN, STD, resize, to_float
from train.models.bundled import load_bundled
from train.models.face_model import build_model


def test_the_loaded_network_answers_as_the_bundled_file() -> None:
    model = build_model("mobilefacenet", len(FERPLUS8), folded=True).eval()
    order = tuple(reversed(FERPLUS8))
    assert load_bundled(model.encoder, model.classifier, order) == order
    faces = golden_faces(64)[:8]
    grey = faces[..., :1]
    x = resize(to_float(torch.from_numpy(np.moveaxis(grey, 3, 1).copy())), load_spec(DEFAULT_MODEL).net_side)
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        probs = (model(x).logits.softmax(1) + model(x.flip(3)).logits.softmax(1)) / 2
    backend = open_backend(DEFAULT_MODEL, "onnxruntime", precision="fp32")
    try:
        expected = backend.infer(np.ascontiguousarray(np.repeat(grey, 3, 3))).probs
    finally:
        backend.close()
    np.testing.assert_allclose(probs.numpy()[:, ::-1], expected, atol=2e-4)


def test_new_classes_keep_their_weights() -> None:
    model = build_model("mobilefacenet", 3, folded=True)
    before = model.classifier.weight[1].clone()
    assert load_bundled(model.encoder, model.classifier, ("anger", "boredom", "neutral")) == ("anger", "neutral")
    assert torch.equal(model.classifier.weight[1], before)


@pytest.mark.slow
def test_a_training_starts_from_the_bundled_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "data")
    command = ["train", "--recipe", "bundled-robust", "--data", str(tmp_path / "data"), "--layout", "folder", "--out"]
    small = ["--data.align", "false", "--data.targets", "hard", "--run.epochs", "1", "--run.batch", "8"]
    small += ["--distill.teacher", ""]  # it knows more classes than these pictures have
    assert train_command([*command, str(tmp_path / "run"), *small, "--data.cache", str(tmp_path / "cache")]) == 0
    capsys.readouterr()
    assert train_command([*command, str(tmp_path / "other"), "--model.fold_batch_norm", "false"]) == 15
    assert "model.weights bundled: needs --model.backbone mobilefacenet" in capsys.readouterr().err
