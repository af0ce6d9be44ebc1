"""Checkpoints and backbones: saving and loading, and errors for damaged and foreign files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leaf_rt.errors import DataError, ModelError, NoPermission, NotFound, OutputError
from leaf_rt.system import files
from train.loop.training import checkpoint
from train.models.backbones import VisionTransformer, build_backbone, fold_batch_norm, load_backbone
from train.models.face_model import FaceModel, build_model
from train.models.mobilefacenet import MobileFaceNet
from train.models.moe import FusingSpec

WEIGHTS = Path(__file__).parents[2] / "shared" / "weights" / "mobilefacenet_msceleb.pt"
LABELS = ("a", "b", "c", "d")


def saved(path: Path, step: int = 3, **options: object) -> FaceModel:
    kwargs = {"backbone": "tiny", "num_classes": 4, **options}
    model = build_model(**kwargs).eval()  # type: ignore[arg-type]
    meta = checkpoint.CheckpointMeta(
        LABELS, checkpoint.Geometry(64, 0.05, "grey", 48), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), kwargs,
        {"step": step, "steps": 3}, {}, path,
    )  # fmt: skip
    checkpoint.save(path, meta, {"ema": model.state_dict(), "student": model.state_dict(), "step": step})
    return model


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_a_loaded_model_equals_the_saved_one(tmp_path: Path, mode: str) -> None:
    spec = {"experts": 4, "hidden": 8, "k": 2, "shared": False, "combine": "sum", "noise": True, "control": False}
    options = {"instance_on": "features", "unit_features": True} if mode == "official" else {}
    model = saved(tmp_path / "last.pt", semantic=spec, instance=spec, **options)
    again, meta = checkpoint.load_model(tmp_path)
    x = torch.randn(3, 3, 48, 48)
    assert not again.training
    assert torch.equal(again(x).logits, model(x).logits)
    assert again(x).gates.shape == (3, 2, 4)
    assert (meta.labels, meta.geometry.net_side, meta.mean) == (LABELS, 48, (0.5, 0.5, 0.5))
    described = json.loads((tmp_path / "meta.json").read_text())
    assert described["labels"] == list(LABELS)
    assert "ema" not in described


def test_the_best_checkpoint_represents_the_run(tmp_path: Path) -> None:
    saved(tmp_path / "last.pt")
    best = saved(tmp_path / "best.pt")
    model, meta = checkpoint.load_model(tmp_path)
    assert meta.path.name == "best.pt"
    assert torch.equal(model.classifier.weight, best.classifier.weight)


def test_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        checkpoint.load_model(tmp_path)
    path = tmp_path / "last.pt"
    saved(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        checkpoint.load_model(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="is not a checkpoint of"):
        checkpoint.load_model(path)
    path.write_bytes(whole)
    content = checkpoint.load(path)
    torch.save({**content, "format": 99}, path)
    with pytest.raises(ModelError, match="format 99"):
        checkpoint.load(path)
    torch.save({**content, "model": {"backbone": "tiny", "num_classes": 7}}, path)
    words = "do not fit its description (of another shape: classifier.weight (4, 32) for (7, 32), classifier.bias (4,)"
    with pytest.raises(ModelError, match=re.escape(words)) as e:
        checkpoint.load_model(path)
    assert "\n" not in str(e.value)


def test_a_run_killed_before_its_first_checkpoint_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(NotFound, match=f"{tmp_path}: the run has no checkpoint yet; start it again with --out"):
        checkpoint.load_model(tmp_path)


def test_code_in_a_checkpoint_is_not_run_and_not_recommended(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "model": nn.Linear(1, 1)}, path)
    with pytest.raises(ModelError, match="cannot be loaded: it holds Python objects, which could run code") as e:
        checkpoint.load(path)
    with pytest.raises(DataError, match="cannot be loaded as a state dict: it holds Python objects") as e2:
        load_backbone(build_backbone("tiny"), "tiny", path)
    for words in (str(e.value), str(e2.value)):
        assert "weights_only" not in words
        assert "\x1b" not in words
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"it is cut short, or is not a file of torch.save"):
        checkpoint.load(path)


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")  # torch's own error message for its archives
def test_a_torchscript_archive_is_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), str(tmp_path / "net.pt"))
    with pytest.raises(DataError, match="it is a TorchScript archive; save the state dict of its network"):
        load_backbone(build_backbone("tiny"), "tiny", tmp_path / "net.pt")


def test_a_failing_disk_is_not_reported_as_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    saved(path)
    for error, raised, words in (
        (OSError(5, "Input/output error"), ModelError, r"cannot be read \(Input"),
        (PermissionError(13, "no"), NoPermission, "no permission to read it"),
    ):

        def fail(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(raised, match=words) as e:
            checkpoint.load(path)
        assert "cannot be loaded" not in str(e.value)


def test_json_holds_finite_numbers_only(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a number in it is not finite"):
        files.save_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_progress_of_a_run_is_read_from_its_latest_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path / "best.pt", step=1)
    saved(tmp_path / "last.pt", step=2)
    _, meta = checkpoint.load_model(tmp_path)
    assert json.loads((tmp_path / "meta.json").read_text())["checkpoint"] == "best.pt"
    assert checkpoint.unfinished(meta) == "step 2 of 3"
    (tmp_path / "last.pt").write_bytes(b"")
    assert checkpoint.unfinished(meta) == ""


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")

    def torn(f: object) -> None:
        f.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="no space left"):
        files.write_whole(path, torn)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(NoPermission, match="choose another place"):
        files.write_whole(tmp_path / "x", lambda f: f.write(b"x"))


@pytest.mark.parametrize(
    ("name", "dim", "side"),
    [("resnet18", 512, 64), ("resnet14", 192, 48), ("mobilefacenet", 512, 48), ("tiny", 32, 16)],
)
def test_backbones_give_features(name: str, dim: int, side: int) -> None:
    encoder = build_backbone(name).eval()
    assert encoder.dim == dim
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, side, side)).shape == (2, dim)


def test_vision_transformer_at_any_side() -> None:
    net = VisionTransformer(dim=32, layers=2, heads=4, hidden=64, patch=8, side=32).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 32, 32)).shape == (2, 32)
        assert net(torch.randn(2, 3, 48, 48)).shape == (2, 32)


def test_parameter_names_are_those_of_torchvision() -> None:
    resnet = set(build_backbone("resnet18").state_dict())
    assert {
        "conv1.weight",
        "layer1.0.bn2.running_mean",
        "layer2.0.downsample.0.weight",
        "layer4.1.conv2.weight",
    } <= resnet
    assert len([k for k in resnet if not k.endswith("num_batches_tracked")]) == 100
    vit = set(VisionTransformer(dim=8, layers=1, heads=1, hidden=8, patch=16).state_dict())
    assert vit == {
        "class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding", "encoder.ln.weight",
        "encoder.ln.bias",
        *(f"encoder.layers.encoder_layer_0.{k}" for k in (
            "ln_1.weight", "ln_1.bias", "self_attention.in_proj_weight", "self_attention.in_proj_bias",
            "self_attention.out_proj.weight", "self_attention.out_proj.bias", "ln_2.weight", "ln_2.bias",
            "mlp.0.weight", "mlp.0.bias", "mlp.3.weight", "mlp.3.bias")),
    }  # fmt: skip


def test_a_published_checkpoint_loads_and_wrong_keys_are_named(tmp_path: Path) -> None:
    donor = build_backbone("resnet18")
    state: dict[str, Tensor] = {f"module.{k}": v for k, v in donor.state_dict().items()}
    path = tmp_path / "msceleb.pt"
    head = {f"module.{k}": torch.zeros(1) for k in ("fc.weight", "feature.weight", "feature.bias")}
    torch.save({"state_dict": {**state, **head}}, path)
    encoder = build_backbone("resnet18")
    assert load_backbone(encoder, "resnet18", path) == ["fc.weight", "feature.bias", "feature.weight"]
    assert torch.equal(encoder.state_dict()["layer4.1.conv2.weight"], donor.state_dict()["layer4.1.conv2.weight"])
    del state["module.conv1.weight"]
    state["module.layer1.0.conv1.weight"] = torch.zeros(1)
    state["module.extra"] = torch.zeros(1)
    torch.save(state, path)
    words = r"missing: conv1\.weight; unexpected: extra; of another shape: layer1\.0\.conv1\.weight \(1,\) for"
    with pytest.raises(ModelError, match=words):
        load_backbone(encoder, "resnet18", path)
    path.write_text("text")
    with pytest.raises(DataError, match="cannot be loaded as a state dict"):
        load_backbone(encoder, "resnet18", path)
    with pytest.raises(NotFound):
        load_backbone(encoder, "resnet18", tmp_path / "none.pt")


def test_unknown_backbones() -> None:
    with pytest.raises(ModelError, match="wanted one of resnet18"):
        build_backbone("alexnet")
    with pytest.raises(ModelError, match="timm"):
        build_backbone("timm:no_such_network")


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} (pre-trained weights) is not here")
def test_the_shared_weights_load() -> None:
    left_out = load_backbone(MobileFaceNet(), "mobilefacenet", WEIGHTS)
    assert {k.split(".")[0] for k in left_out} == {"gdconv", "conv3", "bn"}


@pytest.mark.parametrize("name", ["mobilefacenet", "resnet18", "resnet14"])
def test_folding_keeps_the_output(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_backbone(name)
    with torch.no_grad():
        encoder(torch.randn(8, 3, 48, 48))  # batch statistics that are not 0 and 1
        encoder.eval()
        x = torch.randn(2, 3, 48, 48)
        before = encoder(x)
        fold_batch_norm(encoder)
        torch.testing.assert_close(encoder(x), before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    assert set(build_model(name, 4, folded=True).encoder.state_dict()) == set(encoder.state_dict())


def test_the_mode_decides_where_the_levels_are() -> None:
    spec = FusingSpec(4, 8, 2)
    paper = build_model("tiny", 5, semantic=spec, instance=spec)
    official = build_model("tiny", 5, semantic=spec, instance=spec, instance_on="features", unit_features=True)
    assert paper.instance is not None
    assert official.instance is not None
    assert (paper.instance.w1.shape[2], official.instance.w1.shape[2]) == (5, 32)
    features = official.eval()(torch.randn(3, 3, 16, 16)).features
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
