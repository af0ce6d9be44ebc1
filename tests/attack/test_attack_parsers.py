"""Every parser of something from outside, called directly: damaged files, and values from hypothesis."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from attacks import LONG, MARKS, RECORDS, attacks, damaged_records, mutate, stored_records
from clips import demo_frames
from engines_fakes import tiny_onnx
from fakes import SPEC
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leaf_rt.backends.benchmark import parse_batches
from leaf_rt.backends.selection import CHOICES, _read_choices
from leaf_rt.batch.job import Clip, Outcome
from leaf_rt.batch.manifest import LOCK, NAME, Manifest
from leaf_rt.cli.folders import VIDEOS, expand
from leaf_rt.cli.report import report_from_records
from leaf_rt.errors import LeafError, ModelError
from leaf_rt.media.images import decode_picture, picture_size
from leaf_rt.models.calibration import PRIORS, Calibration
from leaf_rt.models.spec import load_spec, spec_path
from leaf_rt.sources.address import parse
from leaf_rt.sources.sources_file import load_targets
from leaf_rt.system.parsing import parse_json
from leaf_rt.web.allow import AllowList
from leaf_rt.web.camera import decode_jpeg
from leaf_rt.web.options import host_name, parse_address
from leaf_rt.web.routes import Change, NewSource

pytestmark = MARKS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
MANY = settings(
    max_examples=2000 if LONG else 100,
    deadline=None,
    derandomize=not LONG,  # CI may fail only for a change of the code
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("ending", RECORDS)
def test_damaged_records(tmp_path: Path, ending: str) -> None:
    """The report is complete, or one sentence says what is wrong."""
    file = stored_records(tmp_path, ending)
    whole = file.read_bytes()
    for rng in attacks(60, 60):
        file.write_bytes(damaged_records(whole, ending, rng))
        try:
            page, numbers, _ = report_from_records(tmp_path / "clip.jsonl" if ending == ".summary.json" else file)
        except LeafError as e:
            told = str(e)
        else:
            told = ""
        if told:
            assert file.name in told
            assert "\n" not in told
            continue
        assert page.read_text("utf-8").rstrip().endswith("</html>")
        json.loads(numbers.read_text("utf-8"), parse_constant=pytest.fail)
        if ending == ".summary.json":
            continue
        page.unlink()
        numbers.unlink()


def test_damaged_manifests(tmp_path: Path) -> None:
    files = [Clip(f"/in/{n}", str(n), str(tmp_path / str(n)), n, n) for n in range(30)]
    with Manifest(tmp_path) as manifest:
        manifest.start({"pose": False}, redo=False)
        for file in files:
            manifest.add(Outcome(file, "done"), "1")
    whole = (tmp_path / NAME).read_bytes()
    for rng in attacks(60, 20):
        (tmp_path / NAME).write_bytes(mutate(whole, rng))
        with contextlib.suppress(LeafError), Manifest(tmp_path) as manifest:
            manifest.start(manifest.options or {}, redo=rng.random() < 0.5)
            manifest.left(files)
            manifest.add(Outcome(files[0], "failed", "why"), "1")
    assert {path.name for path in tmp_path.iterdir()} <= {NAME, f"{NAME}-journal", LOCK}


@pytest.mark.parametrize("what", ["description", "cache", "sources"])
def test_damaged_texts(tmp_path: Path, what: str) -> None:
    model = tmp_path / "m.onnx"
    tiny_onnx(model)
    file = {"description": spec_path(model), "cache": tmp_path / CHOICES, "sources": tmp_path / "s.toml"}[what]
    if what == "cache":
        file.write_text(json.dumps({"0123abcd": {"winner": "onnxruntime fp32", "why": "2.0 ms a face"}}, indent=2))
    elif what == "sources":
        file.write_text('[[source]]\nname = "a"\ntarget = "none.mp4"\nstride = 2\nstart = 1.5\nmirror = true\n')
    whole = file.read_bytes()
    for rng in attacks(200, 40):
        file.write_bytes(mutate(whole, rng))
        with contextlib.suppress(LeafError):
            if what == "description":
                load_spec(model)
            elif what == "sources":
                load_targets(file)
            else:
                assert isinstance(_read_choices(tmp_path, str), dict)


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
@given(
    calibration=st.dictionaries(
        st.sampled_from([field.name for field in fields(Calibration)]),
        JSON | st.floats() | st.lists(st.floats() | st.integers(), min_size=8, max_size=8), max_size=4,
    )
)  # fmt: skip
def test_any_calibration(calibration: dict[str, Any]) -> None:
    """The shares of a model stay shares, or one sentence says that its calibration is damaged."""
    try:
        found = Calibration.of(replace(SPEC, calibration=calibration))
    except ModelError:
        return
    probs = np.eye(len(SPEC.labels), dtype=np.float32)
    for prior in PRIORS[: 2 if found.prior else 1]:
        shares = found.shares(probs, np.linspace(0, 1, len(probs), dtype=np.float32), prior)
        assert np.isfinite(shares).all()
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert found.evidence(np.ones((2, SPEC.feature_dim), np.float32), np.zeros(2, np.float32)).dtype == np.float32


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


@MANY
@given(scheme=st.sampled_from(("", "rtsp://", "HTTP://", "file:", "0", "subfile:", "a@", "http://h:")), rest=st.text())
def test_any_address(scheme: str, rest: str) -> None:
    text = scheme + rest
    address = parse(text)
    assert parse(address.target) == address or address.kind == "refused"
    assert isinstance(address.shown + address.name + host_name(text), str)
    AllowList(["rtsp://*.example/live*", "/clips/*.mp4"]).permits(text)
    for action in (lambda: parse_address(text), lambda: AllowList([text])):
        with contextlib.suppress(LeafError, ValueError):
            action()


@MANY
@given(body=JSON, known=st.dictionaries(st.sampled_from(("target", "name", "state")), JSON, max_size=3))
def test_any_body(body: Any, known: Any) -> None:
    for value in (body, known):
        for kind in (NewSource, Change):
            with contextlib.suppress(ValidationError):
                found = kind.model_validate(value)
                found.model_dump_json()


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".gif", ".tif"])
def test_damaged_pictures_of_browsers(ending: str) -> None:
    whole = cv2.imencode(ending, cv2.resize(demo_frames(1)[0], (160, 90)))[1].tobytes()
    for rng in attacks(60, 15):
        data = mutate(whole, rng)
        for read in (
            lambda d: picture_size(d, "x"),
            lambda d: decode_jpeg(d, 1 << 20),
            lambda d: decode_picture(d, "x"),
        ):
            with contextlib.suppress(LeafError):
                read(data)
