"""The bundled model files: undamaged, made from one model, small, and part of the wheel."""

from __future__ import annotations

import fnmatch
import importlib
import tomllib
from pathlib import Path

import pytest
from engines_fakes import RTX

from leaf_rt.backends.opening import open_backend
from leaf_rt.backends.parity import compare, golden_faces
from leaf_rt.backends.registry import find_backend
from leaf_rt.backends.tensorrt.build import Profile, build_plan
from leaf_rt.models.spec import DEFAULT_MODEL, MODELS, load_spec, variant_path

pytestmark = pytest.mark.slow

VARIANTS = {
    "fp16": variant_path(DEFAULT_MODEL, "fp16"),
    "int8": variant_path(DEFAULT_MODEL, "int8"),
    "int8 for OpenVINO": variant_path(DEFAULT_MODEL, "int8", ".xml"),
}
MEBIBYTE = 1 << 20


def test_the_variants_were_made_from_the_bundled_model() -> None:
    exact = load_spec(DEFAULT_MODEL)
    assert exact.precision == "fp32"
    for path in (path for path in VARIANTS.values() if path.is_file()):
        spec = load_spec(path)  # checks the hash
        assert spec.parent == exact.sha256, f"{path.name} was made from another model; run python -m engines bundle"
        assert spec.labels == exact.labels
        for name, measured in exact.metrics.items():
            if name in spec.metrics:
                assert measured["accuracy"] - spec.metrics[name]["accuracy"] <= 0.005, path.name


def test_the_variants_agree_with_the_model() -> None:
    crops = golden_faces(load_spec(DEFAULT_MODEL).side)[::4]
    exact = open_backend(DEFAULT_MODEL, "onnxruntime").infer(crops)
    for path in (path for path in VARIANTS.values() if path.is_file()):
        name = "openvino" if path.suffix == ".xml" else "onnxruntime"
        if find_backend(name).problem() is None:
            answer = open_backend(path, name).infer(crops)
            assert compare(exact, answer).agreement >= 0.95, path.name


def test_the_files_are_small_and_in_the_wheel() -> None:
    files = [path for path in MODELS.iterdir() if path.is_file()]
    assert DEFAULT_MODEL.stat().st_size < 10 * MEBIBYTE
    assert sum(path.stat().st_size for path in files) < 30 * MEBIBYTE
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["leaf_rt"]
    for path in files:
        inside = path.relative_to(MODELS.parent).as_posix()
        assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns), inside


@RTX
@pytest.mark.parametrize(
    "path", [DEFAULT_MODEL, *(p for p in VARIANTS.values() if p.stem.endswith("fp16") and p.is_file())]
)
def test_tensorrt_builds_the_bundled_model(path: Path) -> None:
    trt = importlib.import_module("tensorrt_rtx")
    assert len(build_plan(trt, path.read_bytes(), Profile(1, 4, 32)).plan) > path.stat().st_size / 2
