"""Merging several runs into one model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from engines_fakes import run_engines
from train_fakes import tiny, train_command, write_folder

from engines.onnx_export import export_onnx, load_checkpoint
from leaf_rt.errors import DataError, ModelError
from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.loop.checkpoint import CheckpointMeta, Geometry, load_model, save
from train.loop.merging import merge
from train.models.backbones import build_backbone
from train.models.bundled import load_bundled
from train.models.face_model import build_model
from train.recipes.loading import load_recipe, to_toml

pytestmark = pytest.mark.slow

LABELS = ("anger", "fear", "happiness", "sadness", "surprise")
OPTIONS = {
    "backbone": "tiny", "num_classes": 5, "dropout": 0.0, "folded": False, "semantic": None, "instance": None,
    "instance_on": "logits", "unit_features": False,
}  # fmt: skip


def run(out: Path, seed: int, side: int, **changes: object) -> Path:
    torch.manual_seed(seed)
    values = {
        "labels": LABELS, "geometry": Geometry(20, 0.05, "grey", side), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2),
        "model": OPTIONS, "training": {"seed": seed}, "metrics": {}, "path": out / "last.pt",
    }  # fmt: skip
    meta = dataclasses.replace(CheckpointMeta(**values), **changes)  # type: ignore[arg-type]
    state = build_model(**meta.model).state_dict()
    save(meta.path, meta, {"ema": state, "student": state})
    return out


def test_logits_of_an_ensemble_are_the_weighted_mean_of_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = run(tmp_path / "one", 1, 24), run(tmp_path / "two", 2, 16)
    assert train_command(["merge", str(one), str(two), "--shares", "3,1", "--out", str(tmp_path / "both")]) == 0
    assert str(tmp_path / "both" / "last.pt") in capsys.readouterr().err
    both, meta = load_model(tmp_path / "both")
    assert meta.geometry == Geometry(20, 0.05, "grey", 20)
    assert meta.model["backbone"] == "tiny@24+tiny@16"
    assert meta.training == {"parts": [{"seed": 1}, {"seed": 2}], "shares": [3.0, 1.0], "mean": "logits"}
    x = torch.randn(3, 3, 20, 20)
    with torch.no_grad():
        parts = [
            load_model(path)[0](F.interpolate(x, (side, side), mode="bilinear", align_corners=False))
            for path, side in ((one, 24), (two, 16))
        ]
        got = both(x)
    torch.testing.assert_close(got.logits, 0.75 * parts[0].logits + 0.25 * parts[1].logits)
    torch.testing.assert_close(got.features, torch.cat([p.features for p in parts], 1))
    assert (parts[0].logits - parts[1].logits).abs().max() > 0.01


def test_networks_with_and_without_batch_norms_are_merged(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 1, 32, model=OPTIONS | {"backbone": "mobilefacenet", "folded": True})
    two = run(tmp_path / "two", 2, 24, model=OPTIONS | {"backbone": "resnet14"})
    normed = load_model(two)[0]
    for norm in (m for m in normed.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    state = normed.state_dict()
    save(two / "last.pt", load_model(two)[1], {"ema": state, "student": state})
    for order in ((one, two), (two, one)):
        out = tmp_path / f"{order[0].name} first"
        assert train_command(["merge", *map(str, order), "--out", str(out)]) == 0
        both, meta = load_model(out)
        assert meta.model["folded"]
        x = torch.randn(3, 3, 20, 20)
        with torch.no_grad():
            parts = [
                load_model(path)[0](F.interpolate(x, (side, side), mode="bilinear", align_corners=False)).logits
                for path, side in ((one, 32), (two, 24))
            ]
            torch.testing.assert_close(both(x).logits, (parts[0] + parts[1]) / 2, atol=1e-5, rtol=1e-4)


class NormFirst(torch.nn.Module):
    """A batch norm without a convolution before it, as in some networks of timm."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(x)
        return out.mean((2, 3))


def test_a_batch_norm_that_cannot_be_folded_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.models.backbones.Tiny", NormFirst)
    one = run(tmp_path / "one", 1, 32, model=OPTIONS | {"backbone": "mobilefacenet", "folded": True})
    two = run(tmp_path / "two", 2, 24)
    assert train_command(["merge", str(one), str(two), "--out", str(tmp_path / "both")]) == DataError.exit_code
    assert "cannot be folded in all (fold_batch_norm: norm follows no convolution" in capsys.readouterr().err


def test_the_mean_of_weights_is_one_network(tmp_path: Path) -> None:
    folded = {"model": OPTIONS | {"backbone": "mobilefacenet", "folded": True}}
    one, two = (run(tmp_path / str(seed), seed, 24, **folded) for seed in (1, 2))
    out = tmp_path / "mean"
    assert train_command(["merge", str(one), str(two), "--mean", "weights", "--shares", "3,1", "--out", str(out)]) == 0
    (mean, meta), *parts = (load_model(path) for path in (out, one, two))
    assert (meta.geometry, meta.model) == (parts[0][1].geometry, parts[0][1].model)
    assert meta.training["mean"] == "weights"
    states = [model.state_dict() for model, _ in parts]
    for key, value in mean.state_dict().items():
        torch.testing.assert_close(value, 0.75 * states[0][key] + 0.25 * states[1][key])
    # It is an ordinary checkpoint, so it can be merged with another network.
    both = merge([out, run(tmp_path / "small", 3, 20, model=OPTIONS | {"backbone": "resnet14"})], tmp_path / "both")
    assert load_model(both)[1].model["backbone"] == "mobilefacenet@24+resnet14@20"


def test_a_run_is_averaged_with_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec(DEFAULT_MODEL)
    labels = tuple(reversed(spec.labels))
    options = OPTIONS | {"backbone": "mobilefacenet", "folded": True, "num_classes": len(labels)}
    crops = Geometry(spec.side, spec.margin, spec.color, spec.net_side)
    own = run(tmp_path / "own", 1, 24, model=options, labels=labels, geometry=crops)
    out = tmp_path / "mean"
    command = ["merge", "bundled", str(own), "--mean", "weights", "--shares", "1,3", "--out", str(out)]
    assert train_command(command) == 0, capsys.readouterr().err
    (mean, meta), (alone, _) = load_model(out), load_model(own)
    assert meta.labels == labels
    assert meta.training["parts"][0]["sha256"] == spec.sha256
    bundled = build_model(**options)
    load_bundled(bundled.encoder, bundled.classifier, labels)
    for key, value in mean.state_dict().items():
        torch.testing.assert_close(value, 0.25 * bundled.state_dict()[key] + 0.75 * alone.state_dict()[key])
    other = run(tmp_path / "other", 1, 24, model=OPTIONS | {"backbone": "mobilefacenet", "folded": True})
    for models, message in (
        (["bundled", str(other)], "its classes or crops are not those"),
        (["bundled"] * 2, "give one"),
    ):
        assert train_command(["merge", *models, "--out", str(tmp_path / "no")]) == DataError.exit_code
        assert message in capsys.readouterr().err


def test_models_whose_weights_cannot_be_averaged_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path / "one", 1, 24), run(tmp_path / "other", 2, 16)
    normed = run(tmp_path / "normed", 1, 24, model=OPTIONS | {"backbone": "mobilefacenet"})
    for first, second, words in (
        (one, other, "labels, crops or network differ"),
        (normed, normed, "has batch norms"),
    ):
        command = ["merge", str(first), str(second), "--mean", "weights", "--out", str(tmp_path / "mean")]
        assert train_command(command) == DataError.exit_code
        assert words in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_recipes_are_trained_first(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    for seed, side in ((1, 16), (2, 24)):
        recipe = tiny(tmp_path, method__name="supervised", run__seed=seed, run__input_sizes=[side], run__epochs=1)
        (tmp_path / f"seed{seed}.toml").write_text(to_toml(recipe))
    recipes = [str(tmp_path / f"seed{seed}.toml") for seed in (1, 2)]
    out = tmp_path / "both"
    assert train_command(["merge", *recipes, "--out", str(out), "--quiet"]) == 0
    assert load_model(out)[1].model["backbone"] == "tiny@16+tiny@24"
    assert all((out / f"seed{seed}" / "report.html").is_file() for seed in (1, 2))
    again = tmp_path / "again"
    assert train_command(["merge", str(out / "seed1"), recipes[1], "--out", str(again), "--quiet"]) == 0
    one, two = (load_model(path)[0].state_dict() for path in (out, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert train_command(["merge", str(out / "seed1"), "nothing", "--out", str(tmp_path / "none"), "--quiet"]) == 3


def test_a_run_that_two_recipes_start_from_is_trained_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    common = {"method__name": "supervised", "run__epochs": 1}
    start = tmp_path / "start.toml"
    start.write_text(to_toml(tiny(tmp_path, **common)))
    recipes = [tmp_path / f"seed{seed}.toml" for seed in (1, 2)]
    for seed, path in enumerate(recipes):
        path.write_text(to_toml(tiny(tmp_path, run__seed=seed, run__init_from=str(start), **common)))
    out = tmp_path / "both"
    assert train_command(["merge", *map(str, recipes), "--out", str(out), "--quiet"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["last.pt", "meta.json", "seed1", "seed2", "start"]
    assert not list(out.glob("seed*/before"))
    assert load_recipe(out / "seed1" / "recipe.toml").run.init_from == str(out / "start" / "last.pt")


def test_a_merged_model_is_exported_like_any_other(tmp_path: Path) -> None:
    path = merge([run(tmp_path / "one", 1, 24), run(tmp_path / "two", 2, 16)], tmp_path / "both")
    loaded = load_checkpoint(path, flip=False)
    faces = torch.randint(0, 256, (4, 20, 20, 3), dtype=torch.uint8)
    file = export_onnx(loaded, tmp_path / "both.onnx", faces.numpy())
    got = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["probs"], {"faces": faces.numpy()})[0]
    blue, green, red = (faces.float() / 255).unbind(3)
    grey = (0.114 * blue + 0.587 * green + 0.299 * red)[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        wanted = loaded.model((grey - 0.5) / 0.2).logits.softmax(1)
    torch.testing.assert_close(torch.from_numpy(got), wanted, atol=1e-5, rtol=0)
    assert run_engines("export", path.parent, "--out", tmp_path / "models") == 0
    assert (tmp_path / "models" / "both.onnx").is_file()


def test_models_that_do_not_fit_together_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run(tmp_path / "one", 1, 16)
    other = run(tmp_path / "other", 2, 16, labels=LABELS[::-1])
    wide = run(tmp_path / "wide", 2, 16, geometry=Geometry(20, 0.3, "grey", 16))
    unit = run(tmp_path / "unit", 2, 16, model={**OPTIONS, "unit_features": True})
    twice = merge([one, run(tmp_path / "two", 2, 24)], tmp_path / "twice")
    for runs, words in (
        ([one], "two runs or more"),
        ([one, other], "labels, crops or normalisation differ"),
        ([one, wide], "labels, crops or normalisation differ"),
        ([one, unit], "has levels of LEAF"),
        ([one, twice], "is an ensemble already"),
    ):
        assert train_command(["merge", *map(str, runs), "--out", str(tmp_path / "both")]) == DataError.exit_code
        assert words in capsys.readouterr().err
    for shares in ("1", "1,0", "1,nan", "a,b"):
        assert (
            train_command(["merge", str(one), str(one), "--shares", shares, "--out", str(tmp_path / "both")])
            == DataError.exit_code
        )
        assert "--shares" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()
    assert train_command(["merge", str(one), str(one), "--out", str(one)]) == DataError.exit_code
    assert "contains a run already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tiny@", "tiny@16+tiny", "tiny@0", "what@16"])
def test_wrong_names_of_ensembles_are_an_error(name: str) -> None:
    with pytest.raises(ModelError, match=r"model\.backbone"):
        build_backbone(name)
