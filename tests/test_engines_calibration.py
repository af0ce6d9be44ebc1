"""Fitting the calibration of a model, and writing its card."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from engines_fakes import run_engines, tiny_onnx
from fakes import SPEC

from engines.calibration import RIGHT_FLAGGED, Answers, fit, fit_weights
from engines.false_faces import fit_face_score
from engines.model_card import BEGIN, END, Measured, with_figures
from leaf_rt.backends.parity import golden_faces
from leaf_rt.errors import ModelError
from leaf_rt.faces.quality import MEASURES, quality_of
from leaf_rt.labels import FERPLUS8
from leaf_rt.models.calibration import Calibration
from leaf_rt.models.spec import load_spec, variant_path
from train.metrics import flagged, measure, reliability, risk_coverage
from train.reports.degraded import DegradedResult, DegradedRow
from train.reports.evaluation import EvaluationResult
from train.reports.honesty import plot_honesty

SAMPLE = Path(__file__).parents[1] / "leaf_rt" / "web" / "sample.mp4"
RANDOM = np.random.default_rng(0)


def answers(count: int, trust: float, detail: float) -> Answers:
    """Answers whose shares would be right if their logarithms were multiplied by ``trust``."""
    true = RANDOM.dirichlet(np.full(8, 0.4), count)
    label = np.array([RANDOM.choice(8, p=p) for p in true])
    shown = true ** (1 / trust)
    measured = RANDOM.normal(0, 0.1, (count, len(MEASURES)))
    measured[:, 0] += detail
    features = RANDOM.normal(0, 1, (count, 4)).astype(np.float32)
    shares = np.maximum(shown / shown.sum(1, keepdims=True), 1e-6).astype(np.float32)
    return Answers(shares / shares.sum(1, keepdims=True), features, measured.astype(np.float32), label)


def test_the_fit_finds_temperature_and_quality() -> None:
    parts = {"clean": answers(1500, 1.6, 0.0), "blurred": answers(1500, 0.5, -2.0)}
    weights = fit_weights(parts)
    clear, blurred = (quality_of(parts[kind].measured, weights).mean() for kind in ("clean", "blurred"))
    assert blurred < 0.5 < 0.8 < clear
    training = np.array([1000, 500, 200, 200, 100, 10, 40, 10])
    none = np.zeros((0, 4), np.float32)
    calibration = fit(parts, training, weights, "test faces", SPEC, none)
    assert 1 / calibration.temperature == pytest.approx(1.6, rel=0.15)
    for kind, before in parts.items():
        facts = calibration.fitted[kind]
        raw = measure(before.probs, before.label, FERPLUS8)["calibration_error"]
        assert facts["calibration_error"] < 0.5 * raw
    assert calibration.fitted["clean"]["flagged_right"] == pytest.approx(RIGHT_FLAGGED, abs=0.02)
    assert sum(calibration.prior) == pytest.approx(1, abs=1e-3)
    assert Calibration.of(replace(SPEC, calibration=calibration.to_dict())) == replace(
        calibration, fitted=json.loads(json.dumps(calibration.fitted))
    )


def test_the_score_of_faces_separates_them_from_other_things() -> None:
    faces = RANDOM.normal([1, 0, 0, 0], 0.3, (400, 4)).astype(np.float32)
    others = RANDOM.normal([-1, 0, 0.5, 0], 0.3, (50, 4)).astype(np.float32)
    calibration = Calibration(face=fit_face_score(faces, faces, others))
    doubtful = np.full(400, 0.6, np.float32)
    assert (calibration.evidence(faces, doubtful) > 0).mean() >= 0.99
    assert (calibration.evidence(others, doubtful[:50]) > 0).mean() <= 0.05
    assert (calibration.evidence(others, np.full(50, 0.9, np.float32)) > 0).all()  # the detector is sure


def evaluation(below: float = 0.5) -> EvaluationResult:
    part = answers(400, 1.0, 0.0)
    metrics = measure(part.probs, part.label, FERPLUS8)
    wrong, right = flagged(part.probs, part.label, below)
    confusion = tuple(tuple(row) for row in metrics.pop("confusion"))
    return EvaluationResult(
        "m.onnx", "data", "test", "test", "all", FERPLUS8, confusion=confusion, details={}, uncertain_below=below,
        flagged_wrong=wrong, flagged_right=right, reliability=tuple(reliability(part.probs, part.label)),
        risk_coverage=tuple(risk_coverage(part.probs, part.label)), **metrics,
    )  # fmt: skip


def test_the_points_of_the_diagrams_agree_with_the_accuracy() -> None:
    result = evaluation()
    assert sum(n for _, _, n in result.reliability) == result.n
    assert sum(a * n for _, a, n in result.reliability) / result.n == pytest.approx(result.accuracy)
    covered, risk = result.risk_coverage[-1]
    assert covered == 1
    assert risk == pytest.approx(1 - result.accuracy)
    assert result.risk_coverage[5][1] < risk  # the surest answers are better
    assert plot_honesty(result).startswith(b"\x89PNG")
    drawn = plot_honesty(result, {"other": result}, "svg")
    assert drawn == plot_honesty(result, {"other": result}, "svg")
    ElementTree.fromstring(drawn)


def test_a_share_is_flagged_exactly_below_the_threshold() -> None:
    probs = np.array([[0.7, 0.3], [0.55, 0.45], [0.6, 0.4]], np.float32)
    assert flagged(probs, np.array([0, 0, 1]), 0.6) == (0.0, 0.5)
    assert flagged(probs, np.array([0, 0, 0]), 0.6)[0] is None


def test_the_card_gets_its_figures_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    tiny_onnx(target)
    card = target.with_suffix(".md")
    card.write_text(f"before\n{BEGIN}\nold figure\n{END}\nafter\n")
    result = evaluation()
    row = DegradedRow("clean", 0.9, 0.8, 0.01, 0.5, None)
    degraded = DegradedResult("m.onnx", "data", "test", "all", 100, 3, (row,))
    measured = Measured(result, {"all": result, "majority": result}, result, degraded, None)
    text = with_figures(card, measured, Path("docs/images/x.svg"))
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old figure" not in text
    assert f"{100 * result.accuracy:.2f} %" in text
    assert "../../docs/images/x.svg" in text
    assert "| clean | 90.0 % | 1.0 % | 50.0 % | - |" in text
    card.write_text("no marks")
    with pytest.raises(ModelError, match="has no lines"):
        with_figures(card, measured, Path("x.svg"))


@pytest.mark.slow
def test_calibrate_writes_all_descriptions_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, data, scenes = tmp_path / "m.onnx", tmp_path / "data", tmp_path / "scenes"
    int8 = variant_path(target, "int8")
    spec = tiny_onnx(target)
    tiny_onnx(int8, precision="int8", parent=spec.sha256)
    for row, face in enumerate(golden_faces(64)[:64]):
        folder = data / ("train" if row % 2 else "valid") / FERPLUS8[row // 2 % 8]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{row}.png"), face)
    scenes.mkdir()
    shutil.copy(SAMPLE, scenes)
    command = ["calibrate", target, "--data", data, "--layout", "folder", "--cache", tmp_path / "crops"]
    assert run_engines(*command, "--backgrounds", scenes) == 0
    assert "temperature" in capsys.readouterr().out
    found = Calibration.of(load_spec(target))
    assert found.temperature > 0
    assert found.fitted["clean"]["pictures"] == 32
    assert load_spec(int8).calibration == load_spec(target).calibration
    assert len(found.face) == spec.feature_dim + 1
    assert found.fitted["things that are no faces"] > 0
