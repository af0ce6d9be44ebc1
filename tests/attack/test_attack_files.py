"""Damaged media, models, descriptions, lists and caches: mutated bytes, and values from hypothesis."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
from attacks import LONG, MARKS, attacks, check_results, mutate, run
from clips import demo_frames, write_clip
from engines_fakes import describe, tiny_onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaf_rt.backends.benchmark import parse_batches
from leaf_rt.backends.selection import CHOICES, _read_choices
from leaf_rt.cli.folders import VIDEOS, expand
from leaf_rt.errors import LeafError
from leaf_rt.models.spec import load_spec, spec_path
from leaf_rt.sources.sources_file import load_targets
from leaf_rt.system.parsing import parse_json

pytestmark = MARKS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
MANY = settings(
    max_examples=2000 if LONG else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return demo_frames(8)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".ts"])
def test_damaged_clips(frames: list[Any], tmp_path: Path, model: Path, ending: str) -> None:
    whole = write_clip(tmp_path / f"whole{ending}", frames).read_bytes()
    for rng in attacks(8):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / f"bad{ending}").write_bytes(mutate(whole, rng))
        command = ("video", f"bad{ending}", "--out", "out", "--model", model, "--backend", "onnxruntime", "--no-plot")
        run(command, cwd=tmp_path)
        check_results(out, partial=True)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_damaged_pictures(frames: list[Any], tmp_path: Path, model: Path, ending: str) -> None:
    whole = cv2.imencode(ending, cv2.resize(frames[0], (320, 180)))[1].tobytes()
    for rng in attacks(6):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / f"bad{ending}").write_bytes(mutate(whole, rng))
        command = ("image", f"bad{ending}", "--out", "out", "--model", model, "--backend", "onnxruntime")
        run(command, cwd=tmp_path)
        check_results(out, partial=False)


def test_damaged_models(face: Path, tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    whole = (tmp_path / "m.onnx").read_bytes()
    for rng in attacks(12):
        (tmp_path / "m.onnx").write_bytes(mutate(whole, rng))
        describe(tmp_path / "m.onnx")  # with the hash of the damaged file
        backend = rng.choice(("onnxruntime", "openvino"))
        done = run(("image", face, "--out", "out", "--model", "m.onnx", "--backend", backend), cwd=tmp_path)
        assert done.code >= 0, f"{backend} was killed by signal {-done.code}"
        check_results(tmp_path / "out", partial=False)


@pytest.mark.parametrize("what", ["description", "cache", "sources"])
def test_damaged_texts(face: Path, tmp_path: Path, cache: Path, what: str) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    cache.mkdir(mode=0o700)
    file = {"description": spec_path(tmp_path / "m.onnx"), "cache": cache / CHOICES, "sources": tmp_path / "s.toml"}[
        what
    ]
    if what == "cache":
        run(("image", face, "--out", "out"), cwd=tmp_path, codes=[0])
    elif what == "sources":
        file.write_text('[[source]]\nname = "a"\ntarget = "none.mp4"\nstride = 2\n')
    whole = file.read_bytes()
    for rng in attacks(8):
        file.write_bytes(mutate(whole, rng))
        if what == "sources":
            run(("video", "--sources", "s.toml", "--out", "out", "--duration", "1"), cwd=tmp_path)
        elif what == "cache":
            run(("image", face, "--out", "out"), cwd=tmp_path, codes=[0])
        else:
            run(("image", face, "--out", "out", "--model", "m.onnx", "--backend", "onnxruntime"), cwd=tmp_path)


@MANY
@given(data=st.data())
def test_any_description(tmp_path: Path, data: st.DataObject) -> None:
    model = tmp_path / "m.onnx"
    if not model.exists():
        tiny_onnx(model)
        shutil.copy(spec_path(model), tmp_path / "good")
    spec = json.loads((tmp_path / "good").read_text())
    for name in data.draw(st.lists(st.sampled_from(sorted(spec)), min_size=1, max_size=3)):
        spec[name] = data.draw(JSON)
    spec_path(model).write_text(json.dumps(spec))
    with contextlib.suppress(LeafError):
        load_spec(model)


@MANY
@given(value=JSON)
def test_any_cache(tmp_path: Path, value: Any) -> None:
    (tmp_path / CHOICES).write_text(json.dumps(value))
    assert isinstance(_read_choices(tmp_path, str), dict)


@MANY
@given(text=st.text())
def test_any_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8", errors="replace")
    for action in (lambda: load_targets(tmp_path / "s.toml"), lambda: parse_batches(text)):
        with contextlib.suppress(LeafError):
            action()
    with contextlib.suppress(ValueError):
        parse_json(text)
    if text and not text.startswith(("/", ".", "*")):  # not the whole disk
        expand([text], VIDEOS, "video")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".summary.json"])
def test_damaged_records(clip: Path, tmp_path: Path, model: Path, ending: str) -> None:
    fast = ("--model", model, "--backend", "onnxruntime", "--no-plot")
    run(("video", clip, "--out", "out", "--csv", "r.csv", "--parquet", "r.parquet", *fast), cwd=tmp_path, codes=[0])
    records = next((tmp_path / "out").glob("*.jsonl"))
    summary = next((tmp_path / "out").glob("*.summary.json"))
    file = {".jsonl": records, ".summary.json": summary}.get(ending, tmp_path / f"r{ending}")
    whole = file.read_bytes()
    for rng in attacks(8):
        damaged = mutate(whole, rng)
        if rng.random() < 0.2 and ending != ".parquet":
            damaged = rng.choice(
                (b"[" * 100_000, b'{"a":' * 50_000, whole[:300] + b"9" * 200_000, whole.replace(b"0", b"1e999"))
            )
        file.write_bytes(damaged)
        run(("report", records if ending == ".summary.json" else file, "--out", "new.html"), cwd=tmp_path)
        if (page := tmp_path / "new.html").exists():
            assert page.read_text("utf-8").rstrip().endswith("</html>")
            page.unlink()
