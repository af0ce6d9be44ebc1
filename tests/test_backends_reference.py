"""The answers of the fp32 model: computed once, kept by the hash of the model, never taken from a damaged file."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

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


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return content.getvalue()


def array(values: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=True)
    return content.getvalue()


ENDLESS = array(np.zeros(1)).replace(b"(1,)", b"(9" + b"9" * 11 + b",)").replace(b" " * 12 + b"\n", b"\n")


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"no archive", array(np.zeros(3)), archive(probs=b"", features=b""),
        archive(probs=ENDLESS, features=ENDLESS),
        archive(probs=array([{}]), features=array([{}])),
        archive(zipfile.ZIP_DEFLATED, probs=bytes(100 << 20), features=b""), "nan", "short",
    ],
    ids=["empty", "text", "no zip", "no arrays", "endless", "objects", "bomb", "nan", "short"],
)  # fmt: skip
def test_damaged_answers_are_computed_again(model: Path, cache: Path, damage: bytes | str) -> None:
    first = fp32_answers(model, load_spec(model))
    [path] = cache.glob("answers-*.npz")
    if damage == "short":
        np.savez(path, probs=first.probs[:3], features=first.features[:3])
    elif damage == "nan":
        np.savez(path, probs=np.full_like(first.probs, np.nan), features=first.features)
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    np.testing.assert_array_equal(fp32_answers(model, load_spec(model)).probs, first.probs)


def test_cached_answers_that_are_a_pipe_are_computed_again(model: Path, cache: Path) -> None:
    first = fp32_answers(model, load_spec(model))
    [path] = cache.glob("answers-*.npz")
    path.unlink()
    os.mkfifo(path)
    np.testing.assert_array_equal(fp32_answers(model, load_spec(model)).probs, first.probs)


def test_answers_that_cannot_be_stored_are_used(model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    assert fp32_answers(model, load_spec(model), folder=blocked / "cache").probs.shape == (256, 8)
