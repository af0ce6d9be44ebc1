"""Fused equals unfused for every architecture of the trainer; a model that cannot be fused is an error."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from engines_fakes import faces
from torch import Tensor, nn

from engines.deployed_model import Affine, Deployed, Preparation, fuse, largest_activation, to_half
from leaf_rt.errors import ModelError
from train.models.backbones import EncoderBlock, VisionTransformer
from train.models.face_model import FaceModel, build_model
from train.models.moe import FusingSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def shake(model: FaceModel) -> FaceModel:
    """Random batch statistics and weights; initial ones would hide errors."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)  # type: ignore[union-attr]
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.eval()


class SmallNet(nn.Module):
    """Batch norms in unusual places: defined before their layer, at the input, after a linear layer."""

    dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.norm_of_conv = nn.BatchNorm2d(4)
        self.first = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.linear = nn.Linear(4, 6)
        self.norm_of_linear = nn.BatchNorm1d(6)
        self.last = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_of_conv(self.conv(self.first(x))))
        x = torch.relu(self.norm_of_linear(self.linear(x.mean((2, 3)))))
        out: Tensor = self.last(self.drop(x))
        return out


SPEC = FusingSpec(experts=4, hidden=8, k=2)
MODELS: dict[str, Any] = {
    "mobilefacenet": lambda: build_model("mobilefacenet", 8, dropout=0.2),
    "mobilefacenet folded": lambda: build_model("mobilefacenet", 8, folded=True),
    "resnet18": lambda: build_model("resnet18", 7, dropout=0.5),
    "vit": lambda: FaceModel(VisionTransformer(24, 2, 2, 48, 16, 64), 8),
    "small": lambda: FaceModel(SmallNet(), 8),
    "leaf": lambda: FaceModel(SmallNet(), 8, semantic=SPEC, instance=SPEC),
    "leaf, one expert": lambda: FaceModel(SmallNet(), 8, semantic=FusingSpec(4, 8, 1)),
    "leaf, official": lambda: FaceModel(
        SmallNet(), 8, semantic=FusingSpec(4, 8, 1, shared=True, combine="log"),
        instance=FusingSpec(4, 8, 1, shared=True, combine="log"), instance_on="features", unit_features=True,
    ),
    "control": lambda: FaceModel(SmallNet(), 8, semantic=FusingSpec(4, 8, 2, control=True)),
}  # fmt: skip


def built(name: str) -> FaceModel:
    torch.manual_seed(0)
    return shake(MODELS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_fused_equals_unfused_on_real_faces(name: str) -> None:
    model = built(name)
    preparation = Preparation(64, "grey", 64, MEAN, STD, flip=True)
    fused = fuse(model, 64)
    crops = torch.from_numpy(faces(4))
    with torch.no_grad():
        for a, b in zip(Deployed(model, preparation)(crops), Deployed(fused, preparation)(crops), strict=True):
            assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(a.abs().max()))
    kinds = {type(m) for m in fused.modules()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout}
    assert not any(p.requires_grad for p in fused.parameters())
    assert any(isinstance(m, Affine) for m in fused.modules()) == (isinstance(model.encoder, SmallNet))


def test_fusing_does_not_change_the_original() -> None:
    model = built("small")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fuse(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_model_in_training_mode_is_rejected() -> None:
    with pytest.raises(ModelError, match="training mode"):
        fuse(built("small").train())


def test_folding_a_convolution_with_two_readers_is_an_error() -> None:
    class Shared(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            z = torch.relu(self.norm_of_conv(y)) + y  # also uses the raw output
            out: Tensor = self.last(self.linear(z.mean((2, 3))))
            return out

    with pytest.raises(ModelError, match="folding changed"):
        fuse(shake(FaceModel(Shared(), 8)))


def test_a_convolution_used_twice_is_not_folded() -> None:
    class Twice(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Conv2d(3, 3, 3, 1, 1)
            self.other = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.other(self.same(torch.relu(self.first(self.same(x))))))

    fused = fuse(shake(FaceModel(Twice(), 8)))
    assert isinstance(fused.encoder.other, Affine)


def test_preprocessing_equals_a_plain_implementation() -> None:
    crops = faces(4)
    grey = Deployed(built("small"), Preparation(64, "grey", 80, MEAN, STD, flip=False))
    got = grey.prepare(torch.from_numpy(crops)).numpy()
    for crop, x in zip(crops, got, strict=True):
        plane = (crop.astype(np.float64) * (0.114, 0.587, 0.299)).sum(2) / 255
        expected = cv2.resize(plane, (80, 80), interpolation=cv2.INTER_LINEAR)
        for channel in range(3):
            np.testing.assert_allclose(x[channel], (expected - MEAN[channel]) / STD[channel], atol=1e-5)
    rgb = Deployed(built("small"), Preparation(64, "rgb", 64, MEAN, STD, flip=False)).prepare(torch.from_numpy(crops))
    np.testing.assert_allclose(rgb[0, 0], (crops[0, :, :, 2] / 255 - MEAN[0]) / STD[0], atol=1e-6)


def test_the_outputs_are_averaged_over_the_mirror_image() -> None:
    crops = torch.from_numpy(faces(3))
    model = built("leaf")
    one = Deployed(model, Preparation(64, "grey", 64, MEAN, STD, flip=False))
    both = Deployed(model, Preparation(64, "grey", 64, MEAN, STD, flip=True))
    with torch.no_grad():
        plain, mirrored, averaged = one(crops), one(crops.flip(2)), both(crops)
    for a, b, c in zip(plain, mirrored, averaged, strict=True):
        torch.testing.assert_close((a + b) / 2, c, atol=1e-6, rtol=1e-5)
        assert float((a - b).abs().max()) > 1e-4, "this test would pass without mirroring"


def test_the_heads_stay_in_float32_in_the_fp16_model() -> None:
    half = to_half(fuse(built("leaf")))
    kinds = {name.split(".")[0]: p.dtype for name, p in half.named_parameters()}
    assert kinds["encoder"] == torch.float16
    assert kinds["classifier"] == kinds["semantic"] == torch.float32


def test_activations_beyond_half_of_float16_are_rejected() -> None:
    model = fuse(built("small"))
    x = torch.randn(2, 3, 64, 64)
    largest, layer = largest_activation(model, x)
    assert 0 < largest < 1000
    assert layer
    with torch.no_grad():
        model.encoder.conv.weight.mul_(1e6)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match=r"fp16: conv outputs .* export with --precision fp32"):
        largest_activation(model, x)


def test_the_tested_models_include_attention() -> None:
    assert any(isinstance(m, EncoderBlock) for m in built("vit").modules())
