"""The answers of the fp32 model: computed once, kept by the hash of the model, never taken from a damaged file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engines_fakes import faces, tiny_onnx

from leaf_rt.backends import onnxruntime
from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.reference import fp32_answers
from leaf_rt.models.spec import load_spec

pytestmark = pytest.mark.usefixtures("cache")


def test_the_answers_are_computed_once_per_model(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fp32_answers(model, load_spec(model))
    np.testing.assert_allclose(first.probs, open_backend(model, "onnxruntime").infer(faces(256)).probs, atol=1e-6)
    real = onnxruntime.OnnxRuntimeBackend
    monkeypatch.setattr(onnxruntime, "OnnxRuntimeBackend", None)  # to compute them again would fail
    second = fp32_answers(model, load_spec(model))
    np.testing.assert_array_equal(first.probs, second.probs)
    np.testing.assert_array_equal(first.features, second.features)
    monkeypatch.setattr(onnxruntime, "OnnxRuntimeBackend", real)
    other = tiny_onnx(model, seed=7)  # another model at the same path
    assert np.abs(fp32_answers(model, other).probs - first.probs).max() > 0.01
    assert len(list(cache.glob("answers-*.npz"))) == 2


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_damaged_answers_are_computed_again(model: Path, cache: Path, damage: bytes | None) -> None:
    first = fp32_answers(model, load_spec(model))
    [path] = cache.glob("answers-*.npz")
    if damage is None:
        np.savez(path, probs=first.probs[:3], features=first.features[:3])
    else:
        path.write_bytes(damage)
    np.testing.assert_array_equal(fp32_answers(model, load_spec(model)).probs, first.probs)


def test_answers_that_cannot_be_stored_are_used(model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    assert fp32_answers(model, load_spec(model), folder=blocked / "cache").probs.shape == (256, 8)
