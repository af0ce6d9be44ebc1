"""Damaged media, models, descriptions, lists and caches: mutated bytes, and values from hypothesis."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
from attacks import MARKS, RECORDS, attacks, check_results, damaged_records, mutate, run, stored_records
from clips import demo_frames, write_clip
from engines_fakes import describe, tiny_onnx

from leaf_rt.backends.selection import CHOICES
from leaf_rt.models.spec import spec_path

pytestmark = MARKS


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    return demo_frames(8)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".ts"])
def test_damaged_clips(frames: list[Any], tmp_path: Path, model: Path, ending: str) -> None:
    whole = write_clip(tmp_path / f"whole{ending}", frames, fflags="bitexact").read_bytes()
    for rng in attacks(2, 45):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / f"bad{ending}").write_bytes(mutate(whole, rng))
        command = ("video", f"bad{ending}", "--out", "out", "--model", model, "--backend", "onnxruntime", "--no-plot")
        run(command, cwd=tmp_path)
        check_results(out, partial=True)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_damaged_pictures(frames: list[Any], tmp_path: Path, model: Path, ending: str) -> None:
    whole = cv2.imencode(ending, cv2.resize(frames[0], (320, 180)))[1].tobytes()
    for rng in attacks(2, 35):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        (tmp_path / f"bad{ending}").write_bytes(mutate(whole, rng))
        command = ("image", f"bad{ending}", "--out", "out", "--model", model, "--backend", "onnxruntime")
        run(command, cwd=tmp_path)
        check_results(out, partial=False)


def test_damaged_models(face: Path, tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    whole = (tmp_path / "m.onnx").read_bytes()
    for rng in attacks(3, 70):
        (tmp_path / "m.onnx").write_bytes(mutate(whole, rng))
        describe(tmp_path / "m.onnx")  # with the hash of the damaged file
        backend = rng.choice(("onnxruntime", "openvino"))
        done = run(("image", face, "--out", "out", "--model", "m.onnx", "--backend", backend), cwd=tmp_path)
        assert done.code >= 0, f"{backend} was killed by signal {-done.code}"
        check_results(tmp_path / "out", partial=False)


def test_a_model_that_ends_openvino(face: Path, tmp_path: Path) -> None:
    """Version 2026.4 alone ends with a segmentation fault."""
    tiny_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(mutate((tmp_path / "m.onnx").read_bytes(), random.Random(47)))
    describe(tmp_path / "m.onnx")
    done = run(("image", face, "--out", "out", "--model", "m.onnx", "--backend", "openvino"), cwd=tmp_path)
    assert done.code == 8, done


@pytest.mark.parametrize("what", ["description", "cache", "sources"])
def test_damaged_texts(face: Path, tmp_path: Path, cache: Path, what: str) -> None:
    tiny_onnx(tmp_path / "m.onnx")
    cache.mkdir(mode=0o700)
    file = {"description": spec_path(tmp_path / "m.onnx"), "cache": cache / CHOICES, "sources": tmp_path / "s.toml"}[
        what
    ]
    if what == "cache":
        run(("image", face, "--out", "out"), cwd=tmp_path, codes=[0])
        known = json.loads(file.read_text())  # its times differ from run to run
        file.write_text(json.dumps({key: {"winner": "onnxruntime fp32", "why": "2 ms"} for key in known}, indent=2))
    elif what == "sources":
        file.write_text('[[source]]\nname = "a"\ntarget = "none.mp4"\nstride = 2\n')
    whole = file.read_bytes()
    for rng in attacks(2, 45):
        file.write_bytes(mutate(whole, rng))
        if what == "sources":
            run(("video", "--sources", "s.toml", "--out", "out", "--duration", "1"), cwd=tmp_path)
        elif what == "cache":
            run(("image", face, "--out", "out"), cwd=tmp_path, codes=[0])
        else:
            run(("image", face, "--out", "out", "--model", "m.onnx", "--backend", "onnxruntime"), cwd=tmp_path)


@pytest.mark.parametrize("ending", RECORDS)
def test_damaged_records(tmp_path: Path, ending: str) -> None:
    """By the command; ``test_attack_parsers.py`` has many more of the same."""
    file = stored_records(tmp_path, ending)
    records = tmp_path / "clip.jsonl" if ending == ".summary.json" else file
    whole = file.read_bytes()
    for rng in attacks(2, 30):
        file.write_bytes(damaged_records(whole, ending, rng))
        run(("report", records, "--out", "new.html"), cwd=tmp_path)
        if (page := tmp_path / "new.html").exists():
            assert page.read_text("utf-8").rstrip().endswith("</html>")
            page.unlink()
